"""Wrong tags as people and dictionaries make them: entities that are missed, or of the wrong kind."""

from __future__ import annotations

import datasets
import numpy as np

from ..metrics.spans import OUTSIDE, spans_of, split_tag
from .checks import IGNORED, check_choice, check_column, check_dataset, check_new_column, check_rate, with_format_of
from .draws import Rng, generator

SPAN_KINDS = ("missed", "mistyped")


def inject_span_noise(
    dataset: datasets.Dataset,
    rate: float,
    kind: str = "missed",
    label_column: str = "labels",
    seed: int = 0,
) -> datasets.Dataset:
    """Make a share of the entities wrong, each as a whole, and keep the clean tags in `clean_<label_column>`.

    Exactly `round(rate * N)` of the N entities change; words outside entities stay outside.

    Args:
        dataset: one split; noise the training split only.
        rate: share of the entities to make wrong, in [0, 1).
        kind: "missed", all words of the entity become O; "mistyped", it gets another kind, any with equal chance.
        label_column: holds lists of `ClassLabel` whose names are tags; -100 for words to leave out.
        seed: non-negative integer.

    Returns:
        A new dataset of the same rows with the column `clean_<label_column>` added.

    Raises:
        ValueError: an argument is wrong, or the tags have no O, or no other kind to change to.

    Example:
        >>> import datasets
        >>> tags = datasets.List(datasets.ClassLabel(names=["O", "B-LOC", "I-LOC"]))
        >>> clean = datasets.Dataset.from_dict({"labels": [[1, 2, 0, 1]]}, features=datasets.Features(labels=tags))
        >>> inject_span_noise(clean, 0.5, seed=1)["labels"][0]
        [0, 0, 0, 1]
    """
    check_dataset(dataset)
    check_column(dataset, "label_column", label_column)
    check_new_column(dataset, clean_column := f"clean_{label_column}")
    check_choice("kind", kind, SPAN_KINDS)
    check_rate(rate)
    rng = generator(seed)
    names = _tag_names(dataset, label_column)
    rows = [list(row) for row in dataset.with_format(None)[label_column][:]]
    entities = [(row, *span) for row, tags in enumerate(rows) for span in _spans(tags, names)]
    for at in np.sort(rng.permutation(len(entities))[: round(rate * len(entities))]):
        row, _, first, end = entities[at]
        rows[row][first:end] = _changed(rows[row][first:end], names, kind, rng)
    renamed = dataset.with_format(None).rename_column(label_column, clean_column)
    noisy = renamed.add_column(label_column, rows, feature=dataset.features[label_column])
    return with_format_of(dataset, noisy.select_columns([*dataset.column_names, clean_column]))


def _spans(labels: list[int], names: list[str]) -> list[tuple[str, int, int]]:
    return spans_of([OUTSIDE if label == IGNORED else names[label] for label in labels])


def _changed(labels: list[int], names: list[str], kind: str, rng: Rng) -> list[int]:
    """The labels of an entity's words, made wrong."""
    if kind == "missed":
        return [names.index(OUTSIDE)] * len(labels)
    ways = _other_kinds([names[label] for label in labels], names)
    if not ways:
        raise ValueError(f"kind='mistyped': the tags {names} have no other kind for {names[labels[0]]!r}; use 'missed'")
    return ways[rng.integers(len(ways))]


def _other_kinds(tags: list[str], names: list[str]) -> list[list[int]]:
    """An entity's labels in every other kind that has all the tags it takes."""
    kinds = sorted({split_tag(name)[1] for name in names if name != OUTSIDE} - {split_tag(tags[0])[1]})
    heads = [tag.removesuffix(split_tag(tag)[1]) for tag in tags]  # "B-" of "B-LOC", nothing of an IO tag
    number = {name: i for i, name in enumerate(names)}
    written = ([number.get(head + kind) for head in heads] for kind in kinds)
    return [labels for labels in written if None not in labels]


def _tag_names(dataset: datasets.Dataset, column: str) -> list[str]:
    inner = getattr(dataset.features[column], "feature", None)
    if not isinstance(inner, datasets.ClassLabel) or OUTSIDE not in inner.names:
        raise ValueError(
            f"label_column={column!r} holds {dataset.features[column]}; noise of entities takes lists of ClassLabel, "
            f"with {OUTSIDE!r} among the names"
        )
    return list(inner.names)
