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

from hf_sat.tasks.compare import compare
from hf_sat.tasks.images import image_task, read_image_options
from hf_sat.tasks.machine import use_all_cores


def main() -> None:
    options, args = read_image_options(sys.argv[1:])
    if options.model_name_or_path:  # the small ViT has no work for a second core
        use_all_cores()
    compare(image_task(options, args), args, with_plain=options.compare)


if __name__ == "__main__":
    main()
