"""The words of one text while operations change them, with where each came from and what stands between them."""

from __future__ import annotations

import re
from collections.abc import Sequence as Items

from .words import needs_space

INSERTED = -1

_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "“": "”", "\u2018": "\u2019", "«": "»", "„": "“"}
_SEPARATORS, _CLOSING = ",;:", tuple(".,;:!?…)]}”\u2019»%")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”\u2019)\]»]*(?=\s)|[。\uff01\uff1f]+[」』”\uff09]*")
_END_TOKENS = {".", "!", "?", "...", "…", "。", "\uff01", "\uff1f"}


class Sequence:
    """Words that operations change in place.

    Args:
        words: the words.
        gaps: what stands before, between and after the words, one more than they are; None for a bare list of words.
        locked: which words must stay, one flag a word; None for none.

    `origins` has the index of the original word that each word came from, -1 for inserted ones; `free` the positions
    that are not locked.
    """

    __slots__ = ("free", "gaps", "locked", "origins", "words")

    def __init__(self, words: list[str], gaps: list[str] | None = None, locked: list[bool] | None = None):
        self.words, self.gaps, self.locked = words, gaps, locked
        self.origins = list(range(len(words)))
        self.renew_free()

    def renew_free(self) -> None:
        """Note again which positions are not locked; after words came or went."""
        self.free: Items[int]
        if self.locked is None:
            self.free = range(len(self.words))
        else:
            self.free = [i for i, locked in enumerate(self.locked) if not locked]

    def locked_words(self, start: int = 0, end: int | None = None) -> list[str]:
        """The locked words, of which some may be punctuation; of all words, or from `start` to before `end`."""
        if self.locked is None:
            return []
        return [word for word, locked in zip(self.words[start:end], self.locked[start:end]) if locked]

    def text(self) -> str:
        """The text; words of a bare list are joined by spaces."""
        if self.gaps is None:
            return " ".join(self.words)
        pieces = [""] * (2 * len(self.words) + 1)
        pieces[::2], pieces[1::2] = self.gaps, self.words
        return "".join(pieces)

    def delete(self, at: int) -> None:
        """Take a word out, with one of the white spaces and the emptied brackets beside it."""
        if self.gaps is not None:
            before = self.gaps.pop(at)
            if before != " " or self.gaps[at] != " ":  # mostly it is one space of two
                self.gaps[at] = _closed_up(before, self.gaps[at], at == 0, at == len(self.words) - 1)
        del self.words[at], self.origins[at]
        if self.locked is not None:
            del self.locked[at]

    def insert(self, at: int, word: str) -> None:
        """Put a new word before the one at `at`, or at the end, apart from it as the script asks."""
        if self.gaps is not None and at < len(self.words):
            self.gaps.insert(at + 1, " " if needs_space(word, self.words[at]) else "")
        elif self.gaps is not None:
            self.gaps.insert(at, " " if at else "")
        self.words.insert(at, word)
        self.origins.insert(at, INSERTED)
        if self.locked is not None:
            self.locked.insert(at, False)

    def split(self, at: int, parts: list[str]) -> None:
        """Put words in the place of one; all come from it."""
        more = len(parts) - 1
        if self.gaps is not None:
            self.gaps[at + 1 : at + 1] = [" "] * more
        self.words[at : at + 1] = parts
        self.origins[at + 1 : at + 1] = [self.origins[at]] * more
        if self.locked is not None:
            self.locked[at + 1 : at + 1] = [False] * more

    def move(self, places: list[int], sources: list[int]) -> None:
        """Put the words at `sources` to `places`; the gaps stay."""
        moved = [(self.words[source], self.origins[source]) for source in sources]
        for place, (word, origin) in zip(places, moved):
            self.words[place], self.origins[place] = word, origin

    def take(self, words: list[str], sources: list[int]) -> None:
        """Become other words.

        Args:
            words: the new words.
            sources: present position of what each came from, or -1; where several come from one, they are its parts.
        """
        kept = [source for source in sources if source != INSERTED]
        if len(kept) == len(words) == len(self.words):
            self.origins = [self.origins[source] for source in sources]
            self.words = words
        elif kept == sorted(kept):
            self._edit(words, sources)
        else:
            self.origins = [INSERTED if source == INSERTED else self.origins[source] for source in sources]
            self.gaps = self.gaps and [self.gaps[0], *[" "] * (len(words) - 1), self.gaps[-1]]
            self.words, self.locked = words, self.locked and [False] * len(words)
        self.renew_free()

    def _edit(self, words: list[str], sources: list[int]) -> None:
        parts: dict[int, list[str]] = {}
        for word, source in zip(words, sources):
            parts.setdefault(source, []).append(word)
        for at in reversed(range(len(self.words))):
            self.split(at, parts[at]) if at in parts else self.delete(at)
        for at, source in enumerate(sources):
            if source == INSERTED:
                self.insert(at, words[at])

    def sentences(self) -> list[tuple[int, int]]:
        """Start and end of each sentence, as positions of words."""
        ends = [i + 1 for i in range(len(self.words) - 1) if self._ends_sentence(i)]
        return list(zip([0, *ends], [*ends, len(self.words)])) if self.words else []

    def _ends_sentence(self, at: int) -> bool:
        if self.gaps is None:
            return self.words[at] in _END_TOKENS and self.words[at + 1] not in _END_TOKENS
        word, gap, after = self.words[at], self.gaps[at + 1], self.words[at + 1]
        initial = gap[:1] == "." and len(word) == 1 and word.isupper() and word != "I"
        pause = ("..." in gap or "…" in gap) and after[0].islower()
        return not initial and not pause and _SENTENCE_END.search(gap) is not None


def cut_gap(gap: str) -> tuple[str, str, str]:
    """A gap between two sentences: what ends the first one, the space, what opens the second."""
    end = _SENTENCE_END.search(gap).end()
    opening = gap[end:].lstrip()
    return gap[:end], gap[end : len(gap) - len(opening)], opening


def _closed_up(before: str, after: str, first: bool, last: bool) -> str:
    """The gap that two gaps leave when the word between them goes."""
    if before and after and _PAIRS.get(before[-1]) == after[0]:
        before, after = before[:-1], after[1:]
        return _closed_up(before, after, first, last) if before or after else ""
    if first and not before.strip():
        return before + after.lstrip().lstrip(".,;:!?…").lstrip()
    if last and not after.strip():
        return before.rstrip() + after
    if after[:1].isspace():
        return _one_space(before, after)
    left = before.rstrip()
    if left[-1:] in ".!?…" and left and after[:1] in ".,;:":
        return before + after[1:].lstrip()  # "He left. Dr. Who came" without "Dr"
    if left[-1:] in _SEPARATORS and left and after.startswith(_CLOSING):
        return left[:-1].rstrip() + after
    return left + after if after.startswith(_CLOSING) else before + after


def _one_space(before: str, after: str) -> str:
    """One of the two white spaces around the gone word; the one with a line break where only one has it."""
    if not before:
        return after
    rest = after.lstrip()
    if not before[-1].isspace():
        return before + rest if before[-1] in _PAIRS else before + after
    space, left = after[: len(after) - len(rest)], before.rstrip()
    if left and left[-1] in _SEPARATORS and rest.startswith((*_SEPARATORS, ".", "!", "?")):
        left = left[:-1].rstrip()
    kept = space if "\n" in space and "\n" not in before[len(before.rstrip()) :] else before[len(before.rstrip()) :]
    return left + kept + rest
