"""Synonyms from WordNet's own files: https://wordnet.princeton.edu/documentation/wndb5wn has their format.

Without a tagger and without knowing the sense meant, a synonym is safe where the word has one sense that is nearly
always meant. How often a sense is meant is counted in `cntlist.rev`. So "it" does not become "information technology".
"""

from __future__ import annotations

import functools
import os
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .checks import refuse
from .english import FUNCTION_WORDS, NAMES, UNWANTED
from .inflection import inflected, irregular_forms

POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
FILES = ("cntlist.rev", *(f"{kind}.{pos}" for kind in ("index", "data") for pos in ("noun", "verb", "adj", "adv")))
# A word is replaced where it was counted so often, with at least these shares of its counts on one part of speech and
# on one sense; a synonym must have been counted in that sense, for at least that share of all its counts.
LEAST_COUNT, POS_SHARE, SENSE_SHARE, SYNONYM_SHARE = 2, 0.75, 0.4, 0.2

Counts = dict[tuple[str, str], dict[int, int]]
INSTALL = (
    "install WordNet's files (Debian and Ubuntu: `apt install wordnet-base`; anywhere: `pip install nltk` and "
    "`python -m nltk.downloader wordnet`), or set wordnet_dir to the folder with index.noun, data.noun and cntlist.rev."
)


def find_wordnet(wordnet_dir: str | os.PathLike | None = None) -> Path:
    """The folder of WordNet's files, or the archive in which NLTK leaves it.

    Args:
        wordnet_dir: the folder; default: `$WNSEARCHDIR`, `$WNHOME/dict`, Debian's place, then NLTK's.

    Raises:
        ValueError: there are none; says what to install.
    """
    places = [Path(wordnet_dir)] if wordnet_dir is not None else list(_usual_places())
    for place in places:
        if place.exists() and all((_opened(place) / name).is_file() for name in FILES):
            return place.resolve()
    raise refuse("wordnet_dir", None if wordnet_dir is None else str(wordnet_dir), f"synonyms need it: {INSTALL}")


def _opened(place: Path) -> Path | zipfile.Path:
    return zipfile.Path(place, f"{place.stem}/") if place.suffix == ".zip" else place


def _usual_places() -> Iterator[Path]:
    if "WNSEARCHDIR" in os.environ:
        yield Path(os.environ["WNSEARCHDIR"])
    if "WNHOME" in os.environ:
        yield Path(os.environ["WNHOME"]) / "dict"
    yield Path("/usr/share/wordnet")
    roots = [*filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)), Path.home() / "nltk_data"]
    bases = [base + part for base in (sys.prefix, "/usr", "/usr/local") for part in ("", "/share", "/lib")]
    for root in [*roots, *(f"{base}/nltk_data" for base in bases)]:
        yield from (Path(root) / "corpora" / name for name in ("wordnet", "wordnet.zip"))


@functools.lru_cache(maxsize=4)
def synonym_table(folder: Path) -> dict[str, tuple[str, ...]]:
    """Words, inflected ones too, and what can stand for them, in lower case; read once a process, shared by fork."""
    return _Lexicon(folder).table()


class _Lexicon:
    """What the table is made from; gone once it is made.

    Args:
        folder: of WordNet's files.
    """

    def __init__(self, folder: Path):
        folder = self.folder = _opened(folder)
        self.counts = _read_counts(folder)
        self.totals: dict[str, int] = defaultdict(int)
        for (lemma, _), senses in self.counts.items():
            self.totals[lemma] += sum(senses.values())
        self.offsets = {pos: _read_offsets(folder, pos) for pos in ("noun", "verb", "adj", "adv")}
        self.irregular = {pos: irregular_forms(folder / f"{pos}.exc") for pos in self.offsets}
        self.forms = {form for forms in self.irregular.values() for every in forms.values() for form in every}

    def table(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, tuple[str, ...]] = {}
        for pos in self.offsets:
            data = (self.folder / f"data.{pos}").read_bytes()
            for lemma in self.offsets[pos]:
                options = self._synonyms(lemma, pos, data)
                if options:
                    table[lemma] = tuple(options)
                    for form, others in inflected(lemma, options, pos, self.irregular[pos]):
                        if not self._means_more(form):
                            table.setdefault(form, others)
        return table

    def _synonyms(self, lemma: str, pos: str, data: bytes) -> list[str]:
        senses, total = self.counts.get((lemma, pos), {}), self.totals.get(lemma, 0)
        if total < LEAST_COUNT or sum(senses.values()) < POS_SHARE * total or not self._is_plain(lemma, pos):
            return []
        if lemma in self.forms or (lemma.endswith("s") and lemma[:-1] in self.totals):
            return []  # "found", "works": more often a form of another word
        first, lines = max(senses, key=senses.get), self.offsets[pos][lemma]
        if senses[first] < SENSE_SHARE * total or first > len(lines):
            return []
        line = lines[first - 1]
        return [other for other in _members(data, line) if self._stands_for(other, lemma, pos, line)]

    def _stands_for(self, option: str, lemma: str, pos: str, line: int) -> bool:
        lines = self.offsets[pos].get(option, ())
        if line not in lines or not self._is_plain(option, pos) or option in UNWANTED:
            return False
        if option.startswith(lemma) or lemma.startswith(option):
            return False  # "power" for "powerfulness", and the word itself
        meant = self.counts.get((option, pos), {}).get(lines.index(line) + 1, 0)
        return meant >= max(1, SYNONYM_SHARE * self.totals[option])

    def _is_plain(self, word: str, pos: str) -> bool:
        """Whether it is one word of letters that carries meaning; no name, and no gerund, which may be a verb."""
        plain = len(word) > 2 and word.isascii() and word.isalpha() and word not in NAMES
        return plain and not (pos == "noun" and word.endswith("ing")) and word not in FUNCTION_WORDS

    def _means_more(self, form: str) -> bool:
        """Whether an inflected form is also a word of its own, as "building", or of a closed class."""
        return form in FUNCTION_WORDS or form in self.forms or any(form in words for words in self.offsets.values())


def _read_counts(folder: Path | zipfile.Path) -> Counts:
    """How often each sense of each word was tagged: {(lemma, part of speech): {sense number: count}}."""
    counts: Counts = defaultdict(dict)
    for line in (folder / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, sense, count = line.split()
        lemma, _, rest = key.partition("%")
        counts[lemma, POS[rest[0]]][int(sense)] = int(count)
    return counts


def _read_offsets(folder: Path | zipfile.Path, pos: str) -> dict[str, list[int]]:
    """Where in the data file the senses of each single word are, in the order of their numbers."""
    offsets = {}
    with (folder / f"index.{pos}").open(encoding="latin-1") as lines:
        for line in lines:
            lemma = line[: line.find(" ")]
            if lemma.isalpha():
                fields = line.split()
                offsets[lemma] = [int(offset) for offset in fields[-int(fields[2]) :]]
    return offsets


def _members(data: bytes, offset: int) -> list[str]:
    """The words of the synset at an offset; adjectives come with a marker such as (p), which goes."""
    fields = data[offset : data.index(b"|", offset)].decode("latin-1").split()
    return [word.partition("(")[0] for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
