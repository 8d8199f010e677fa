# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Fine-tune a tagger of words on tags that cannot be fully trusted.

    accelerate launch recipes/finetune_ner_sat.py

runs offline in a few minutes on two cores: MiniLM-L6 learns which words of a docstring sentence are names of classes,
functions and parameters, with 40 % of the training entities mistyped, once by the plain Trainer and once by SATTrainer.
With data of your own, such as tags that a dictionary made:

    accelerate launch recipes/finetune_ner_sat.py --train_file train.conll --validation_file held_out.conll \\
        --label_column distant --clean_label_column gold
    accelerate launch recipes/finetune_ner_sat.py --model_name_or_path bert-base-cased \\
        --dataset_name extraordinarylab/conllpp

Settings also come from a file (`--config recipes/finetune_ner_sat.yaml`); `--help` lists them.
"""

import sys

from hf_sat.tasks.train import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(sys.argv, task="tokens"))
