"""What the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

LABELS = ("given_label", "corrected_label")
NEEDED = ("sample_id", *LABELS, "label_quality", "is_label_issue")
UNLABELLED = -1


@dataclass
class PageData:
    """A table of labels, and what is known about it as a whole.

    Args:
        title: heading of the page.
        rows: a row for every label, with the columns `sample_id`, `given_label` and `corrected_label` (class numbers;
            a negative one is no label), `label_quality` (0 to 1, low is suspect; NaN where the example was never
            visited) and `is_label_issue`. For token classification also `token_index`. Further columns (`p_given`,
            `n_visits`, other scores) appear in the details of a row, and numbers can be sorted by.
        class_names: name of every class, in the order of their numbers.
        noise_rate: estimated share of wrong labels, with the ends of its interval: (rate, low, high).
        transition: (C, C), row true class, column given class; counts, or shares of each row. Default: counted from
            `rows`, with the proposed label as the true one.
        curves: a row for each log entry: `epoch`, and further columns of shares in [0, 1], each of which becomes a
            line named after its column. See `curves_of_log`.
        examples: what the labels are of: texts, lists of words (`token_index` then names the word), or pictures (PIL
            images, encoded bytes, `datasets`' {"bytes", "path"}, uint8 arrays). None in it is shown as nothing.
        example_of: position in `examples` for every row. Default: the row's own position where there are as many of
            both; otherwise `sample_id` where it can be one; otherwise samples are counted as they appear in `rows`.
        about: facts for the foot of the page, such as model, date, settings and versions.

    Raises:
        ValueError: a column is missing, a label has no class, or the sizes of two arguments differ.

    Example:
        >>> rows = pd.DataFrame({
        ...     "sample_id": [0, 1], "given_label": [0, 1], "corrected_label": [0, 0],
        ...     "label_quality": [0.98, 0.03], "is_label_issue": [False, True],
        ... })
        >>> data = PageData("Reviews", rows, ["good", "bad"], examples=["Lovely.", "I would buy it again."])
        >>> data.example_of.tolist()
        [0, 1]
    """

    title: str
    rows: pd.DataFrame
    class_names: Sequence[Any]
    noise_rate: tuple[float, float, float] | None = None
    transition: np.ndarray | None = None
    curves: pd.DataFrame | None = None
    examples: Sequence | None = None
    example_of: np.ndarray | None = None
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.class_names = [str(name) for name in self.class_names]
        self.rows = self.rows.reset_index(drop=True)
        _check_rows(self.rows, len(self.class_names))
        _check_rate(self.noise_rate)
        if self.transition is not None:
            self.transition = _matrix(self.transition, len(self.class_names))
        if self.curves is not None and "epoch" not in self.curves:
            raise ValueError(f"curves has the columns {list(self.curves)}; name the one of the horizontal axis 'epoch'")
        if self.examples is not None:
            self.example_of = _positions(self.rows, self.examples, self.example_of)


def labels_of(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Class numbers of a column, UNLABELLED where there is none."""
    return np.maximum(rows[column].to_numpy(dtype=np.int64), UNLABELLED)


def is_audited(rows: pd.DataFrame) -> np.ndarray:
    """Whether there is a label, and a visit to judge it by."""
    quality = rows["label_quality"].to_numpy(dtype=float)
    return np.isfinite(quality) & (labels_of(rows, "given_label") >= 0) & (labels_of(rows, "corrected_label") >= 0)


def suspects_first(rows: pd.DataFrame) -> np.ndarray:
    """Positions of the rows from the lowest quality to the highest, those never visited last."""
    return np.argsort(rows["label_quality"].to_numpy(dtype=float), kind="stable")


def _check_rows(rows: pd.DataFrame, num_classes: int) -> None:
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise ValueError(f"rows has no column {missing}, only {list(rows)}; pass LabelReport.to_pandas()")
    for column in LABELS:
        outside = np.flatnonzero(rows[column].to_numpy() >= num_classes)
        if outside.size:
            raise ValueError(
                f"rows has the {column} {rows[column].iloc[outside[0]]} in row {outside[0]}, but class_names has "
                f"{num_classes} names; name every class"
            )


def _check_rate(rate: tuple[float, float, float] | None) -> None:
    if rate is not None and not (len(rate) == 3 and 0 <= rate[1] <= rate[0] <= rate[2] <= 1):
        raise ValueError(f"noise_rate={rate!r} is no (rate, low, high) with 0 <= low <= rate <= high <= 1")


def _matrix(transition: Any, size: int) -> np.ndarray:
    matrix = np.asarray(transition, dtype=float)
    if matrix.shape != (size, size):
        raise ValueError(f"transition has shape {matrix.shape}, but class_names has {size} names; make them agree")
    if (matrix < 0).any() or np.isinf(matrix).any():
        raise ValueError("transition has negative or infinite entries; pass counts, or shares of each row")
    return matrix


def _positions(rows: pd.DataFrame, examples: Sequence, positions: Any) -> np.ndarray:
    if positions is not None:
        found = np.asarray(positions, dtype=np.int64)
    elif len(examples) == len(rows) and "token_index" not in rows:
        found = np.arange(len(rows))
    elif pd.api.types.is_integer_dtype(rows["sample_id"]) and rows["sample_id"].between(0, len(examples) - 1).all():
        found = rows["sample_id"].to_numpy(dtype=np.int64)
    else:
        found = pd.factorize(rows["sample_id"])[0].astype(np.int64)
    size_differs = len(found) != len(rows)
    if size_differs or (len(found) and not 0 <= found.min() <= found.max() < len(examples)):
        raise ValueError(
            f"{len(examples)} examples do not fit {len(rows)} rows; pass one for each, or set example_of to the "
            "position in examples of each row"
        )
    return found
