# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Fine-tune a text classifier on labels that cannot be fully trusted.

    accelerate launch recipes/finetune_bert_sat.py

runs offline in a few minutes on two cores: MiniLM-L6 learns which library a docstring sentence comes from, with half of
the training labels made wrong, once by the plain Trainer and once by SATTrainer. With data of your own:

    accelerate launch recipes/finetune_bert_sat.py --train_file train.csv --validation_file held_out.csv
    accelerate launch recipes/finetune_bert_sat.py --model_name_or_path bert-base-uncased --dataset_name ag_news

Settings also come from a file (`--config recipes/finetune_bert_sat.yaml`); `--help` lists them.
"""

import sys

from hf_sat.tasks.train import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(sys.argv, task="text"))
