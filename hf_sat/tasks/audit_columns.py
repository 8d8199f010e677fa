"""Which column of a table holds the texts or images, and which the labels."""

import difflib
from collections.abc import Sequence
from typing import Any

from .audit_options import AuditOptions
from .audit_sources import FILE, LABEL, ImageFolder

TEXTS = ("text", "sentence", "review", "content", "comment", "message", "body", "tweet", "question", "utterance",
         "document", "description", "title", "input")  # fmt: skip
LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "rating", "stars", "y")
PICTURES = ("image", "img", "picture", "photo", "file", "file_name", "filename", "path")


def choose_columns(table: Any, options: AuditOptions) -> tuple[str, str, bool]:
    """Column of the content and of the labels, and whether the content is images: as named, or by usual names.

    Raises:
        ValueError: where a name is no column (the nearest is named), or the choice is open.
    """
    columns = list(table.columns)
    if isinstance(table, ImageFolder):
        return FILE, LABEL, True
    for flag, name in {"--text": options.text, "--label": options.label, "--image": options.image}.items():
        if name is not None:
            _check_named(flag, name, columns)
    is_image = options.image is not None
    content = options.image or options.text
    label = options.label or _usual(LABELS, columns, content)
    content = content or _usual(TEXTS, columns, label)
    if content is None:
        content = _usual(PICTURES, columns, label)
        is_image = content is not None
    if len(columns) == 2 and (content is None) != (label is None):  # the other one
        (other,) = [column for column in columns if column not in (content, label)]
        content, label = content or other, label or other
    for flag, name in {"--text": content, "--label": label}.items():
        if name is None:
            raise ValueError(f"{flag}: it is not clear which column it is; name one of {columns}.")
    if content == label:
        raise ValueError(f"--label {label!r}: this is the column of the texts; name another of {columns}.")
    return content, label, is_image


def _usual(names: Sequence[str], columns: Sequence[str], other: str | None) -> str | None:
    found = {column.strip().lower(): column for column in columns if column != other}
    return next((found[name] for name in names if name in found), None)


def _check_named(flag: str, name: str, columns: list[str]) -> None:
    if name not in columns:
        folded = {column.lower(): column for column in columns}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        raise ValueError(f"{flag} {name!r}: there is no such column, the data has {columns}.{hint}")
    if columns.count(name) > 1:
        raise ValueError(f"{flag} {name!r}: two columns have this name; rename one.")
