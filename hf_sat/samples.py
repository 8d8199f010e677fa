"""What is known of the training examples before the first step: their ids, labels and marks.

An example has one state row (classification) or one for each label that is not -100 (token classification); its rows
start at `offsets[example]`. Examples are numbered by their position in the data set, or by the rank of their id, so
that with an id column the numbering survives a reordering of the data.
"""

import contextlib
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from .config import refuse
from .rng import preserved_rng

IGNORED = -100
UNKNOWN = -1
LABEL_NAMES = ("labels", "label", "label_ids")


@dataclass
class Samples:
    """The examples of a training set.

    Args:
        num_examples: number of examples.
        ids: id of each position, (num_examples,); None where the position is the id.
        example_of: example number of each position, int64; None where they are equal.
        labels: given label of each state row, int64; None where only the batches show them.
        offsets: first state row of each example and the total, int64 (num_examples + 1,); None with one row each.
        trusted: examples that are never corrected, bool; or None.
        clean: clean label of each state row, int64, where the data set has them; or None.
    """

    num_examples: int
    ids: np.ndarray | None = None
    example_of: np.ndarray | None = None
    labels: np.ndarray | None = None
    offsets: np.ndarray | None = None
    trusted: np.ndarray | None = None
    clean: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        return self.num_examples if self.offsets is None else int(self.offsets[-1])

    def id_of(self, example: int) -> Any:
        """The id a person knows an example by."""
        if self.ids is None:
            return int(example)
        position = example if self.example_of is None else int(np.flatnonzero(self.example_of == example)[0])
        return self.ids[position].item() if hasattr(self.ids[position], "item") else self.ids[position]

    def name_row(self, row: int) -> str:
        """How messages name a state row."""
        if self.offsets is None:
            return f"example {self.id_of(row)!r}"
        example = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"example {self.id_of(example)!r}, token {row - int(self.offsets[example])}"


def read_samples(
    dataset: Any,
    loaded: Any,
    collate: Callable,
    label_key: str,
    *,
    id_column: str | None = None,
    trusted_column: str | None = None,
    num_samples: int | None = None,
) -> Samples:
    """Read what can be known without decoding a single image.

    Args:
        dataset: the training set as the user gave it: `datasets.Dataset`, any map-style torch data set, or a stream.
        loaded: the same as the training loader fetches from it, unused columns removed.
        collate: items -> batch, as the training loader will do it.
        label_key: name of the labels in a batch.
        id_column: column of unique ids.
        trusted_column: boolean column of trusted rows.
        num_samples: number of different ids of a stream.

    Raises:
        ValueError: for missing columns, duplicate ids, a stream without ids, labels that are no class ids.
    """
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return _stream_samples(id_column, trusted_column, num_samples)
    samples = Samples(num_examples=len(dataset))
    _read_marks(samples, dataset, id_column, trusted_column)
    _read_labels(samples, dataset, loaded, collate, label_key)
    return samples


def _stream_samples(id_column: str | None, trusted_column: str | None, num_samples: int | None) -> Samples:
    if id_column is None or num_samples is None:
        raise ValueError(
            f"train_dataset is a stream with sample_id_column={id_column!r} and sat_num_samples={num_samples!r}: "
            "label correction needs both, the column with each example's integer id (0 to sat_num_samples - 1) and "
            'the number of different ids. Or set label_correction="none".'
        )
    if trusted_column is not None:
        raise refuse("trusted_column", trusted_column, "a stream cannot be read ahead; give a data set with a length.")
    return Samples(num_examples=num_samples)


# ---- marks: ids, trusted rows ---------------------------------------------------------------------------------------


def _read_marks(samples: Samples, dataset: Any, id_column: str | None, trusted_column: str | None) -> None:
    names = {"sample_id_column": id_column, "trusted_column": trusted_column}
    columns = read_columns(dataset, {setting: name for setting, name in names.items() if name is not None})
    if id_column is not None:
        samples.ids = columns[id_column]
        samples.example_of = _ranks(samples.ids, id_column)
    if trusted_column is not None:
        samples.trusted = _by_example(_as_bool(columns[trusted_column], trusted_column), samples.example_of)


def read_columns(dataset: Any, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns of any map-style data set as arrays, without touching the others where the data set allows it.

    Args:
        dataset: a `datasets.Dataset`, or any data set whose items are mappings (those are all fetched).
        names: setting -> column; the setting is named where the column is missing.
    """
    if not names:
        return {}
    if isinstance(dataset, datasets.Dataset):
        for setting, name in names.items():
            _check_column(setting, name, dataset.column_names)
        table = dataset.select_columns(list(names.values())).with_format("arrow")[:]
        return {name: _to_array(table.column(name)) for name in names.values()}
    with preserved_rng():
        items = [_fields(dataset[i]) for i in range(len(dataset))]
    for setting, name in names.items():
        _check_column(setting, name, list(items[0]) if items else [])
    return {name: _from_items(items, name) for name in names.values()}


def _from_items(items: list[Mapping], name: str) -> np.ndarray:
    values = [_plain(item.get(name)) for item in items]
    if None in values:
        raise ValueError(_missing(values.index(None)))
    return np.asarray(values)


def _fields(item: Any) -> Mapping:
    """The columns of an item that is a mapping, or an object with attributes."""
    return item if isinstance(item, Mapping) else getattr(item, "__dict__", {})


def _missing(row: int) -> str:
    return (
        f"train_dataset has no label, id or mark in row {row}: fill the value in (-100 for no label) or drop the row."
    )


def _check_column(setting: str, name: str, present: list[str]) -> None:
    if name not in present:
        near = difflib.get_close_matches(name, present, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise refuse(setting, name, f"the training set has no such column, it has {present}.{hint}")


def _ranks(ids: np.ndarray, column: str) -> np.ndarray:
    _, first, inverse, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    if (counts > 1).any():
        repeated = ids[first[np.argmax(counts > 1)]]
        repeated = repeated.item() if hasattr(repeated, "item") else repeated
        positions = np.flatnonzero(ids == repeated)[:2].tolist()
        raise refuse(
            "sample_id_column",
            column,
            f"id {repeated!r} stands in rows {positions[0]} and {positions[1]}; make ids unique.",
        )
    return inverse.astype(np.int64)


def _as_bool(values: np.ndarray, column: str) -> np.ndarray:
    if values.dtype == object or not np.isin(np.unique(values), (0, 1)).all():
        raise refuse("trusted_column", column, "the column must hold true and false (or 1 and 0) alone.")
    return values.astype(bool)


def _by_example(values: np.ndarray, example_of: np.ndarray | None) -> np.ndarray:
    if example_of is None:
        return values
    ordered = np.empty_like(values)
    ordered[example_of] = values
    return ordered


# ---- labels ---------------------------------------------------------------------------------------------------------


def _read_labels(samples: Samples, dataset: Any, loaded: Any, collate: Callable, label_key: str) -> None:
    """Labels up front where they can be had cheaply and a look at a few batches says that they are the labels."""
    probed = _probe(loaded, collate, label_key)
    column = _label_column(dataset, label_key)
    if probed is None:
        return
    positions, seen = probed
    per_token = any(np.ndim(label) > 0 for label in seen)
    if column is not None and _same_labels([column[i] for i in positions], seen):
        labels = column
    elif per_token:
        labels = _collated_labels(loaded, collate, label_key)
    else:
        return
    # One-element lists, as some tables have them, are one label for each example all the same.
    per_token = per_token and any(np.size(label) != 1 for label in labels)
    _set_labels(samples, labels, per_token)
    _set_clean(samples, dataset, label_key, per_token)


def _set_labels(samples: Samples, labels: list | np.ndarray, per_token: bool) -> None:
    if not per_token:
        values = np.asarray([np.asarray(label).item() for label in labels])
        _check_integers(values)
        samples.labels = _by_example(values.astype(np.int64), samples.example_of)
        return
    counted = _in_example_order([_counted(label) for label in labels], samples.example_of)
    samples.offsets = np.concatenate([[0], np.cumsum([len(label) for label in counted])]).astype(np.int64)
    samples.labels = np.concatenate(counted).astype(np.int64) if counted else np.zeros(0, np.int64)


def _set_clean(samples: Samples, dataset: Any, label_key: str, per_token: bool) -> None:
    """Clean labels kept by `inject_label_noise`; only ever used to report, never to train."""
    if not isinstance(dataset, datasets.Dataset):
        return
    for name in dict.fromkeys((label_key, *LABEL_NAMES)):
        if f"clean_{name}" in dataset.column_names:
            clean = Samples(samples.num_examples, example_of=samples.example_of)
            _set_labels(clean, _raw_column(dataset, f"clean_{name}"), per_token)
            if len(clean.labels) == len(samples.labels):
                samples.clean = clean.labels
            return


def _in_example_order(values: list, example_of: np.ndarray | None) -> list:
    if example_of is None:
        return values
    ordered = [None] * len(values)
    for position, example in enumerate(example_of):
        ordered[example] = values[position]
    return ordered


def _probe(dataset: Any, collate: Callable, label_key: str, most: int = 8) -> tuple[list[int], list] | None:
    """Labels of a few examples as a batch shows them, or None where no batch can be had out of turn.

    A transform or collator may make labels of its own (shift them, read them from a file name); what it makes of a
    few examples tells whether the data set's column can be believed.
    """
    positions = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, num=min(most, len(dataset)))})
    together, alone = [], None
    with preserved_rng(), contextlib.suppress(Exception):
        items = [dataset[i] for i in positions]
        labels = [torch.as_tensor(collate([item])[label_key]) for item in items]
        if any(label.is_floating_point() for label in labels):
            return None
        together = alone = [label[0].tolist() for label in labels]
        # Where the collator does not pad, this fails; such data can be trained on one by one.
        together = torch.as_tensor(collate(items)[label_key]).tolist()
    if alone is None or len(together) != len(positions):
        return None
    if not _same_labels(alone, together):
        raise ValueError(
            f"the data collator makes labels {together} of examples whose labels are {alone} one by one: it "
            "changes the order of rows, or their labels at random. Label correction needs row i of a batch to be item "
            "i; sort in the sampler (train_sampling_strategy) instead."
        )
    return positions, together


def _label_column(dataset: Any, label_key: str) -> list | np.ndarray | None:
    names = tuple(dict.fromkeys((label_key, *LABEL_NAMES)))
    if isinstance(dataset, datasets.Dataset):
        found = [name for name in names if name in dataset.column_names]
        return _raw_column(dataset, found[0]) if found else None
    with preserved_rng():
        first = _fields(dataset[0])
        found = [name for name in names if name in first]
        if not found or _costly(first):
            return None
        return [_plain(_fields(dataset[i])[found[0]]) for i in range(len(dataset))]


def _raw_column(dataset: datasets.Dataset, name: str) -> list | np.ndarray:
    return _to_array(dataset.select_columns([name]).with_format("arrow")[:].column(name))


def _costly(item: Mapping) -> bool:
    """Whether fetching an item decodes an image or a sound: then the whole set is not read ahead."""
    return any(hasattr(value, "getbands") or getattr(value, "ndim", 0) >= 2 for value in item.values())


def _collated_labels(dataset: Any, collate: Callable, label_key: str) -> list:
    """One pass over the data: labels of tokens must be counted before training, wherever they are made."""
    with preserved_rng():
        return [_plain(collate([dataset[i]])[label_key][0]) for i in range(len(dataset))]


def _same_labels(column: list, seen: list) -> bool:
    return all(np.array_equal(_counted(a), _counted(b)) for a, b in zip(column, seen, strict=True))


def _counted(label: Any) -> np.ndarray:
    values = np.atleast_1d(np.asarray(label))
    return values[values != IGNORED]


def _check_integers(values: np.ndarray) -> None:
    if values.dtype.kind not in "iub":
        example = values.flat[0] if values.size else None
        raise ValueError(
            f"train_dataset has labels of type {values.dtype} (the first is {example!r}): label correction needs class "
            "ids, whole numbers from 0; encode them (`dataset.class_encode_column`), or set "
            'label_correction="none" for regression and multi-label tasks.'
        )


def given_labels(samples: Samples, loaded: Any, collate: Callable, label_key: str, known: np.ndarray) -> np.ndarray:
    """The given label of every state row, fetched where no batch has shown it (a stream's stay unknown)."""
    missing = np.flatnonzero(known == UNKNOWN)
    if samples.labels is not None or not len(missing) or isinstance(loaded, torch.utils.data.IterableDataset):
        return known
    position_of = np.arange(samples.num_examples)
    if samples.example_of is not None:
        position_of[samples.example_of] = np.arange(samples.num_examples)
    known = known.copy()
    with preserved_rng():
        for row in missing:
            known[row] = _plain(collate([loaded[int(position_of[row])]])[label_key][0])
    return known


# ---- small conversions ----------------------------------------------------------------------------------------------


def _to_array(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(_missing(row))
    if pa.types.is_nested(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = column.to_pylist()
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    return column.to_numpy()


def _plain(value: Any) -> Any:
    """A label or mark as a Python number or list, whatever holds it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value
