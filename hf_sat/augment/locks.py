"""Words that augmentation must not touch: by preset or pattern, by span of characters, by flag."""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

from .checks import is_whole, refuse
from .english import NEGATIONS
from .words import PLACEHOLDER, URL

Spans = list[tuple[int, int]]

PRESETS = {
    "urls": URL,
    "emails": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "placeholders": PLACEHOLDER,
    "numbers": r"(?<![^\W_])[$€£#]?\d+(?:[.,:/\-]\d+)*(?:%|st|nd|rd|th)?(?![^\W_])",
    "mentions": r"(?<!\w)[@#]\w+",
    "negations": r"(?i:(?<![\w-])(?:" + "|".join(sorted(NEGATIONS)) + r")(?![\w-])|\w*n['\u2019]t(?!\w))",
}


@functools.cache
def lock_pattern(locked: tuple[str, ...]) -> re.Pattern | None:
    """One pattern of presets and regular expressions; None where there are none.

    Raises:
        ValueError: one is no preset and no regular expression, or matches the empty text.
    """
    parts = []
    for entry in locked:
        if not isinstance(entry, str) or not entry:
            raise refuse("locked", entry, f"give presets ({', '.join(PRESETS)}) or regular expressions.")
        try:
            pattern = re.compile(PRESETS.get(entry, entry))
        except re.error as error:
            raise refuse("locked", entry, f"no preset ({', '.join(PRESETS)}) and no pattern: {error}.") from None
        if pattern.search(""):
            raise refuse("locked", entry, "the pattern matches the empty text; make it match what it locks.")
        parts.append(pattern.pattern)
    return re.compile("|".join(f"(?:{part})" for part in parts)) if parts else None


def found_spans(pattern: re.Pattern | None, text: str) -> Spans:
    return [match.span() for match in pattern.finditer(text) if match.group()] if pattern else []


def given_spans(locked: Any, text: str) -> Spans:
    """Spans as the caller gave them.

    Raises:
        ValueError: one is no (start, end) within the text.
    """
    spans = []
    for span in locked if locked is not None else ():
        start, end = span if isinstance(span, Iterable) and len(span) == 2 else (None, None)
        if not (is_whole(start) and is_whole(end) and 0 <= start <= end <= len(text)):
            raise refuse("locked", span, f"give (start, end) in characters, within a text of {len(text)}.")
        if start < end:
            spans.append((int(start), int(end)))
    return spans


def as_units(words: list[str], gaps: list[str], spans: Spans) -> tuple[list[str], list[str], list[bool]]:
    """Words and gaps with each span, widened to whole words, as one locked word.

    What stands between the words of a span is then part of the unit: it comes back the same whatever happens around it.
    """
    ends, at = [], 0
    for gap, word in zip(gaps, words):
        ends.append((at + len(gap), at + len(gap) + len(word)))
        at = ends[-1][1]
    text = "".join(piece for pair in zip(gaps, [*words, ""]) for piece in pair)
    spans = _widened(sorted(spans), ends)
    pieces = sorted([*((start, end, True) for start, end in spans), *_outside(ends, spans)])
    starts_after = [0, *(end for _, end, _ in pieces)]
    starts = [*(start for start, _, _ in pieces), len(text)]
    gaps = [text[left:right] for left, right in zip(starts_after, starts)]
    return [text[start:end] for start, end, _ in pieces], gaps, [locked for *_, locked in pieces]


def _widened(spans: Spans, words: Spans) -> Spans:
    """Spans that end where words end, and do not overlap."""
    starts, ends = [start for start, _ in words], [end for _, end in words]
    wide: Spans = []
    for start, end in spans:
        first, behind = bisect_right(ends, start), bisect_left(starts, end)
        if first < behind:
            start, end = min(start, starts[first]), max(end, ends[behind - 1])
        if wide and start < wide[-1][1]:
            start, end = wide[-1][0], max(end, wide.pop()[1])
        wide.append((start, end))
    return wide


def _outside(words: Spans, spans: Spans) -> list[tuple[int, int, bool]]:
    inside = iter(spans)
    span, kept = next(inside, None), []
    for start, end in words:
        while span and span[1] <= start:
            span = next(inside, None)
        if not (span and span[0] < end):
            kept.append((start, end, False))
    return kept
