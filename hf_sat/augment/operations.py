"""Operations that need no dictionary. Each changes a [`Sequence`] by draws of its own.

The rate of all: expected changed words = rate times the words that are not locked, rounded up or down at random so that
the expectation holds in short texts too, and never more than the operation can change.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

from .draws import Draws
from .english import FUNCTION_WORDS
from .sequence import Sequence
from .words import is_plain, is_word

TRIES = 8  # at a word that reads well where it is inserted


@dataclass
class Deletion:
    """Words go; at least one word of the text stays."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        free = text.free
        count = min(draws.count(self.rate * len(free)), len(free))
        if count == len(free) and not any(map(is_word, text.locked_words())):
            count -= 1
        if count > 0:
            for at in reversed(draws.sample(len(free), count)):
                text.delete(free[at])
            text.renew_free()


@dataclass
class Swap:
    """Neighbours change places, two words a swap; none swaps twice, and none passes a locked word."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        free = text.free
        count = draws.count(self.rate * len(free) / 2)
        if count <= 0:
            return
        if text.locked is None:
            # Places for `count` dominoes on a row, all equally likely.
            count = min(count, len(free) // 2)
            lefts = [at + shift for shift, at in enumerate(draws.sample(len(free) - count, count))]
        else:
            lefts = _pairs_between_locked(free, count, draws)
        words, origins = text.words, text.origins
        for at in lefts:
            words[at], words[at + 1] = words[at + 1], words[at]
            origins[at], origins[at + 1] = origins[at + 1], origins[at]


def _pairs_between_locked(free: Items[int], count: int, draws: Draws) -> list[int]:
    open_ = set(free)
    starts = [at for at in free if at + 1 in open_]
    lefts, taken = [], set()
    for at in draws.order(len(starts)):
        if len(lefts) == count:
            return lefts
        left = starts[at]
        if left not in taken and left + 1 not in taken:
            lefts.append(left)
            taken.update((left, left + 1))
    # Pairs at random leave single words between them, too many for a high rate; pairs one after the other do not.
    tight: list[int] = []
    for left in starts:
        if not tight or left > tight[-1] + 1:
            tight.append(left)
    return [tight[at] for at in draws.sample(len(tight), min(count, len(tight)))]


@dataclass
class Insertion:
    """New words come in, each before a random word and never inside a locked span.

    Args:
        rate: expected number of new words, as a share of the words.
        words: the words to insert; None for copies of the text's own unlocked words.
    """

    rate: float
    words: Items[str] | None = None

    def __call__(self, text: Sequence, draws: Draws) -> None:
        count = draws.count(self.rate * len(text.free))
        if count <= 0:
            return
        locked, size = text.locked, len(text.words)
        places = range(size)
        if locked is not None:
            places = [at for at in places if not (locked[at] and at and locked[at - 1])]
        chosen = sorted(places[draws.below(len(places))] for _ in range(count))
        for at, word in reversed([(at, self._word(text, at, draws)) for at in chosen]):
            text.insert(at, word)
        text.renew_free()

    def _word(self, text: Sequence, at: int, draws: Draws) -> str:
        if self.words is not None:
            return draws.choice(self.words)
        words, free = text.words, text.free
        for _ in range(TRIES):
            pick = free[draws.below(len(free))]
            # Beside itself a copy reads like a stutter; addresses and numbers are not said twice.
            if not at - 1 <= pick <= at and words[pick].isalpha():
                break
        word = words[pick]
        return word.lower() if pick == 0 and word.lower() in FUNCTION_WORDS and word != "I" else word


@dataclass
class Case:
    """Words are written in another case: lower, upper or with a capital. Numbers and scripts without case stay."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        count = draws.count(self.rate * len(text.free))
        words, free = text.words, text.free
        for at in draws.order(len(free)) if count else ():
            word = words[free[at]]
            if not is_plain(word):
                continue
            others = [other for other in (word.lower(), word.upper(), word.capitalize()) if other != word]
            if others:
                words[free[at]] = draws.choice(others)
                count -= 1
                if count <= 0:
                    return


@dataclass
class Shuffle:
    """Words change places at random, over any distance; every word chosen ends elsewhere."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        places = chosen_places(len(text.free), self.rate, draws)
        if places:
            places = [text.free[at] for at in places]
            text.move(places, in_a_cycle(places, draws))


def chosen_places(size: int, rate: float, draws: Draws) -> list[int]:
    """Positions that change places: none or at least two, in expectation `rate * size`."""
    expected = rate * size
    if size < 2 or expected <= 0:
        return []
    count = draws.count(expected) if expected >= 2 else 2 * draws.count(expected / 2)
    return draws.sample(size, min(count, size))


def in_a_cycle(places: list[int], draws: Draws) -> list[int]:
    """The places in another order, in which none is where it was (Sattolo's algorithm)."""
    sources = list(places)
    for last in range(len(sources) - 1, 0, -1):
        other = draws.below(last)
        sources[last], sources[other] = sources[other], sources[last]
    return sources


Operation = Callable[[Sequence, Draws], None]
