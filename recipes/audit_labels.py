# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Find the wrong labels of a data set.

    python recipes/audit_labels.py

runs offline in a few minutes on two cores: MiniLM-L6 learns which library a docstring sentence comes from, with a tenth
of the labels made wrong, and lists the labels it holds to be wrong. With data of your own:

    python recipes/audit_labels.py reviews.csv --text text --label stars --out report

It is the command `hf-sat audit`, whose `--help` lists the flags.
"""

import sys

from hf_sat.cli import main
from hf_sat.tasks.audit_example import write_example

OUT = "runs/audit_labels"


if __name__ == "__main__":
    sys.exit(main(["audit", *(sys.argv[1:] or [write_example(OUT), "--out", OUT])]))
