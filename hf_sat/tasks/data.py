"""Labelled data from the Hub or from files, of whatever kind: loaded, sampled, and its labels checked."""

import difflib
import glob
import os
from collections.abc import Callable, Iterable

import datasets
import numpy as np
from transformers.utils import logging

from ..config import refuse
from ..samples import LABEL_NAMES
from .label_slips import slips

logger = logging.get_logger(__name__)

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
ROW = "source_row"  # where a sample is trained on: each example's row in the whole training set


def load_table(setting: str, path: str) -> datasets.Dataset:
    """The rows of a CSV, TSV, JSON or Parquet file, or of all that a pattern names.

    Args:
        setting: that names the file.

    Raises:
        ValueError: for a file that is missing, of another kind, not what its name says, or without rows.
    """
    files = [path] if os.path.isfile(path) else sorted(glob.glob(path)) or [path]
    extension = check_file(setting, files[0], FORMATS)
    options = {"sep": "\t"} if extension == ".tsv" else {}
    try:
        return datasets.load_dataset(FORMATS[extension], data_files=files, split="train", **options)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise refuse(setting, path, f"it cannot be read as {FORMATS[extension]} ({reason}).") from error
    except ValueError as error:
        raise refuse(setting, path, f"no rows can be read from it ({error}).") from error


def check_file(setting: str, path: str, formats: Iterable[str]) -> str:
    """Refuse a file that is missing or of another kind; returns how its name ends."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in formats:
        raise refuse(setting, path, f"a file ends in one of {', '.join(formats)}.")
    if not os.path.isfile(path):
        raise refuse(setting, path, f"there is no such file under {os.getcwd()!r}.")
    return extension


def load_splits(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_file: str | None = None,
    validation_file: str | None = None,
    load_file: Callable[[str, str], datasets.Dataset] = load_table,
) -> tuple[datasets.Dataset, datasets.Dataset | None] | None:
    """Training and held-out split, as they come; None where nothing is named.

    Args:
        dataset_name: name on the Hub, or a folder; the held-out split is its "validation", else its "test".
        dataset_config_name: configuration of that data set.
        train_file: CSV, TSV, JSON (an array or a line per row) or Parquet file, or a pattern of several, "train_*.csv";
            or what `load_file` reads.
        validation_file: held-out examples, likewise.
        load_file: from the setting that names a file, and its path, to its rows.

    Raises:
        ValueError: for a source that is missing or of another kind, or sources that exclude each other.
    """
    if train_file is not None:
        if dataset_name is not None:
            raise refuse("train_file", train_file, f"dataset_name={dataset_name!r} is given too; leave one out.")
        validation = None if validation_file is None else load_file("validation_file", validation_file)
        return load_file("train_file", train_file), validation
    if validation_file is not None:
        raise refuse("validation_file", validation_file, "give train_file too.")
    if dataset_name is None:
        return None
    splits = _load_named(dataset_name, dataset_config_name)
    if "train" not in splits:
        raise refuse(
            "dataset_name", dataset_name, f"there is no split 'train' among {list(splits)}; save one to a file."
        )
    return splits["train"], next((splits[name] for name in ("validation", "test") if name in splits), None)


def _load_named(name: str, config_name: str | None) -> datasets.DatasetDict:
    try:
        return datasets.load_dataset(name, config_name)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refuse(
            "dataset_name",
            name,
            f"no folder under {os.getcwd()!r} and no data set of the Hub can be read so ({reason}).",
        ) from error


def take_sample(dataset: datasets.Dataset, most: int | None, seed: int, keep_rows: bool = False) -> datasets.Dataset:
    """At most `most` rows, drawn at random, as files are often sorted by class.

    Args:
        most: None or a number not below the data set's length takes it whole.
        keep_rows: add the column "source_row", so that a report of the sample can name rows of the whole.
    """
    if most is None or most >= len(dataset):
        return dataset
    rows = np.sort(np.random.default_rng(seed).choice(len(dataset), size=most, replace=False))
    sample = dataset.select(rows)
    return sample.add_column(ROW, rows) if keep_rows else sample


def named_column(dataset: datasets.Dataset, setting: str, name: str, what: str = "the training data") -> str:
    """A column that the user names.

    Args:
        setting: in which.

    Raises:
        ValueError: where there is no such column; the nearest is named.
    """
    if name not in dataset.features:
        near = difflib.get_close_matches(name, dataset.features, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise refuse(setting, name, f"{what} has no such column, it has {list(dataset.features)}.{hint}")
    return name


def only_column(dataset: datasets.Dataset, setting: str, usual: tuple[str, ...], possible: list[str]) -> str:
    """The column that can be meant: the first of the usual names, else the only possible one.

    Raises:
        ValueError: where the choice is open.
    """
    named = [name for name in usual if name in dataset.features]
    if named or len(possible) == 1:
        return (named or possible)[0]
    columns = possible or dataset.column_names
    raise refuse(setting, None, f"it is not clear which it is; name one of the columns {columns}.")


def columns_of(dataset: datasets.Dataset, kind: type) -> list[str]:
    """The names of the columns of a kind of feature."""
    return [name for name, feature in dataset.features.items() if isinstance(feature, kind)]


def label_column(dataset: datasets.Dataset, name: str | None, what: str = "the training data") -> str:
    """The column of labels: the one named, else of a usual name, else the only `ClassLabel`.

    Raises:
        ValueError: as [`named_column`] and [`only_column`].
    """
    if name is not None:
        return named_column(dataset, "label_column", name, what)
    return only_column(dataset, "label_column", LABEL_NAMES, columns_of(dataset, datasets.ClassLabel))


def class_names(dataset: datasets.Dataset, column: str) -> list[str]:
    """The classes of a label column: those of its `ClassLabel`, the whole numbers from 0, or its sorted strings.

    Raises:
        ValueError: for a column that does not hold classes: missing, fractional or negative values, lists, or about as
            many different values as rows.
    """
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    values = dataset.with_format(None)[column][:]
    if None in values:
        raise refuse("label_column", column, f"row {values.index(None)} has no label; fill it in or drop the row.")
    if isinstance(values[0], str):
        names = sorted(set(values))
    elif isinstance(values[0], int):
        if min(values) < 0:
            raise refuse("label_column", column, f"row {np.argmin(values)} has {min(values)}; number classes from 0.")
        names = [str(number) for number in range(int(max(values)) + 1)]
    else:
        raise refuse("label_column", column, f"it holds {feature}, not classes; use strings or whole numbers from 0.")
    if not 2 <= len(names) <= max(20, len(values) // 2):
        raise refuse("label_column", column, f"{len(names)} classes in {len(values)} rows; is another column meant?")
    return names


def warn_of_slips(dataset: datasets.Dataset, column: str) -> None:
    """Tell of classes that read like another one, misspelt, in a column of strings."""
    labels = dataset.with_format(None)[column][:]
    for name, meant in list(slips(map(str, labels)).items())[:5]:
        logger.warning(
            f"label_column={column!r}: {name!r} is a class of its own, of {labels.count(name)} in {len(labels)} rows; "
            f"if {meant!r} is meant, correct it in the file."
        )


def with_labels(dataset: datasets.Dataset, column: str, names: list[str], what: str) -> datasets.Dataset:
    """The data set with its labels in the column "labels", a `ClassLabel` of `names`.

    Other columns that the Trainer would take for labels are dropped.

    Raises:
        ValueError: for labels that are not among `names`, naming value and row.
    """
    dataset = dataset.remove_columns([name for name in LABEL_NAMES if name in dataset.features and name != column])
    values = dataset.with_format(None)[column][:]
    number = {name: i for i, name in enumerate(names)}
    labels = [number.get(value, -1) if isinstance(value, str) else value for value in values]
    wrong = next((i for i, y in enumerate(labels) if not (isinstance(y, int) and 0 <= y < len(names))), None)
    if wrong is not None:
        raise ValueError(
            f"{what}: column {column!r} has {values[wrong]!r} in row {wrong}, which is none of the classes "
            f"{names[:20]}; correct the label or drop the row."
        )
    feature = datasets.ClassLabel(names=names)
    return dataset.remove_columns(column).add_column("labels", np.asarray(labels, np.int64), feature=feature)
