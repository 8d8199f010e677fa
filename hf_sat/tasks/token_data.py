"""Sentences of tagged words from the Hub, from files, or from what is installed; checked before they are used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from ..config import refuse
from ..metrics.spans import OUTSIDE
from ..samples import IGNORED, LABEL_NAMES
from .data import load_splits, named_column, only_column
from .token_corpus import name_corpus
from .token_files import load_token_file

USUAL_TOKENS = ("tokens", "words", "token")
USUAL_TAGS = ("tags", "ner_tags", *LABEL_NAMES)
LABELS, CLEAN = "labels", "clean_labels"  # what the checked columns are called


@dataclass
class TokenColumns:
    """The columns of tagged sentences.

    Args:
        tokens: lists of words.
        tags: lists of their tags.
        clean: lists of the tags that are known to be right; None where there are none.
    """

    tokens: str
    tags: str
    clean: str | None = None


def load_tokens(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_file: str | None = None,
    validation_file: str | None = None,
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Training and held-out split, as they come; see [`load_splits`] and [`load_token_file`] for arguments and errors.

    Returns:
        The two; without any argument, sentences from the docstrings of installed libraries.
    """
    splits = load_splits(dataset_name, dataset_config_name, train_file, validation_file, load_token_file)
    if splits is None:
        corpus = name_corpus()
        return corpus["train"], corpus["test"]
    return splits


def find_token_columns(
    dataset: datasets.Dataset,
    tokens: str | None,
    tags: str | None,
    clean: str | None = None,
    what: str = "the training data",
) -> TokenColumns:
    """The columns named, else those of the usual names, else the only ones that can be.

    Raises:
        ValueError: where a name is not a column (the nearest is named), holds no lists, or the choice is open.
    """
    for setting, name in {"tokens_column": tokens, "label_column": tags, "clean_label_column": clean}.items():
        if name is not None:
            _check_lists(dataset, setting, named_column(dataset, setting, name, what))
    lists = [name for name, feature in dataset.features.items() if _inner(feature) is not None]
    words = [name for name in lists if _is_string(_inner(dataset.features[name])) and name not in (tags, clean)]
    tokens = tokens or only_column(dataset, "tokens_column", USUAL_TOKENS, words)
    _check_lists(dataset, "tokens_column", tokens)
    if not _is_string(_inner(dataset.features[tokens])):
        raise refuse("tokens_column", tokens, f"it holds {dataset.features[tokens]}; name one of words, of {words}.")
    tags = tags or only_column(dataset, "label_column", USUAL_TAGS, [n for n in lists if n not in (tokens, clean)])
    _check_lists(dataset, "label_column", tags)
    if clean is None and f"clean_{tags}" in lists:
        clean = f"clean_{tags}"
    return TokenColumns(tokens, tags, clean)


def tag_names(dataset: datasets.Dataset, columns: TokenColumns, given: list[str] | None = None) -> list[str]:
    """The tags there are: those of the column's `ClassLabel`, its strings with "O" first, or the whole numbers from 0.

    Clean tags count too: what made the given ones may have missed a whole kind.

    Args:
        given: names of the whole numbers. Without them each number is a kind of its own, and 0 is "O".

    Raises:
        ValueError: for a column that holds no tags, or numbers that have no name.
    """
    column, feature = columns.tags, _inner(dataset.features[columns.tags])
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    found = {tag for name in filter(None, (column, columns.clean)) for tag in _all_tags(dataset, name, feature)}
    if _is_string(feature):
        names = sorted(found, key=lambda tag: (tag != OUTSIDE, tag))
    elif getattr(feature, "dtype", "").startswith(("int", "uint")):
        size = max(found, default=-1) + 1
        names = given or [OUTSIDE, *map(str, range(1, size))]
        if size > len(names):
            raise refuse("tag_names", ",".join(names), f"column {column!r} has the tag {size - 1}; name all from 0 on.")
    else:
        raise refuse("label_column", column, f"it holds {feature}, not tags; use strings or whole numbers from 0.")
    if len(names) < 2:
        raise refuse("label_column", column, f"all its tags are {names}; is another column meant?")
    return names


def _all_tags(dataset: datasets.Dataset, column: str, feature: Any) -> set:
    """The tags in a column, if they are of the kind of `feature`."""
    if _is_string(_inner(dataset.features[column])) != _is_string(feature):
        return set()
    return {tag for row in dataset.with_format(None)[column][:] for tag in row or () if tag is not None}


def with_tags(
    dataset: datasets.Dataset, columns: TokenColumns, names: list[str], what: str = "the training data"
) -> datasets.Dataset:
    """The data set with its tags in "labels", and the clean ones in "clean_labels", lists of a `ClassLabel` of `names`.

    Other columns that the Trainer would take for labels are dropped.

    Raises:
        ValueError: for rows without words, with another number of tags than of words, or with tags that are not among
            `names`; naming the row.
    """
    words = dataset.with_format(None)[columns.tokens][:]
    _check_words(words, columns.tokens, what)
    made = {LABELS: _numbers(dataset, columns.tags, words, names, what)}
    if columns.clean is not None:
        made[CLEAN] = _numbers(dataset, columns.clean, words, names, what)
        _check_clean(made, columns.clean, what)
    dropped = {columns.tags, columns.clean, CLEAN, *LABEL_NAMES} & set(dataset.column_names)
    dataset = dataset.remove_columns(sorted(dropped))
    feature = datasets.List(datasets.ClassLabel(names=names))
    for name, rows in made.items():
        dataset = dataset.add_column(name, rows, feature=feature)
    return dataset


def _numbers(
    dataset: datasets.Dataset, column: str, words: list[list[str]], names: list[str], what: str
) -> list[list[int]]:
    """The number of each tag among `names`."""
    number = _number_of(_inner(dataset.features[column]), names)
    numbers = []
    for row, tags in enumerate(dataset.with_format(None)[column][:]):
        if tags is None or len(tags) != len(words[row]):
            found = "no tags" if tags is None else f"{len(tags)} tags"
            raise ValueError(
                f"{what}: column {column!r} has {found} for {len(words[row])} words in row {row}; give each word one."
            )
        unknown = [tag for tag in tags if tag not in number]
        if unknown:
            raise ValueError(
                f"{what}: column {column!r} has {_shown(unknown[0], dataset.features[column])!r} in row {row}, which "
                f"is none of the tags {names[:20]}; correct the tag or drop the row."
            )
        numbers.append([number[tag] for tag in tags])
    return numbers


def _number_of(feature: Any, names: list[str]) -> Mapping[Any, int]:
    """From a tag as it is stored to its number; what is not in it is not known."""
    known = {name: number for number, name in enumerate(names)}
    if _is_string(feature):
        return known
    if isinstance(feature, datasets.ClassLabel):  # whose order may be another
        known = {number: known[name] for number, name in enumerate(feature.names) if name in known}
    else:
        known = {number: number for number in range(len(names))}
    return {IGNORED: IGNORED, **known}


def _shown(tag: Any, feature: Any) -> Any:
    names = getattr(_inner(feature), "names", None)
    return names[tag] if names and tag is not None and 0 <= tag < len(names) else tag


def _check_words(rows: list, column: str, what: str) -> None:
    for row, words in enumerate(rows):
        if words is None or None in words:
            raise ValueError(f"{what}: column {column!r} lacks words in row {row}; fill them in or drop the row.")


def _check_clean(made: Mapping[str, list[list[int]]], column: str, what: str) -> None:
    for row, (given, clean) in enumerate(zip(made[LABELS], made[CLEAN])):
        if np.any((np.asarray(clean) == IGNORED) & (np.asarray(given) != IGNORED)):
            raise ValueError(f"{what}: column {column!r} has {IGNORED} in row {row} for a word that has a tag.")


def _check_lists(dataset: datasets.Dataset, setting: str, column: str) -> None:
    if _inner(dataset.features[column]) is None:
        raise refuse(setting, column, f"it holds {dataset.features[column]}, not lists; give a list for each sentence.")


def _inner(feature: Any) -> Any:
    """The feature of what lists hold; None of what are no lists."""
    return getattr(feature, "feature", None)


def _is_string(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string") and not isinstance(
        feature, datasets.ClassLabel
    )
