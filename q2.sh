. /tmp/env.sh; cd /tmp/research; export PYTHONPATH=/tmp/wt/grid
nice -n 4 python dump.py sat trec/pair40,trec/clean,trec/symmetric20 5 0 4000
