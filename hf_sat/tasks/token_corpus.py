"""Real sentences with tags that are certain, without a download: names in the docstrings of installed libraries.

Authors mark the names they write about (`axis`, :class:`Graph`), and the source tells what each name is. The marks are
then taken away: what is left to tell a parameter "weight" from the word is the sentence around it. Files are parsed,
never imported; which sentences come out depends on the installed versions and on the seed alone.
"""

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from ..metrics.spans import OUTSIDE
from .corpus import source_files

# Every machine that runs hf_sat has them, by its dependencies or those of torch; their authors mark names.
LIBRARIES = ("networkx", "numpy", "pandas", "sympy")
KINDS = ("CLASS", "FUNCTION", "PARAMETER")
TAGS = (OUTSIDE, *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))
VALUES = ("None", "True", "False")  # marked or not, as authors please: no names
SHORTEST, LONGEST = 6, 20  # words and punctuation marks
MOST_PER_FILE = 20  # no single file may stand for a library

DEFINED = re.compile(r"^\s*(class|def|async def)\s+(\w+)", re.MULTILINE)
MARKED = re.compile(r"(?::[\w:]+:)?(``?)\[?~?\.?([A-Za-z_]\w*(?:\.\w+)*)(?:\(\))?\]?\1")
WORD = re.compile(r"\w+|[^\w\s]")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z`])")
# Lines that are no prose: headings, "name : type", doctests, directives.
NO_PROSE = re.compile(r"\s:\s|^\s*(>>>|\.\.|-{3}|={3}|[-*] )")
# What is left unmarked must not look like a name or like code.
CODE = re.compile(r"_|[a-z][A-Z]|[`=<>\\{}|\[\]*]")

Tagged = list[tuple[str, str]]


@dataclass
class Names:
    """The names that a library defines, by kind."""

    classes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def kind_of(self, name: str, parameters: set[str]) -> str | None:
        """What a marked name is, "O" for none of the kinds; None where that is not certain."""
        if name in VALUES:
            return OUTSIDE
        if name in parameters:
            return "PARAMETER"
        last = name.split(".")[-1]
        kinds = [kind for kind, known in (("CLASS", self.classes), ("FUNCTION", self.functions)) if last in known]
        return kinds[0] if len(kinds) == 1 else None


def name_corpus(
    num_train: int = 320,
    num_held_out: int = 320,
    libraries: tuple[str, ...] = LIBRARIES,
    seed: int = 0,
) -> datasets.DatasetDict:
    """Sentences of 6 to 32 words in which names are tagged; no file gives to both splits.

    Args:
        num_train: sentences to train on; rounded down to a multiple of the number of libraries.
        num_held_out: sentences held out, rounded likewise.
        libraries: importable packages, as many sentences of each.
        seed: of the choice of files.

    Returns:
        Splits "train" and "test" with the columns "tokens", words and punctuation marks, and "tags", in IOB2.

    Raises:
        ValueError: a library is not installed, or has too few sentences.
    """
    rows = {"test": [], "train": []}
    wanted = {"test": num_held_out // len(libraries), "train": num_train // len(libraries)}
    seen: set[tuple[str, ...]] = set()
    for library in libraries:
        files = source_files(library)
        names = names_of(files)
        random.Random(f"{seed} {library}").shuffle(files)
        batches = (_new_sentences(path, names, seen) for path in files)
        for split, count in wanted.items():
            rows[split] += _take(batches, count, library)
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=list(TAGS))),
        }
    )
    rng = random.Random(seed)
    for split in rows.values():
        rng.shuffle(split)
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(rows[split], features=features) for split in ("train", "test")}
    )


def _take(batches: Iterator[list[Tagged]], count: int, library: str) -> list[dict]:
    """So many sentences, as rows."""
    found = []
    while len(found) < count:
        batch = next(batches, None)
        if batch is None:
            raise ValueError(
                f"libraries: {library!r} has too few sentences; lower num_train or num_held_out, or leave it out."
            )
        found += batch[: count - len(found)]
    return [{"tokens": [w for w, _ in row], "tags": [TAGS.index(tag) for _, tag in row]} for row in found]


def names_of(files: list[Path]) -> Names:
    """The names that files define; read by line, as parsing all of them would take most of the time."""
    names = Names()
    for path in files:
        for keyword, name in DEFINED.findall(_text(path)):
            (names.classes if keyword == "class" else names.functions).add(name)
    return names


def _new_sentences(path: Path, names: Names, seen: set[tuple[str, ...]]) -> list[Tagged]:
    """Tagged sentences of a file that no file before it had."""
    new = []
    for sentence in tagged_sentences(_text(path), names):
        key = tuple(word.lower() for word, _ in sentence)
        if key not in seen and len(new) < MOST_PER_FILE:
            seen.add(key)
            new.append(sentence)
    return new


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


def tagged_sentences(source: str, names: Names) -> Iterator[Tagged]:
    """The sentences in a module's docstrings whose marked names are all known, one at least; without the marks."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            parameters = _parameters(node)
            for paragraph in _paragraphs(ast.get_docstring(node) or ""):
                for sentence in SENTENCE_END.split(paragraph):
                    tagged = _tagged(sentence, names, parameters)
                    if _is_usable(tagged):
                        yield tagged


def _parameters(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Of a function, or of a class's `__init__`."""
    if isinstance(node, ast.ClassDef):
        own = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        return _parameters(own[0]) if own else set()
    given = node.args
    return {arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)} - {"self", "cls"}


def _paragraphs(docstring: str) -> Iterator[str]:
    """Lines of prose that stand together at one indentation, joined."""
    lines, indent = [], None
    for line in [*docstring.splitlines(), ""]:
        text = line.strip()
        here = len(line) - len(line.lstrip())
        is_prose = bool(text) and not NO_PROSE.search(line)
        if lines and not (is_prose and here == indent):
            yield " ".join(lines)
            lines = []
        if is_prose:
            lines, indent = [*lines, text], here


def _tagged(sentence: str, names: Names, parameters: set[str]) -> Tagged | None:
    """Words with their tags; None where a marked name is not known."""
    tagged, end = [], 0
    for mark in MARKED.finditer(sentence):
        kind = names.kind_of(mark.group(2), parameters)
        if kind is None:
            return None
        tagged += _outside(sentence[end : mark.start()])
        parts = WORD.findall(mark.group(2))
        tags = [f"{'I' if number else 'B'}-{kind}" if kind != OUTSIDE else kind for number in range(len(parts))]
        tagged += zip(parts, tags)
        end = mark.end()
    return tagged + _outside(sentence[end:])


def _outside(text: str) -> Tagged:
    return [(word, OUTSIDE) for word in WORD.findall(text)]


def _is_usable(tagged: Tagged | None) -> bool:
    """Whether it is a sentence that has names, all of them marked."""
    if not tagged or not SHORTEST <= len(tagged) <= LONGEST or tagged[-1] != (".", OUTSIDE):
        return False
    if tagged[0][1] == OUTSIDE and not tagged[0][0][0].isupper():
        return False
    names = {word for word, tag in tagged if tag != OUTSIDE and word != "."}
    plain = [word for word, tag in tagged if tag == OUTSIDE]
    return bool(names) and not any(word in names or CODE.search(word) for word in plain)
