"""Errors of typing, reading and writing, from nlpaug's tables: which keys are neighbours, which letters look alike, how
words are misspelt.

nlpaug's tables are right; what it does with them to single words is not, so that is done here. Its augmenters draw from
the global random states; shift a neighbouring key to upper case in the midst of a word; change up to a third of a
word's letters, at least two by OCR; misspell "luck" as "like" and, by reading its list backwards, correct words as
errors; and order candidates by the hash seed of the process. Importing nlpaug takes seconds, its files milliseconds.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

from .draws import Draws
from .sequence import Sequence
from .words import is_plain

INSTALL = 'the operation {name!r} reads tables of nlpaug, which is not installed: `pip install "hf_sat[augment]"`.'
FILES = {
    "keyboard": "char/keyboard/en.json",
    "ocr": "char/ocr/en.json",
    "spelling": "word/spelling/spelling_en.txt",
}
LEAST_LETTERS = {"keyboard": 3, "ocr": 2, "split": 4}


def find_table(name: str) -> Path:
    """The file of the installed nlpaug that an operation reads.

    Raises:
        ImportError: it is not installed, or lacks the file.
    """
    package = importlib.util.find_spec("nlpaug")
    path = Path(package.origin).parent / "res" / FILES[name] if package is not None and package.origin else None
    if path is None or not path.is_file():
        raise ImportError(INSTALL.format(name=name))
    return path


@functools.cache
def keyboard_table() -> dict[str, tuple[str, ...]]:
    """Neighbouring letters of each letter, lower case, on the English keyboard."""
    keys = json.loads(find_table("keyboard").read_text("utf-8"))
    table = {key: tuple(sorted({n for n in near if n.isalpha() and n != key})) for key, near in keys.items()}
    return {key: near for key, near in table.items() if key.isalpha() and near}


@functools.cache
def ocr_table() -> dict[str, tuple[str, ...]]:
    """Signs that look like each sign; both ways, as nlpaug reads it, but for r and k, which differ in any print."""
    pairs: dict[str, set[str]] = defaultdict(set)
    for sign, others in json.loads(find_table("ocr").read_text("utf-8")).items():
        for other in others if sign not in "rk" else ():
            pairs[sign].add(other)
            pairs[other].add(sign)
    return {sign: tuple(sorted(others)) for sign, others in pairs.items()}


@functools.cache
def spelling_table() -> dict[str, tuple[str, ...]]:
    """Words and their misspellings that are slips of the pen and no words themselves."""
    lines = find_table("spelling").read_text("utf-8").splitlines()
    entries = [line.split(" ") for line in lines]
    right = {entry[0] for entry in entries}
    table: dict[str, set[str]] = defaultdict(set)
    for word, *slips in entries:
        if word.isalpha() and word.islower() and len(word) > 1:
            table[word].update(slip for slip in slips if slip not in right and _is_slip(word, slip))
    return {word: tuple(sorted(slips)) for word, slips in table.items() if slips}


def _is_slip(word: str, slip: str) -> bool:
    if not (
        slip.isalpha() and slip.islower() and len(slip) > 1 and slip[0] == word[0] and abs(len(slip) - len(word)) <= 2
    ):
        return False
    letters = Counter(word)
    letters.subtract(slip)
    return sum(map(abs, letters.values())) <= (2 if len(word) > 4 else 1)


@dataclass
class LetterError:
    """One letter of a word is exchanged by a table, its case kept where it has one.

    Args:
        rate: expected share of words changed.
        load: makes the table, from signs to signs.
        least: words of fewer letters stay.
    """

    rate: float
    load: Callable[[], dict[str, tuple[str, ...]]]
    least: int

    def __call__(self, text: Sequence, draws: Draws) -> None:
        table = self.load()
        _change_some(text, draws, self.rate, lambda word: self._slip(word, table, draws))

    def _slip(self, word: str, table: dict, draws: Draws) -> str | None:
        places = [at for at, sign in enumerate(word) if sign in table or sign.lower() in table]
        if len(word) < self.least or not places or not is_plain(word):
            return None
        at = draws.choice(places)
        sign = word[at]
        new = draws.choice(table[sign] if sign in table else table[sign.lower()])
        return word[:at] + (new if sign in table else new.upper()) + word[at + 1 :]


@dataclass
class Split:
    """A word of four letters or more is torn in two."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        torn: dict[int, list[str]] = {}
        _change_some(text, draws, self.rate, lambda word: self._torn(word, draws), torn)
        for at in sorted(torn, reverse=True):
            text.split(at, torn[at])
        text.renew_free()

    def _torn(self, word: str, draws: Draws) -> list[str] | None:
        if len(word) < LEAST_LETTERS["split"] or not word.isalpha():
            return None
        at = 1 + draws.below(len(word) - 1)
        return [word[:at], word[at:]]


def _change_some(text: Sequence, draws: Draws, rate: float, change: Callable, kept: dict | None = None) -> None:
    """Change words in random order until enough are; those that `change` gives None for do not count."""
    free: Items[int] = text.free
    left = draws.count(rate * len(free))
    for turn in draws.order(len(free)) if left else ():
        at = free[turn]
        changed = change(text.words[at])
        if changed is not None:
            if kept is None:
                text.words[at] = changed
            else:
                kept[at] = changed
            left -= 1
            if not left:
                return
