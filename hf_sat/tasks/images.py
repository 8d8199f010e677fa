"""Image classification: the options of a run, and the task they describe."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import datasets
from transformers import PreTrainedConfig

from ..config import SATConfig, refuse
from ..noise import inject_label_noise
from ..quiet import no_weight_bars
from .data import ROW, class_names, named_column, take_sample, warn_of_slips, with_labels
from .image_data import as_pictures, find_columns, load_images, refuse_unreadable, root_of
from .image_models import image_classifier, image_config
from .machine import num_cores, require
from .pixels import PIXELS, PROBLEM, PixelCollator, Preparation, inspected, preparation_for
from .results import accuracy
from .run import Task
from .run_options import EACH_EPOCH, RunOptions, read_run_options, refuse_below, run_title, source_of, training_sample

OUTPUT_DIR = "runs/finetune_vit_sat"
CACHE_BYTES = 2 * 2**30
MOST_WORKERS = 8
DIGITS, SCRATCH = (1, 8, 8), (3, 32, 32)  # channels, height and width that a model without a name sees
# Without data of the user's: short enough for two cores, with a noise that plain training learns by heart.
OFFLINE = {
    "output_dir": OUTPUT_DIR,
    "noise_rate": 0.4,
    "noise_type": "symmetric",
    "num_train_epochs": 60,
    "learning_rate": 2e-3,
    "warmup_steps": 0.1,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    **EACH_EPOCH,
}
# The user's labels are taken as they are, and trained on once; pictures are decoded beside the training.
OWN_DATA = {"output_dir": OUTPUT_DIR, "compare": False}


@dataclass
class ImageOptions(RunOptions):
    """What is classified, by which model, and with which noise. What else is in it, see [`RunOptions`].

    Args:
        model_name_or_path: classifier of images on the Hub or in a folder; default a small ViT, from scratch, which
            learns much less than a pretrained model.
        dataset_name: also a folder of class folders, below train/ and validation/ or without. Without it and
            `train_file`, scikit-learn's digits.
        train_file, validation_file: CSV, TSV, JSON or Parquet, with a column of images, their bytes, or their paths as
            seen from the file.
        image_column: default "image", "img" or the only column of images.
        clean_label_column: labels that are known to be right: held-out pictures are measured on them, and corrections
            counted by them. Never trained on.
        image_size: side of the square that the model sees, pixels; default its own.
        cache_images: keep resized pixels, decoded once: "auto" where they take less than 2 GB on the disk.

    Raises:
        ValueError: for numbers out of their range.
    """

    image_column: str | None = field(default=None, metadata={"help": "Column of images, their bytes or paths."})
    clean_label_column: str | None = field(
        default=None, metadata={"help": "Column of right labels, to measure on; never trained on."}
    )
    image_size: int | None = field(default=None, metadata={"help": "Side of the square the model sees, pixels."})
    cache_images: Literal["auto", "always", "never"] = field(
        default="auto", metadata={"help": "Keep resized pixels, decoded once; auto: where they take less than 2 GB."}
    )

    def __post_init__(self):
        super().__post_init__()
        refuse_below(self, {"image_size": 1})
        if self.clean_label_column is not None and self.noise_rate:
            raise refuse(
                "noise_rate", self.noise_rate, "with a clean_label_column the labels are noisy already; leave one out."
            )


def read_image_options(argv: Sequence[str]) -> tuple[ImageOptions, SATConfig]:
    """Options of a run from its command line; see [`read_run_options`]."""
    return read_run_options(argv, [ImageOptions], OFFLINE, OWN_DATA)


@dataclass
class Images:
    """Labelled images, their labels checked.

    Args:
        train, validation: with {"bytes", "path"} in `column` and the classes in "labels", a `ClassLabel`; validation
            may be None.
        column: holds the images.
        source: where they come from, in a word or two.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    column: str
    source: str = "scikit-learn's digits"

    @property
    def names(self) -> list[str]:
        """The classes."""
        return self.train.features["labels"].names


def image_task(options: ImageOptions, args: SATConfig) -> Task:
    """The task that the options of a run describe.

    Sets `args.dataloader_num_workers`, where it is 0, for pictures that are decoded again and again.

    Raises:
        ValueError: for data, images, labels and models that cannot be used.
    """
    require("PIL", extra="images")
    images = read_images(options, args)
    scratch = DIGITS if images.source == Images.source else SCRATCH
    config = image_config(options.model_name_or_path, images.names, options.image_size, scratch)
    preparation = preparation_for(options.model_name_or_path, config, options.image_size)
    make_model = partial(image_classifier, options.model_name_or_path, config, args.seed, preparation.shape)
    with no_weight_bars():
        make_model()  # refused before pictures are decoded, where it cannot be
    with args.main_process_first(desc="decoding images"):
        train, validation = _prepared(images, preparation, options, args)
    return Task(
        train=train,
        validation=validation,
        make_model=make_model,
        title=_title(options, config, images),
        collator=PixelCollator(preparation),
        processing_class=preparation.processor,
        compute_metrics=accuracy,
        all_cores=options.model_name_or_path is not None,  # a small ViT is slower on two
    )


def read_images(options: ImageOptions, args: SATConfig) -> Images:
    """Load and sample the data of a run, and check its labels.

    Sets `args.sample_id_column`, where it is free, when training takes a sample of the data.

    Raises:
        ValueError: for files, columns and labels that cannot be used.
    """
    # One process fills the cache of the Hub, the others read it.
    with args.main_process_first(desc="loading the images"):
        train, validation = load_images(options)
    image, label = find_columns(train, options.image_column, options.label_column)
    clean = options.clean_label_column
    if clean is not None:
        named_column(train, "clean_label_column", clean)
    names = class_names(train, label)
    if args.process_index == 0:
        warn_of_slips(train, label)
    train = as_pictures(train, image, root_of(options.train_file or options.dataset_name))
    train = training_sample(train, options, args)
    train = _labelled(train, label, clean, names, "the training data")
    if validation is not None:
        truth = clean if clean in validation.features else label
        find_columns(validation, image, truth, "the held-out data")
        validation = as_pictures(validation, image, root_of(options.validation_file or options.dataset_name))
        validation = take_sample(validation, options.max_eval_samples, args.seed)
        validation = with_labels(validation, truth, names, "the held-out data")
    return Images(train, validation, image, source_of(options, Images.source))


def _labelled(split: datasets.Dataset, label: str, clean: str | None, names: list[str], what: str) -> datasets.Dataset:
    """The given labels in "labels", the right ones, where there are, in "clean_labels"."""
    right = None
    if clean is not None:
        right = with_labels(split.select_columns(clean), clean, names, f"{what}, clean labels")
    split = with_labels(split, label, names, what)
    if right is None:
        return split
    return split.add_column("clean_labels", right["labels"][:], feature=right.features["labels"])


def _prepared(
    images: Images, preparation: Preparation, options: ImageOptions, args: SATConfig
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Both splits with "pixel_values", bytes of pixels or the pictures as they are; noise in the training labels."""
    splits = {"the training data": images.train, "the held-out data": images.validation}
    keep = _keeps_pixels(options.cache_images, preparation.nbytes * sum(len(split or ()) for split in splits.values()))
    if not keep and args.dataloader_num_workers == 0:
        args.dataloader_num_workers = min(MOST_WORKERS, num_cores())
    prepared = []
    for what, split in splits.items():
        if split is None:
            prepared.append(None)
            continue
        opened = inspected(split.select_columns(images.column), images.column, preparation, keep)
        _refuse_problems(split, images.column, opened, what)
        if split is images.train:
            split = _with_noise(split, images.column, options, args.seed)
        prepared.append(_with_pixels(split, images.column, opened))
    return prepared[0], prepared[1]


def _keeps_pixels(cache_images: str, nbytes: int) -> bool:
    return cache_images == "always" or (cache_images == "auto" and nbytes <= CACHE_BYTES)


def _refuse_problems(split: datasets.Dataset, column: str, opened: datasets.Dataset, what: str) -> None:
    places = [place for place, why in enumerate(opened[PROBLEM][:]) if why is not None]
    if places:
        rows = split[ROW][:] if ROW in split.features else range(len(split))
        problems = {int(rows[place]): opened[place][PROBLEM] for place in places}
        refuse_unreadable(column, what, problems, split.select(places)[column])


def _with_noise(split: datasets.Dataset, column: str, options: ImageOptions, seed: int) -> datasets.Dataset:
    if not options.noise_rate:
        return split
    by = [column] if options.noise_type == "instance" else None
    return inject_label_noise(split, options.noise_rate, options.noise_type, seed=seed, feature_columns=by)


def _with_pixels(split: datasets.Dataset, column: str, opened: datasets.Dataset) -> datasets.Dataset:
    if PIXELS in split.features and column != PIXELS:
        split = split.remove_columns(PIXELS)
    if PIXELS not in opened.features:
        return split if column == PIXELS else split.rename_column(column, PIXELS)
    rest = split.remove_columns(column)
    return datasets.concatenate_datasets([opened.select_columns(PIXELS), rest], axis=1)


def _title(options: ImageOptions, config: PreTrainedConfig, images: Images) -> str:
    name = options.model_name_or_path
    model = os.path.basename(name.rstrip("/")) if name else f"small {type(config).__name__.removesuffix('Config')}"
    return run_title(model, f"{len(images.train)} images ({images.source})", f"{len(images.names)} classes", options)
