"""`hf-sat augment`: what an augmentation makes of texts, before it is trained with."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..augment import OPERATIONS, TextAugmenter


def augment_command(argv: Sequence[str]) -> None:
    """Print texts beside their views.

    Raises:
        ValueError: for operations that are not known, rates that are none, a file that is not there.
    """
    options = _parser().parse_args(argv)
    locked = [name for name in options.lock.split(",") if name]
    augmenter = TextAugmenter(options.ops, seed=options.seed, locked=locked)
    texts = _texts(options)
    views = [augmenter.augment(texts, [(epoch, row) for row in range(len(texts))]) for epoch in range(options.views)]
    _print(texts, views)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hf-sat augment", description="Show what an augmentation makes of texts.")
    parser.add_argument("texts", nargs="*", help="texts; default: those of --file, or lines of standard input")
    names = ", ".join(OPERATIONS)
    parser.add_argument(
        "--ops", default="deletion:0.1,swap:0.1", help=f"operations with their rates; of {names} (default: %(default)s)"
    )
    parser.add_argument("--file", help="a file of texts, one a line")
    parser.add_argument("--views", type=int, default=2, help="views of each text, one an epoch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--lock", default="", help="what is left alone: urls, numbers, placeholders, ... or a pattern")
    return parser


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return options.texts
    if options.file is None:
        return [line.rstrip("\n") for line in sys.stdin if line.strip()]
    path = Path(options.file)
    if not path.is_file():
        raise ValueError(f"--file {options.file}: there is no such file; give one with a text on each line.")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _print(texts: list[str], views: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("epoch", "text", show_lines=True)
    for row, text in enumerate(texts):
        # Not as markup: a text may hold brackets.
        table.add_row("", Text(text))
        for epoch, view in enumerate(views):
            table.add_row(str(epoch), _marked(text, view[row]))
    Console().print(table)


def _marked(text: str, view: str):
    """The view, in bold where its words are not the text's."""
    import difflib
    import re

    from rich.text import Text

    before, after = (re.findall(r"\s+|\S+", each) for each in (text, view))
    marked = Text()
    for kind, _, _, begin, end in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        marked.append("".join(after[begin:end]), style="" if kind == "equal" else "bold")
    return marked
