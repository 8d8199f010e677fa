"""Training data that is augmented as it is read, by (epoch, sample id)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .checks import is_whole, refuse
from .labels import IGNORED, entity_words, labels_follow
from .sequence import INSERTED
from .text import TextAugmenter


class AugmentedTexts(Dataset):
    """A map-style data set whose item `i` at epoch `e` is the text of row `i`, augmented by the key (e, i), tokenised.

    The epoch lies in shared memory: workers that are already running, persistent ones too, see what `set_epoch` sets.
    An item therefore depends on the seed, the epoch and its number alone, not on workers, order or where a run resumed.
    A batch is tokenised at once, as a `DataLoader` asks for it through `__getitems__`.

    Args:
        dataset: rows as mappings, such as a `datasets.Dataset`.
        augmenter: what changes the texts.
        text_column: the column of texts, or of lists of words if there is a `label_column`; or two columns, a pair.
        tokenize: turns lists of texts (one for each text column) into a mapping of lists; a tokenizer, or a function
            that calls one with truncation. Called with `is_split_into_words=True` for words; it must then return what a
            fast tokenizer does. Default: none; the item keeps its texts, augmented.
        label_column: the column of the words' labels. Then entities are left alone, labels follow the words, and the
            tokens get `labels`: the word's label on its first token, -100 on the others.
        label_names: names of the labels where they are numbers. Default: those of the data set's features.
        lock_entities: leave the words of entities alone; as in [`TextAugmenter.augment_labelled`].
        sample_ids: a whole number for each row, to be the id in the key. Default: the row's position.

    Raises:
        ValueError: a column is missing, or ids are not one whole number a row.

    Example:
        >>> rows = [{"text": "the quick brown fox", "label": 0}, {"text": "jumps over the dog", "label": 1}]
        >>> data = AugmentedTexts(rows, TextAugmenter("deletion:0.25"), tokenize=lambda texts: {"n": map(len, texts)})
        >>> data.set_epoch(3)
        >>> sorted(data[1])
        ['label', 'n']
    """

    def __init__(
        self,
        dataset: Any,
        augmenter: TextAugmenter,
        text_column: str | Items[str] = "text",
        tokenize: Callable[..., Mapping[str, Any]] | None = None,
        *,
        label_column: str | None = None,
        label_names: Items[str] | None = None,
        lock_entities: bool = True,
        sample_ids: Items[int] | None = None,
    ):
        self.dataset = dataset
        self.augmenter = augmenter
        self.text_columns = [text_column] if isinstance(text_column, str) else list(text_column)
        self.tokenize = tokenize
        self.label_column = label_column
        self.lock_entities = lock_entities
        self._check_columns()
        if label_names is None and label_column is not None:
            label_names = _names_of(dataset, label_column)
        self.label_names = label_names
        self.sample_ids = None if sample_ids is None else _checked_ids(sample_ids, len(dataset))
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._augments, self._tells_positions = True, False

    @property
    def epoch(self) -> int:
        """The epoch that items are of."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch here and in all workers; before the loader is iterated over, since workers read ahead."""
        if not is_whole(epoch) or epoch < 0:
            raise refuse("epoch", epoch, "give a whole number >= 0.")
        self._epoch.fill_(int(epoch))

    def unaugmented(self) -> AugmentedTexts:
        """The same data set with its texts as they are."""
        plain = copy.copy(self)
        plain._augments = False
        return plain

    def with_label_positions(self) -> AugmentedTexts:
        """The same data set, epoch shared, whose items of words say which of the sentence's labels theirs are.

        Label correction keeps what it learns with the sentence's own labels, whatever the view: "sat_label_positions"
        has for each label that is not -100 its place among those of the sentence, -1 where it has none there.
        """
        told = copy.copy(self)
        told._tells_positions = self.label_column is not None and self.tokenize is not None
        return told

    @property
    def column_names(self) -> list[str]:
        """The columns that items have besides what `tokenize` makes."""
        return [name for name in _columns_of(self.dataset) if name not in self._consumed()]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        positions = [int(position) for position in positions]
        positions = [position + len(self) if position < 0 else position for position in positions]
        fetch = getattr(self.dataset, "__getitems__", None)
        rows = fetch(positions) if callable(fetch) else [self.dataset[position] for position in positions]
        ids = positions if self.sample_ids is None else [int(self.sample_ids[position]) for position in positions]
        made = self._words(rows, ids) if self.label_column else self._texts(rows, ids)
        kept = [{name: value for name, value in row.items() if name not in self._consumed()} for row in rows]
        columns = {name: list(values) for name, values in made.items()}
        return [{**row, **{name: columns[name][at] for name in columns}} for at, row in enumerate(kept)]

    def _texts(self, rows: list[Mapping], ids: list[int]) -> Mapping[str, Any]:
        """Each text column has draws of its own: (epoch, id), then (epoch, id, 1)."""
        if not self._augments:
            texts = [[row[name] for row in rows] for name in self.text_columns]
            return dict(zip(self.text_columns, texts)) if self.tokenize is None else self.tokenize(*texts)
        epoch, texts = self.epoch, []
        for number, name in enumerate(self.text_columns):
            keys = [(epoch, sample) if number == 0 else (epoch, sample, number) for sample in ids]
            texts.append(self._named(name, [row[name] for row in rows], ids, keys))
        return dict(zip(self.text_columns, texts)) if self.tokenize is None else self.tokenize(*texts)

    def _named(self, name: str, texts: list, ids: list[int], keys: list[tuple[int, ...]]) -> list[str]:
        for text, sample in zip(texts, ids):
            if not isinstance(text, str):
                raise ValueError(
                    f"{name!r} of sample {sample} is {text!r}, not a string; filter such rows out before training."
                )
        return self.augmenter.augment(texts, keys)

    def _words(self, rows: list[Mapping], ids: list[int]) -> Mapping[str, Any]:
        views = [self._view(row, sample) for row, sample in zip(rows, ids)]
        words, labels, places = zip(*views) if views else ((), (), ())
        if self.tokenize is None:
            return {self.text_columns[0]: words, self.label_column: labels}
        tokens = self.tokenize(list(words), is_split_into_words=True)
        firsts = [first_tokens(tokens.word_ids(at)) for at in range(len(views))]
        made = {**tokens, "labels": [spread(first, row, IGNORED) for first, row in zip(firsts, labels)]}
        if self._tells_positions:
            made["sat_label_positions"] = [
                [place for place, label in zip(spread(first, row, None), kept) if label != IGNORED]
                for first, row, kept in zip(firsts, places, made["labels"])
            ]
        return made

    def _view(self, row: Mapping, sample: int) -> tuple[list[str], list, list[int]]:
        """Words, their labels, and the place of each label among the counted ones of the row."""
        words, labels = _listed(row[self.text_columns[0]]), _listed(row[self.label_column])
        if not self._augments:
            return words, labels, _places(labels, labels, range(len(words)))
        locked = entity_words(labels, self.label_names) if self.lock_entities else None
        result = self.augmenter.augment_words(words, (self.epoch, sample), locked)
        moved = labels_follow(labels, result.origins, self.label_names)
        return result.words, moved, _places(labels, moved, result.origins)

    def _consumed(self) -> set[str]:
        if self.tokenize is None:
            return set()
        return {*self.text_columns, *([self.label_column] if self.label_column else [])}

    def _check_columns(self) -> None:
        found = _columns_of(self.dataset)
        for name in [*self.text_columns, *([self.label_column] if self.label_column else [])]:
            if name not in found:
                raise refuse("text_column", name, f"the data set has the columns {found}.")
        if self.label_column and len(self.text_columns) != 1:
            raise refuse("text_column", self.text_columns, "with label_column there is one column, of words.")


def _columns_of(dataset: Any) -> list[str]:
    if len(dataset) == 0 or hasattr(dataset, "column_names"):
        return list(getattr(dataset, "column_names", []))
    return list(dataset[0])


def _names_of(dataset: Any, column: str) -> list[str] | None:
    feature = (getattr(dataset, "features", None) or {}).get(column)
    return getattr(getattr(feature, "feature", None), "names", None)


def _checked_ids(ids: Items[int], size: int) -> torch.Tensor:
    ids = np.asarray(ids[:] if hasattr(ids, "__getitem__") else list(ids))
    if ids.shape != (size,) or (size and ids.dtype.kind not in "iu"):
        raise refuse("sample_ids", f"{ids.dtype} {ids.shape}", f"give a whole number for each of the {size} rows.")
    return torch.from_numpy(ids.astype(np.int64)).share_memory_()


def _listed(values: Any) -> list:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _places(labels: list, moved: list, origins: Items[int]) -> list[int]:
    """For each new word the place of its label among the counted ones of the row; -1 for one that is new or another."""
    counted = np.cumsum([label != IGNORED for label in labels]) - 1
    kept = [origin != INSERTED and labels[origin] == label != IGNORED for origin, label in zip(origins, moved)]
    return [int(counted[origin]) if keeps else -1 for origin, keeps in zip(origins, kept)]


def first_tokens(word_ids: list[int | None]) -> list[int | None]:
    """The word of each token that is a word's first; None for the others."""
    before = [None, *word_ids[:-1]]
    return [None if at == last else at for at, last in zip(word_ids, before)]


def spread(firsts: list[int | None], values: Items, otherwise: Any) -> list:
    """Values of words on their first tokens."""
    return [otherwise if at is None else values[at] for at in firsts]
