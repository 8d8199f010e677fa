"""Operations read from a setting."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .checks import checked_rate, refuse
from .foreign import Nlpaug, Own, is_nlpaug
from .homophones import find_cmudict, homophone_table
from .operations import Case, Deletion, Insertion, Operation, Shuffle, Swap
from .replacement import Replacement
from .sentences import SentenceShuffle
from .typos import LEAST_LETTERS, LetterError, Split, find_table, keyboard_table, ocr_table, spelling_table
from .wordnet import find_wordnet, synonym_table

FORM = 'give "name:rate,name:rate", such as "deletion:0.1,swap:0.1".'


class Named(NamedTuple):
    """An operation, and the start of the names of its streams of draws."""

    stream: bytes
    operation: Operation


def _synonym(rate: float, settings: dict) -> Operation:
    table = functools.partial(synonym_table, find_wordnet(settings["wordnet_dir"]))
    return Replacement(rate, table, fits=True)


def _homophone(rate: float, settings: dict) -> Operation:
    return Replacement(rate, functools.partial(homophone_table, find_cmudict(settings["cmudict_path"])))


def _letter_error(name: str, table: Callable, rate: float) -> Operation:
    find_table(name)
    return LetterError(rate, table, LEAST_LETTERS[name])


def _spelling(rate: float, settings: dict) -> Operation:
    find_table("spelling")
    return Replacement(rate, spelling_table)


_OPERATIONS: dict[str, Callable[[float, dict], Operation]] = {
    "deletion": lambda rate, settings: Deletion(rate),
    "swap": lambda rate, settings: Swap(rate),
    "insertion": lambda rate, settings: Insertion(rate, settings["insertion_words"]),
    "synonym": _synonym,
    "case": lambda rate, settings: Case(rate),
    "shuffle": lambda rate, settings: Shuffle(rate),
    "shuffle_sentences": lambda rate, settings: SentenceShuffle(rate),
    "homophone": _homophone,
    "keyboard": lambda rate, settings: _letter_error("keyboard", keyboard_table, rate),
    "ocr": lambda rate, settings: _letter_error("ocr", ocr_table, rate),
    "spelling": _spelling,
    "split": lambda rate, settings: Split(rate),
}
OPERATIONS = tuple(_OPERATIONS)


def read_operations(operations: Any, seed: int, settings: dict) -> list[Named]:
    """The operations of a setting, each with its stream.

    Streams are named by operation and by its number among those of the same name, so that another operation in the
    chain leaves the draws of the others alone.
    """
    parts = _from_text(operations) if isinstance(operations, str) else operations
    if not isinstance(parts, Iterable) or isinstance(parts, (bytes, dict)):
        raise refuse("operations", operations, f"{FORM[:-1]}, or a list of (name, rate) and of objects.")
    seen: dict[str, int] = {}
    chain = []
    for part in parts:
        name, operation = _made(part, settings)
        number = seen[name] = seen.get(name, -1) + 1
        chain.append(Named(b"%d:%b:%d:" % (seed, name.encode(), number), operation))
    if not chain:
        raise refuse("operations", operations, f"there is none; {FORM}")
    return chain


def _from_text(spec: str) -> list[tuple[str, float]]:
    parts = []
    for part in spec.split(","):
        name, colon, rate = (piece.strip() for piece in part.partition(":"))
        try:
            number = float(rate)
        except ValueError:
            number = None
        if not name or not colon or number is None:
            raise refuse("operations", spec, f"{part.strip()!r} is no name:rate; {FORM}")
        parts.append((name, number))
    return parts


def _made(part: Any, settings: dict) -> tuple[str, Operation]:
    if isinstance(part, (tuple, list)) and not is_nlpaug(part):
        if len(part) != 2 or not isinstance(part[0], str):
            raise refuse("operations", part, "give (name, rate), a function, or an nlpaug augmenter.")
        name, rate = part
        if name not in _OPERATIONS:
            near = difflib.get_close_matches(name, OPERATIONS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(OPERATIONS)}."
            raise refuse("operations", name, f"unknown; {hint}")
        return name, _OPERATIONS[name](checked_rate(name, rate), settings)
    if is_nlpaug(part):
        return f"nlpaug.{type(part).__name__}", Nlpaug(part)
    if callable(part):
        return f"own.{getattr(part, '__name__', type(part).__name__)}", Own(part)
    raise refuse("operations", part, "give (name, rate), a function, or an nlpaug augmenter.")
