"""Real text without a download: sentences from the docstrings of installed libraries, classified by library.

Files are parsed, never imported. Which sentences come out depends on the installed versions and on the seed alone.
"""

import ast
import importlib.util
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import datasets

# Every machine that runs hf_sat has them, by its dependencies or those of torch; far enough apart that one sentence can
# tell (numpy and torch, say, describe the same operations in the same words).
LIBRARIES = ("huggingface_hub", "networkx", "sympy", "transformers")
# A name would give the class away: no sentence holds one, be it of its own library or of another.
NAMES = re.compile(
    r"(?<![a-z])(np|nx|pd|hf|tf|hub|aten|datasets?|hugging\s?face\w*|ndarrays?|networkx\w*|numpy\w*|pandas\w*"
    r"|pretrained\w*|pytorch\w*|sympy\w*|torch\w*|transformers?)(?![a-z])",
    re.IGNORECASE,
)
SKIPPED_FOLDERS = {"tests", "test", "testing", "benchmarks", "_vendor", "vendored_packages"}
SHORTEST, LONGEST = 10, 30  # words
MOST_PER_FILE = 12  # no single file may stand for a library
LARGEST_FILE = 150_000  # bytes; parsing is what takes the time

# Where a docstring's prose ends: numpy's underlined headings, Google's "Args:", doctests and directives.
SECTION = re.compile(r"^\s*(-{3,}|={3,}|>>>|```|\.\. |:param|@|(\*\*)?[A-Z]\w+( \w+)?(\*\*)?:\s*$)")
MARKUP = re.compile(r":\w+:|``?|\*\*?|\[([^\]]*)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PLAIN = re.compile(r"[A-Z][\w ,;:'\"()/.-]*\.")


def docstring_corpus(
    num_train: int = 640,
    num_held_out: int = 480,
    libraries: tuple[str, ...] = LIBRARIES,
    seed: int = 0,
) -> datasets.DatasetDict:
    """Sentences of 10 to 30 words with the library they describe; no file gives to both splits.

    Args:
        num_train: sentences to train on; rounded down to a multiple of the number of libraries.
        num_held_out: sentences held out, rounded likewise.
        libraries: importable packages, one class each; classes are balanced.
        seed: of the choice of files.

    Returns:
        Splits "train" and "test" with the columns "text" and "label" (a `ClassLabel` of the libraries' names).

    Raises:
        ValueError: a library is not installed, or has too few sentences.
    """
    wanted = {"test": num_held_out // len(libraries), "train": num_train // len(libraries)}
    rows = {split: [] for split in wanted}
    seen: set[str] = set()
    for label, library in enumerate(libraries):
        for split, sentences in _split_by_file(library, wanted, seed, seen).items():
            rows[split] += [{"text": sentence, "label": label} for sentence in sentences]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(libraries))}
    )
    rng = random.Random(seed)
    for split in rows.values():
        rng.shuffle(split)
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(rows[split], features=features) for split in ("train", "test")}
    )


def _split_by_file(library: str, wanted: dict[str, int], seed: int, seen: set[str]) -> dict[str, list[str]]:
    """As many sentences as are wanted for each split, one after the other through the library's files."""
    files = source_files(library)
    random.Random(f"{seed} {library}").shuffle(files)
    batches = (_new_sentences(path, seen) for path in files)
    found = {}
    for split, count in wanted.items():
        found[split] = []
        while len(found[split]) < count:
            batch = next(batches, None)
            if batch is None:
                raise ValueError(
                    f"libraries: {library!r} has fewer than the {sum(wanted.values())} sentences asked for; lower "
                    "num_train or num_held_out, or leave the library out."
                )
            found[split] += batch[: count - len(found[split])]
    return found


def source_files(library: str) -> list[Path]:
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"libraries: {library!r} is not installed as a package; install it or leave it out.")
    root = Path(spec.submodule_search_locations[0])
    paths = sorted(path for path in root.rglob("*.py") if not SKIPPED_FOLDERS & set(path.relative_to(root).parts))
    return [path for path in paths if os.path.getsize(path) <= LARGEST_FILE]


def _new_sentences(path: Path, seen: set[str]) -> list[str]:
    """Sentences of a file that no file before it had, whichever its library."""
    new = []
    for sentence in sentences_of(path.read_text(encoding="utf-8", errors="ignore")):
        key = re.sub(r"\W+", " ", sentence).lower()
        if key not in seen and len(new) < MOST_PER_FILE:
            seen.add(key)
            new.append(sentence)
    return new


def sentences_of(source: str) -> Iterator[str]:
    """The prose sentences in the docstrings of a Python source, without library names, markup or code."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            for paragraph in _prose(ast.get_docstring(node) or ""):
                yield from filter(_is_usable, SENTENCE_END.split(paragraph))


def _prose(docstring: str) -> Iterator[str]:
    """Paragraphs before the first section, markup removed."""
    lines = docstring.splitlines()
    end = next((i for i, line in enumerate(lines) if SECTION.match(line)), len(lines))
    for paragraph in "\n".join(lines[:end]).split("\n\n"):
        if paragraph and not paragraph.startswith((" ", "-", "*", "|", "<", "#")):
            yield " ".join(MARKUP.sub(r"\1", paragraph).split())


def _is_usable(sentence: str) -> bool:
    return (
        SHORTEST <= len(sentence.split()) <= LONGEST
        and PLAIN.fullmatch(sentence) is not None
        and NAMES.search(sentence) is None
    )
