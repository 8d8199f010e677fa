# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Distil a text classifier: a smaller student learns from its teacher's logits and hidden states.

    accelerate launch recipes/distill_bert.py

runs offline in a few minutes on two cores: MiniLM-L6 learns which library a docstring sentence comes from, then a
student that starts from the first half of its pretrained layers learns from it, and the same student without it. With
data and models of your own, where `--kd_hidden_weight` is 0 unless it is given:

    accelerate launch recipes/distill_bert.py --teacher_model_name_or_path bert-base-uncased --dataset_name ag_news
    accelerate launch recipes/distill_bert.py --teacher_model_name_or_path runs/distill_bert/teacher \\
        --model_name_or_path distilbert-base-uncased --train_file train.csv --kd_cache_dir runs/logits

Settings also come from a file (`--config recipes/distill_bert.yaml`); `--help` lists them.
"""

import sys

from hf_sat.tasks.distill import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(sys.argv))
