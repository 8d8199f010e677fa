# /// script
# requires-python = ">=3.10"
# dependencies = ["hf_sat[recipes]"]
#
# [tool.uv.sources]
# hf_sat = { path = "..", editable = true }
# ///
"""Fine-tune an image classifier on labels that cannot be fully trusted.

    accelerate launch recipes/finetune_vit_sat.py

runs offline in a few minutes on two cores: a small ViT learns scikit-learn's handwritten digits, with a part of the
training labels made wrong, once by the plain Trainer and once by SATTrainer. With images of your own, in class folders
or in a table:

    accelerate launch recipes/finetune_vit_sat.py --dataset_name photos --model_name_or_path microsoft/resnet-50
    accelerate launch recipes/finetune_vit_sat.py --train_file train.parquet --image_column image --label_column animal

Settings also come from a file (`--config recipes/finetune_vit_sat.yaml`); `--help` lists them.
"""

import sys

from hf_sat.tasks.train import run_recipe

if __name__ == "__main__":
    sys.exit(run_recipe(sys.argv, task="image"))
