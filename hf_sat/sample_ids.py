"""A stable number for every example, from the data set into the batch, past any collator.

The data set is wrapped after the column removal, the collator around the user's own; sampler, workers and
`accelerate` see an ordinary data set. Labels are compared with what is known of them on the way, on the CPU and in the
workers, so that the training step has nothing to check.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset, Sampler

from .batch import state_rows
from .samples import IGNORED, UNKNOWN, Samples

EXAMPLE_KEY = "sat_example"
# In an item that is one of several views of its example: which of the example's labels its own are, see `Numbered`.
LABEL_POSITIONS = "sat_label_positions"


class Numbered(NamedTuple):
    """An item of the user's data set and the number of its example.

    `positions` has for each of the item's counted labels its place among those of the example, -1 for one that the
    example does not have; None where they are the example's, in order.
    """

    example: int
    item: Any
    positions: list[int] | None = None


class NumberedDataset(Dataset):
    """A map-style data set whose items carry their example number.

    Args:
        dataset: the user's data set.
        example_of: example number of each position; None where they are equal.
    """

    def __init__(self, dataset: Any, example_of: np.ndarray | None):
        self.dataset = dataset
        self.example_of = example_of

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        if not isinstance(position, (int, np.integer)):
            return self.dataset[position]  # a column or a slice, for samplers that balance by it
        return self._number(position, self.dataset[position])

    def __getitems__(self, positions: list[int]) -> list[Numbered]:
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(positions) if callable(fetch) else [self.dataset[i] for i in positions]
        return [self._number(i, item) for i, item in zip(positions, items, strict=True)]

    def _number(self, position: int, item: Any) -> Numbered:
        example = int(position if self.example_of is None else self.example_of[position])
        if isinstance(item, dict) and LABEL_POSITIONS in item:
            item = dict(item)
            return Numbered(example, item, item.pop(LABEL_POSITIONS))
        return Numbered(example, item)

    def __getattr__(self, name: str) -> Any:
        # accelerate and samplers look for optional attributes (`set_epoch`, ...); pickling looks before __init__.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class StreamAround(IterableDataset):
    """A stream around the user's, which hands on what it does not know itself.

    Args:
        dataset: the user's stream.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return map(self._item, self.dataset)

    def _item(self, item: Any) -> Any:
        """What becomes of an item."""
        return item

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class NumberedStream(StreamAround):
    """A stream whose items carry the integer id found in `id_column`."""

    def __init__(self, dataset: Any, id_column: str, num_samples: int):
        super().__init__(dataset)
        self.id_column = id_column
        self.num_samples = num_samples

    def _item(self, item: Any) -> Numbered:
        return Numbered(self._id(item), item)

    def _id(self, item: Any) -> int:
        if not isinstance(item, Mapping) or self.id_column not in item:
            present = sorted(item) if isinstance(item, Mapping) else type(item).__name__
            raise ValueError(f"sample_id_column={self.id_column!r}: an item of the stream lacks it, it has {present}.")
        value = _whole_number(item[self.id_column])
        if value is None or not 0 <= value < self.num_samples:
            raise ValueError(
                f"sample_id_column={self.id_column!r}: id {item[self.id_column]!r} is not a whole number from 0 to "
                f"sat_num_samples - 1 = {self.num_samples - 1}; renumber the ids or raise sat_num_samples."
            )
        return value


def _whole_number(value: Any) -> int | None:
    try:
        return int(value) if int(value) == value else None
    except (TypeError, ValueError, OverflowError):
        return None


class NumberedCollator:
    """The user's collator, with the example numbers put beside what it makes.

    Args:
        collate: items -> batch, the user's.
        label_key: name of the labels in the batch.
        check: called with (example numbers, labels, label positions) of every batch; raises ValueError.
    """

    def __init__(self, collate: Callable, label_key: str, check: Callable[..., None]):
        self.collate = collate
        self.label_key = label_key
        self.check = check

    def __call__(self, items: list[Numbered]) -> Mapping:
        examples = np.fromiter((item.example for item in items), dtype=np.int64, count=len(items))
        batch = self.collate([item.item for item in items])
        labels = batch.get(self.label_key) if isinstance(batch, Mapping) else None
        if labels is None:
            found = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"the data collator returned no {self.label_key!r} but {found}: label correction needs the labels; "
                'name them in the data set, set label_names, or set label_correction="none".'
            )
        positions = _together([item.positions for item in items])
        self.check(examples, torch.as_tensor(labels), positions)
        batch[EXAMPLE_KEY] = torch.from_numpy(examples)
        if positions is not None:
            batch[LABEL_POSITIONS] = positions
        return batch


def _together(positions: list[list[int] | None]) -> Tensor | None:
    """(B, K), filled up with -1."""
    if positions[0] is None:
        return None
    return pad_sequence([torch.tensor([*row, -1]) for row in positions], batch_first=True, padding_value=-1)


class SeededByEpoch(Sampler):
    """A sampler whose order follows from seed and epoch alone, so that a resumed epoch is the one that was left.

    Upstream's length-grouping sampler draws from the global generator, which a resumed run finds in another state.

    Args:
        sampler: has a `generator`.
        seed: of the run.
    """

    def __init__(self, sampler: Any, seed: int):
        self.sampler = sampler
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


def set_epoch_of_samplers(loader: Any, epoch: int) -> None:
    """Tell a loader's samplers their epoch, however deep they are wrapped."""
    sampler = getattr(loader, "batch_sampler", None)
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)


class Unnumbered:
    """A training loader whose batches come without the example numbers."""

    def __init__(self, loader: Any):
        self.loader = loader

    def __iter__(self) -> Iterator[Mapping]:
        for batch in self.loader:
            batch.pop(EXAMPLE_KEY)
            batch.pop(LABEL_POSITIONS, None)
            yield batch

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)


class LabelCheck:
    """Compares the labels of a batch with the classes and with what was seen before.

    What is learned is kept in shared memory, so that every worker of this process knows it.

    Args:
        samples: what is known of the examples.
        num_classes: number of classes, where the model tells it.
        refuse_changes: refuse labels that differ from the known ones; otherwise take the new ones.
    """

    def __init__(self, samples: Samples, num_classes: int | None, refuse_changes: bool):
        self.samples = samples
        self._num_classes = torch.tensor(num_classes or 0).share_memory_()
        self.refuse_changes = refuse_changes
        self.known = torch.full((samples.num_rows,), UNKNOWN, dtype=torch.int32).share_memory_()
        if samples.labels is not None:
            self.check_classes(np.arange(samples.num_rows), samples.labels)
            self.known.copy_(torch.from_numpy(samples.labels))

    @property
    def num_classes(self) -> int | None:
        return int(self._num_classes) or None

    def learn_classes(self, num_classes: int) -> None:
        """Take the number of classes from the first logits, where the model did not tell it before."""
        if self.num_classes is None:
            self._num_classes.fill_(num_classes)
            if self.samples.labels is not None:
                self.check_classes(np.arange(self.samples.num_rows), self.samples.labels)

    def __call__(self, examples: np.ndarray, labels: Tensor, positions: Tensor | None = None) -> None:
        if labels.is_floating_point():
            raise ValueError(
                f"the data collator made labels of type {labels.dtype} and shape {tuple(labels.shape)}, such as "
                f'{labels.flatten()[:1].tolist()}: label correction needs class ids; set label_correction="none" for '
                "regression, multi-label or mixed labels."
            )
        if len(labels) != len(examples):
            raise ValueError(
                f"the data collator made {len(labels)} rows of {len(examples)} examples: label correction needs a "
                "row for each; filter the data set before training instead."
            )
        if positions is None:
            rows, values = self._flatten(examples, labels.cpu().numpy())
        else:
            rows, values = self._flatten_view(examples, labels.cpu(), positions)
        self.check_classes(rows, values)
        self._check_changes(rows, values)
        self.known[torch.from_numpy(rows)] = torch.from_numpy(values.astype(np.int32))

    def _flatten(self, examples: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if labels.ndim == 1 or (self.samples.offsets is None and labels.shape[1] == 1):
            return examples, labels.flatten()
        offsets = self.samples.offsets
        if offsets is None:
            raise ValueError(
                f"the data collator made labels of shape {labels.shape}, and the labels of tokens of train_dataset "
                "could not be counted before training: give a data set with a length, whose examples the data collator "
                'takes one by one, or set label_correction="none".'
            )
        counted = [label[label != IGNORED] for label in labels]
        for example, label in zip(examples, counted, strict=True):
            expected = int(offsets[example + 1] - offsets[example])
            if len(label) != expected:
                raise ValueError(
                    f"example {self.samples.id_of(example)!r} has {len(label)} labels in this batch and had {expected} "
                    "before training: tokenise and truncate before training, alike in every epoch."
                )
        rows = [np.arange(offsets[example], offsets[example + 1]) for example in examples]
        return np.concatenate(rows), np.concatenate(counted)

    def _flatten_view(self, examples: np.ndarray, labels: Tensor, positions: Tensor) -> tuple[np.ndarray, np.ndarray]:
        offsets, spare = torch.from_numpy(self.samples.offsets), self.samples.num_rows
        rows = state_rows(torch.from_numpy(examples), labels, offsets, spare, positions)
        kept = rows != spare
        return rows[kept].numpy(), labels.flatten()[kept].numpy()

    def check_classes(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Refuse labels that are no class, naming the first and its row."""
        if self.num_classes is None:
            wrong = (labels < 0) & (labels != IGNORED)
        else:
            wrong = ((labels < 0) | (labels >= self.num_classes)) & (labels != IGNORED)
        if wrong.any():
            at = int(np.argmax(wrong))
            classes = "0 or more" if self.num_classes is None else f"0 to {self.num_classes - 1}"
            raise ValueError(
                f"label {int(labels[at])} of {self.samples.name_row(int(rows[at]))} is outside the model's classes "
                f"({classes}): correct the label, set the model's num_labels, or use {IGNORED} for rows without one."
            )

    def _check_changes(self, rows: np.ndarray, labels: np.ndarray) -> None:
        known = self.known[torch.from_numpy(rows)].numpy()
        changed = (known != UNKNOWN) & (known != labels)
        if self.refuse_changes and changed.any():
            at = int(np.argmax(changed))
            raise ValueError(
                f"the label of {self.samples.name_row(int(rows[at]))} was {int(known[at])} and is now "
                f'{int(labels[at])}: sat_on_label_change="refuse"; set it to "reset_rows" if labels were edited on '
                "purpose, or keep the collator from changing them."
            )
