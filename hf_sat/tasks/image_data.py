"""Labelled images from the Hub, folders, files, or what is installed; whichever it is, in one form."""

import os
from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np

from ..config import refuse
from ..samples import LABEL_NAMES
from .audit_columns import PICTURES
from .data import columns_of, label_column, load_splits, named_column, only_column
from .machine import require
from .pictures import EXTENSIONS, as_picture
from .run_options import RunOptions

DIGITS_TO_TRAIN_ON = 1300
SHOWN = 5  # rows that a message names


def load_images(options: RunOptions) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Training and held-out split, as they come; see [`load_splits`] for errors.

    Returns:
        The two; where the options name no data, scikit-learn's handwritten digits.
    """
    splits = load_splits(options.dataset_name, options.dataset_config_name, options.train_file, options.validation_file)
    return digits() if splits is None else splits


def digits(num_train: int = DIGITS_TO_TRAIN_ON) -> tuple[datasets.Dataset, datasets.Dataset]:
    """scikit-learn's 1,797 handwritten digits, 8 by 8 pixels, grey: so many to train on, the others held out."""
    require("sklearn", extra="recipes")
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in data.target_names]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    order = np.random.default_rng(0).permutation(len(pixels))
    train, held_out = (
        datasets.Dataset.from_dict({"image": list(pixels[rows]), "label": data.target[rows]}, features)
        for rows in (order[:num_train], order[num_train:])
    )
    return train, held_out


def find_columns(
    dataset: datasets.Dataset, image: str | None, label: str | None, what: str = "the training data"
) -> tuple[str, str]:
    """The image and the label column: those named, else those of the usual names, else the only ones that can be.

    Raises:
        ValueError: where a name is not a column (the nearest is named), or the choice is open.
    """
    held = [name for name, feature in dataset.features.items() if _holds_images(feature)]
    paths = [name for name in dataset.features if name != label and _holds_paths(dataset, name)]
    possible = held + paths
    if image is not None:
        named_column(dataset, "image_column", image, what)
        if image not in possible:
            raise refuse(
                "image_column",
                image,
                f"{what}: it holds {dataset.features[image]}, neither images nor bytes or paths of images; name one "
                f"of {possible}.",
            )
    possible = held or paths  # beside images, paths are where they came from
    usual = tuple(name for name in PICTURES if name in possible)
    image = image or only_column(dataset, "image_column", usual, possible)
    if label is None and not any(name in dataset.features for name in LABEL_NAMES):
        named = columns_of(dataset, datasets.ClassLabel)
        return image, only_column(dataset, "label_column", (), named or label_candidates(dataset, image))
    return image, label_column(dataset, label, what)


def label_candidates(dataset: datasets.Dataset, image: str) -> list[str]:
    """The columns that hold strings or whole numbers, few of them different."""
    kinds = ("string", "large_string", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
    plain = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in kinds]
    most = max(20, len(dataset) // 2)
    return [name for name in plain if name != image and 2 <= len(dataset.unique(name)) <= most]


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, dict):
        return {"bytes", "path"} & feature.keys() != set()
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _holds_paths(dataset: datasets.Dataset, name: str) -> bool:
    if not _is_string(dataset.features[name]):
        return False
    first = next((value for value in dataset.with_format(None)[name][:100] if value), "")
    return first.lower().endswith(EXTENSIONS)


def _is_string(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def as_pictures(dataset: datasets.Dataset, column: str, root: str) -> datasets.Dataset:
    """The data set with a column of {"bytes", "path"}, whatever it held; paths in a table are those below `root`."""
    # Apart from the rest: `datasets` miscounts rows where it casts a column of a table that is put together of several.
    pictures, kind = dataset.select_columns(column), datasets.Image(decode=False)
    if _is_string(dataset.features[column]):
        below = {"column": column, "root": root}
        pictures = pictures.map(_below, batched=True, fn_kwargs=below, features=datasets.Features({column: kind}))
    else:
        pictures = pictures.cast_column(column, kind)
    return datasets.concatenate_datasets([pictures, dataset.remove_columns(column)], axis=1)


def _below(batch: dict[str, list], column: str, root: str) -> dict[str, list]:
    return {column: [as_picture(value, root) for value in batch[column]]}


def root_of(path: str | None) -> str:
    """The folder that relative paths in a data set start from."""
    if path is None or os.path.isdir(path):
        return path or ""
    return os.path.dirname(path)


def refuse_unreadable(column: str, what: str, problems: dict[int, str], pictures: Iterable[dict | None]) -> None:
    """Refuse images that cannot be opened.

    Args:
        column: that holds them.
        what: data set, in words.
        problems: row -> why.
        pictures: of those rows.

    Raises:
        ValueError: where there are any; the first rows are named, with their paths.
    """
    if not problems:
        return
    paths = [picture and picture["path"] for picture in pictures]
    named = [f"row {row}{f' ({path})' if path else ''}: {why}" for (row, why), path in zip(problems.items(), paths)]
    more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    raise refuse(
        "image_column",
        column,
        f"{what} has {len(named)} images that cannot be read: {'; '.join(named[:SHOWN])}{more}. Replace them, or drop "
        "their rows.",
    )
