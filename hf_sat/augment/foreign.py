"""Operations of the user's own: functions, and nlpaug's augmenters, which become deterministic and list-safe.

nlpaug draws from the global states of `random`, numpy and, with models, torch: they are set by key for the call and put
back after it. Candidates that it holds in sets, whose order is that of the process's hash seed, are sorted before one
is drawn. It sees one text at a time, since a `Flow` gives one for a whole list, and never an empty one.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import refuse
from .draws import Draws
from .sequence import INSERTED, Sequence
from .words import split_words

# What nlpaug's augmenters that look at single words are called; others read the whole text, with its punctuation.
_WORD_BY_WORD = ("CharAugmenter", "RandomWordAug", "SpellingAug", "SplitAug", "ReservedAug", "TfIdfAug", "WordEmbsAug")


@dataclass
class Own:
    """A function of the user: `(words, rng)` to new words, or to new words and the index each came from.

    Args:
        function: gets a list of words and a `random.Random` of this text; pickled with the augmenter.

    Locked words are not shown to it: it gets each stretch between them on its own.
    """

    function: Callable

    def __call__(self, text: Sequence, draws: Draws) -> None:
        rng = draws.rng()
        _on_stretches(text, lambda words: self._apply(words, rng))

    def _apply(self, words: list[str], rng: random.Random) -> tuple[list[str], list[int]]:
        result = self.function(list(words), rng)
        new, sources = result if isinstance(result, tuple) else (result, None)
        if not isinstance(new, list) or not all(isinstance(word, str) for word in new):
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise refuse("operations", name, "it must return a list of words, or a tuple of words and origins.")
        return new, aligned(words, new) if sources is None else [int(source) for source in sources]


@dataclass
class Nlpaug:
    """An nlpaug `Augmenter` or `Flow`. Where its words came from is found by alignment, and so approximate.

    Args:
        augmenter: the user's; its own settings say how much it changes.
    """

    augmenter: Any

    def __call__(self, text: Sequence, draws: Draws) -> None:
        if not text.words:
            return
        rng = draws.rng()
        by_word = _is_word_by_word(self.augmenter)
        if by_word or text.gaps is None or text.locked is not None:
            _on_stretches(text, lambda words: self._words(words, rng, by_word))
            return
        words, gaps = split_words(self._augmented(text.text(), rng, False))
        if words and (words, gaps) != (text.words, text.gaps):
            sources = aligned(text.words, words)
            text.take(words, sources)
            text.gaps = gaps

    def _words(self, words: list[str], rng: random.Random, by_word: bool) -> tuple[list[str], list[int]]:
        result = self._augmented(" ".join(words), rng, by_word)
        new = (result.split(" ") if by_word else split_words(result)[0]) if result.strip() else []
        new = [word for word in new if word]
        return (new, aligned(words, new)) if new else (words, list(range(len(words))))

    def _augmented(self, text: str, rng: random.Random, by_word: bool) -> str:
        with _global_states(rng.getrandbits(32)):
            results = _prepared(self.augmenter, rng, by_word).augment(text)
        result = results[0] if isinstance(results, list) and results else results
        return result if isinstance(result, str) else text


def is_nlpaug(operation: Any) -> bool:
    """Whether something is of nlpaug, without importing it."""
    return any(kind.__module__.partition(".")[0] == "nlpaug" for kind in type(operation).__mro__)


def aligned(before: list[str], after: list[str]) -> list[int]:
    """For each word after, the position of the word it came from, or -1.

    Example:
        >>> aligned(["a", "big", "dog"], ["a", "bug", "dog", "barks"])
        [0, 1, 2, -1]
    """
    sources = [INSERTED] * len(after)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind in ("equal", "replace"):
            # Where more come than were, the rest are parts of the last.
            for step in range(new_end - new_start):
                sources[new_start + step] = min(start + step, end - 1)
    return sources


def _on_stretches(text: Sequence, change: Callable[[list[str]], tuple[list[str], list[int]]]) -> None:
    """Change what stands between locked words, stretch by stretch."""
    words: list[str] = []
    sources: list[int] = []
    at = 0
    while at < len(text.words):
        if text.locked is not None and text.locked[at]:
            words.append(text.words[at])
            sources.append(at)
            at += 1
            continue
        end = at
        while end < len(text.words) and not (text.locked is not None and text.locked[end]):
            end += 1
        new, places = change(text.words[at:end])
        words += new
        sources += [INSERTED if place < 0 else at + place for place in places]
        at = end
    if words:
        text.take(words, sources)


def _is_word_by_word(augmenter: Any) -> bool:
    return any(kind.__name__ in _WORD_BY_WORD for kind in type(augmenter).__mro__)


def _prepared(augmenter: Any, rng: random.Random, by_word: bool) -> Any:
    """A shallow copy that draws in an order of its own and, if it sees bare words, leaves them whole."""
    prepared = copy.copy(augmenter)
    if isinstance(augmenter, list):  # a Flow is a list of augmenters
        prepared[:] = [_prepared(inner, rng, False) for inner in augmenter]
        return prepared
    prepared.sample = lambda values, count=None: _sampled(values, count, rng)
    if by_word:
        # nlpaug's own takes "don't" apart and puts it together as "don ' t".
        prepared.tokenizer, prepared.reverse_tokenizer = str.split, " ".join
    return prepared


def _sampled(values: Any, count: int | None, rng: random.Random) -> Any:
    if isinstance(values, int):
        return rng.randrange(1, values - 1) if values > 2 else 1
    values = list(values)
    return rng.sample(sorted(values) if all(isinstance(value, str) for value in values) else values, count)


@contextlib.contextmanager
def _global_states(seed: int) -> Iterator[None]:
    """The global random states, set by `seed`; put back at the end."""
    torch = sys.modules.get("torch")
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        if torch:
            torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed would wake CUDA in workers
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch:
            torch.set_rng_state(cpu)
