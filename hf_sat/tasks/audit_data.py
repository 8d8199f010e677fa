"""What is audited: of all rows those with content and a label, their classes, and what is to be told about the rest."""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .audit_columns import choose_columns
from .audit_images import unreadable_pictures
from .audit_labels import class_names, classes_of_rows, warn_of_few, warn_of_slips, written_forms
from .audit_options import AuditOptions
from .pictures import as_picture

FEWEST_ROWS = 20


@dataclass
class Skipped:
    """A row that is not audited, and why."""

    row: int
    reason: str


@dataclass
class AuditData:
    """The rows that are audited.

    Args:
        content, label: their columns in the table.
        is_image: whether the content is images; `examples` then has what the column has.
        rows: place of each in the table, (R,).
        examples: text or image of each.
        labels: class number of each, (R,).
        names: of the classes.
        written: how the table writes each class.
        skipped: the other rows.
        warnings: what is to be told.
        repeats: rows whose text stands in a row before.
        contradictions: rows whose text has another label elsewhere, bool (R,).
    """

    content: str
    label: str
    is_image: bool
    rows: np.ndarray
    examples: list
    labels: np.ndarray
    names: list[str]
    written: list[Any]
    skipped: list[Skipped]
    warnings: list[str] = field(default_factory=list)
    repeats: int = 0
    contradictions: np.ndarray | None = None


def audit_data(table: Any, options: AuditOptions) -> AuditData:
    """Choose columns, rows and classes.

    Raises:
        ValueError: for columns that are not there or not clear, labels that are no classes, and too few rows.
    """
    content, label, is_image = choose_columns(table, options)
    values, known, warnings = table.values(label), getattr(table, "classes", {}).get(label), list(table.warnings)
    keys = classes_of_rows(values, known, label, options.merge_case, warnings)
    contents = table.values(content)
    if is_image:
        root = getattr(table, "root", os.path.dirname(options.data))
        contents = [as_picture(value, root) for value in contents]
    skipped = _skipped(table, contents, keys, content, label, is_image)
    left_out = {found.row for found in skipped}
    rows = np.array([row for row in range(len(values)) if row not in left_out], dtype=np.int64)
    if options.sample is not None and options.sample < len(rows):
        rows = np.sort(np.random.default_rng(options.seed).choice(rows, size=options.sample, replace=False))
    if len(rows) < FEWEST_ROWS:
        raise ValueError(
            f"only {len(rows)} of {len(values)} rows have content and a label ({content!r}, {label!r}); an audit needs "
            f"{FEWEST_ROWS} at least."
        )
    kept = [keys[row] for row in rows]
    names = class_names(kept, known, label)
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[key] for key in kept], dtype=np.int64)
    warn_of_few(labels, names, warnings)
    warn_of_slips(kept, warnings)
    examples = [contents[row] if is_image else _valid(str(contents[row])) for row in rows]
    written = written_forms([values[row] for row in rows], labels, len(names))
    data = AuditData(content, label, is_image, rows, examples, labels, names, written, skipped, warnings)
    if not is_image:
        data.repeats, data.contradictions = _repeats(examples, labels)
    return data


def _skipped(
    table: Any, contents: list, keys: list[str | None], content: str, label: str, is_image: bool
) -> list[Skipped]:
    """The rows that cannot be audited, in order, each with the first reason found."""
    reasons = {
        row: _content_missing(value, content, is_image) or (None if key is not None else f"no label in {label!r}")
        for row, (value, key) in enumerate(zip(contents, keys))
    }
    reasons |= table.unreadable
    if is_image:  # opened last, and only where the rest is in order
        places = [row for row, reason in reasons.items() if reason is None]
        bad = unreadable_pictures([contents[row] for row in places])
        reasons |= {places[place]: reason for place, reason in bad.items()}
    return [Skipped(row, reason) for row, reason in sorted(reasons.items()) if reason is not None]


def _valid(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and nothing else can write."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _content_missing(value: Any, column: str, is_image: bool) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"no {'image' if is_image else 'text'} in {column!r}"
    if not is_image and isinstance(value, (list, dict, bytes)):
        return f"{column!r} holds a {type(value).__name__}, no text"
    return None


def _repeats(texts: list[str], labels: np.ndarray) -> tuple[int, np.ndarray]:
    """How many texts stand in a row before, and which rows have a text that has another label elsewhere."""
    same = defaultdict(list)
    for place, text in enumerate(texts):
        same[" ".join(text.split())].append(place)
    contradictions = np.zeros(len(texts), dtype=bool)
    for places in same.values():
        if len(places) > 1 and len(set(labels[places].tolist())) > 1:
            contradictions[places] = True
    return len(texts) - len(same), contradictions
