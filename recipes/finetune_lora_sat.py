# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes,lora]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Fine-tune a text classifier by low-rank adapters (LoRA) on labels that cannot be fully trusted.

    accelerate launch recipes/finetune_lora_sat.py

runs offline in a few minutes on two cores: adapters on MiniLM-L6 learn which library a docstring sentence comes from,
with half of the training labels made wrong, once by the plain Trainer and once by SATTrainer. It prints which share of
the weights is trained, and leaves the adapter and, in `merged` below it, a plain model. With data of your own:

    accelerate launch recipes/finetune_lora_sat.py --train_file train.csv --lora_r 16
    accelerate launch recipes/finetune_lora_sat.py --model_name_or_path roberta-base --dataset_name imdb --lora_bits 4

Settings also come from a file (`--config recipes/finetune_lora_sat.yaml`); `--help` lists them.
"""

import sys

from hf_sat.tasks.train import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(sys.argv, task="text", lora=True))
