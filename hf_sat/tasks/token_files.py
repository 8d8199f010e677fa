"""Files of words with their tags: a line per word with columns, an empty line between sentences (CoNLL), or tables."""

import re
from collections.abc import Iterator
from typing import TextIO

import datasets

from ..config import refuse
from .data import check_file, load_table

TABLES = (".json", ".jsonl", ".parquet")
LINES = (".conll", ".txt", ".tsv", ".bio", ".iob", ".iob2", ".ner")
DOCUMENT = "-DOCSTART-"
WORDS, TAGS = "tokens", "tags"  # the first and the last column of a file that does not name them
BLANKS = re.compile(r"[ \t]+")
TAG = re.compile(r"O|[A-Z]-\S+")


def load_token_file(setting: str, path: str) -> datasets.Dataset:
    """Sentences as rows: lists of words, and lists of tags.

    Args:
        setting: that names the file.
        path: JSON (an array or a line per row) or Parquet file of lists, or one of lines with columns.

    Raises:
        ValueError: for a file that is missing or of another kind, and lines that differ in their number of columns.
    """
    if check_file(setting, path, (*LINES, *TABLES)) in TABLES:
        return load_table(setting, path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return _from_lines(setting, path, file)
    except UnicodeDecodeError as error:
        raise refuse(setting, path, f"it is not UTF-8 ({error}); save it as UTF-8.") from error


def _from_lines(setting: str, path: str, file: TextIO) -> datasets.Dataset:
    lines = list(enumerate((line.rstrip("\n") for line in file), start=1))
    blanks = re.compile("\t") if any("\t" in text for _, text in lines) else BLANKS
    header, lines = _header(lines, blanks)
    names, sentences = header, []
    for sentence in _sentences(lines, blanks):
        names = names or _names(len(sentence[0][1]))
        for number, fields in sentence:
            if len(fields) != len(names):
                raise refuse(
                    setting, path, f"line {number} has {len(fields)} columns, not {len(names)} ({', '.join(names)})."
                )
        sentences.append([fields for _, fields in sentence])
    if not sentences:
        raise refuse(setting, path, "there is no sentence in it; write a word and its tag on each line.")
    return datasets.Dataset.from_dict(
        {name: [[fields[at] for fields in sentence] for sentence in sentences] for at, name in enumerate(names)}
    )


def _header(lines: list[tuple[int, str]], blanks: re.Pattern) -> tuple[list[str] | None, list[tuple[int, str]]]:
    """The names of the columns, where the first line is "# " and as many names as the next has columns."""
    if len(lines) > 1 and lines[0][1].startswith("# "):
        names = blanks.split(lines[0][1].removeprefix("# ").strip())
        first = next((text for _, text in lines[1:] if text.strip() and not text.startswith("# ")), "")
        if len(names) == len(blanks.split(first.strip(" "))):
            return names, lines[1:]
    return None, lines


def _sentences(lines: list[tuple[int, str]], blanks: re.Pattern) -> Iterator[list[tuple[int, list[str]]]]:
    """Blocks of lines, each as its number and its fields; without comments and marks of documents."""
    block = []
    for number, text in [*lines, (len(lines), "")]:
        fields = blanks.split(text.strip(" "))
        if not text.strip():
            if block:
                yield block
            block = []
        elif not (fields[0] == DOCUMENT or _is_comment(text, fields)):
            block.append((number, fields))


def _is_comment(text: str, fields: list[str]) -> bool:
    """ "# " begins a comment, but not where the word is "#" and its tag ends the line."""
    return text.startswith("# ") and not (len(fields) > 1 and TAG.fullmatch(fields[-1]))


def _names(count: int) -> list[str]:
    return [WORDS, *(f"column_{number}" for number in range(2, count)), *([TAGS] if count > 1 else [])]
