"""Labelled text from the Hub, from files, or from what is installed; whichever it is, checked before it is used."""

import datasets

from ..config import refuse
from .corpus import docstring_corpus
from .data import columns_of, label_column, load_splits, named_column, only_column

USUAL_TEXT = ("text", "sentence", "content")


def load_text(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_file: str | None = None,
    validation_file: str | None = None,
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Training and held-out split, as they come; see [`load_splits`] for arguments and errors.

    Returns:
        The two; without any argument, sentences from the docstrings of installed libraries.
    """
    splits = load_splits(dataset_name, dataset_config_name, train_file, validation_file)
    if splits is None:
        corpus = docstring_corpus()
        return corpus["train"], corpus["test"]
    return splits


def find_columns(
    dataset: datasets.Dataset, text: str | None, label: str | None, what: str = "the training data"
) -> tuple[str, str]:
    """The text and the label column: those named, else those of the usual names, else the only ones that can be.

    Raises:
        ValueError: where a name is not a column (the nearest is named), or the choice is open.
    """
    if text is not None:
        named_column(dataset, "text_column", text, what)
    label = label_column(dataset, label, what)
    strings = [name for name in columns_of(dataset, datasets.Value) if _is_string(dataset.features[name])]
    strings = [name for name in strings if name != label]
    text = text or only_column(dataset, "text_column", USUAL_TEXT, strings)
    if not _is_string(dataset.features[text]):
        raise refuse(
            "text_column", text, f"it holds {dataset.features[text]}; name a column of text, one of {strings}."
        )
    return text, label


def _is_string(feature: object) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def check_text(dataset: datasets.Dataset, column: str, what: str) -> None:
    """Refuse rows without text.

    Raises:
        ValueError: naming the row.
    """
    values = dataset.with_format(None)[column][:]
    if None in values:
        raise ValueError(
            f"{what}: column {column!r} has no text in row {values.index(None)}; fill it in or drop the row."
        )
