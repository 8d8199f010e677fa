"""The numbers of the page that sum up many labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data import PageData, is_audited, labels_of


@dataclass
class Headline:
    """Counts of labels: all, those with a visit, and the issues among them."""

    total: int
    audited: int
    issues: int

    @property
    def share(self) -> float:
        return self.issues / self.audited if self.audited else 0.0


@dataclass
class ClassRow:
    """What happened to the labels given to one class; None where there is nothing to say it from."""

    index: int
    labels: int
    issues: int
    share: float | None
    noise_rate: float | None
    quality: float | None
    proposed: int | None
    proposed_count: int


@dataclass
class Matrix:
    """Shares of given labels (columns) among those of each true class (rows); NaN in rows without any.

    Args:
        shares: (C, C).
        counts: labels behind each share, (C, C), where known.
        is_estimate: whether it was handed in, rather than counted from the table.
    """

    shares: np.ndarray
    counts: np.ndarray | None
    is_estimate: bool


def headline(data: PageData) -> Headline:
    audited = is_audited(data.rows)
    issues = data.rows["is_label_issue"].to_numpy(dtype=bool) & audited
    return Headline(len(data.rows), int(audited.sum()), int(issues.sum()))


def proposed_by_given(data: PageData, rows: np.ndarray) -> np.ndarray:
    """How many of the `rows` (a mask) have each pair of labels: (C, C), row proposed, column given."""
    size = len(data.class_names)
    proposed, given = (labels_of(data.rows, name)[rows] for name in ("corrected_label", "given_label"))
    return np.bincount(proposed * size + given, minlength=size * size).reshape(size, size)


def matrix_of(data: PageData) -> Matrix | None:
    """What the heat map shows; None without a single label."""
    weights = data.transition
    if weights is None:
        weights = proposed_by_given(data, is_audited(data.rows)).astype(float)
    sums = np.nansum(weights, axis=1, keepdims=True)
    if not sums.any():
        return None
    shares = np.divide(weights, sums, out=np.full(weights.shape, np.nan), where=sums > 0)
    is_count = (np.nan_to_num(weights) % 1 == 0).all() and weights[weights > 0].max() > 1
    return Matrix(shares, np.nan_to_num(weights).astype(np.int64) if is_count else None, data.transition is not None)


def top_confusions(data: PageData, limit: int) -> list[tuple[int, int, int]]:
    """The pairs that most issues have: (given, proposed, how many)."""
    issues = data.rows["is_label_issue"].to_numpy(dtype=bool) & is_audited(data.rows)
    counts = proposed_by_given(data, issues)
    np.fill_diagonal(counts, 0)
    largest = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(largest, counts.shape))
    return [
        (int(given), int(proposed), int(counts[proposed, given]))
        for proposed, given in pairs
        if counts[proposed, given]
    ]


def class_rows(data: PageData) -> list[ClassRow]:
    """A row for every class, in the order of their numbers."""
    audited, size = is_audited(data.rows), len(data.class_names)
    issues = data.rows["is_label_issue"].to_numpy(dtype=bool) & audited
    given = labels_of(data.rows, "given_label")
    labels = np.bincount(given[given >= 0], minlength=size)
    seen = np.bincount(given[audited], minlength=size)
    wrong = np.bincount(given[issues], minlength=size)
    quality = np.bincount(
        given[audited], weights=data.rows["label_quality"].to_numpy(dtype=float)[audited], minlength=size
    )
    rates = _noise_of_classes(data, audited)
    pairs = proposed_by_given(data, issues)
    np.fill_diagonal(pairs, 0)
    rows = []
    for k in range(size):
        most = int(pairs[:, k].argmax())
        count = int(pairs[most, k])
        share, mean = (wrong[k] / seen[k], quality[k] / seen[k]) if seen[k] else (None, None)
        rate = None if rates is None or np.isnan(rates[k]) else float(rates[k])
        rows.append(ClassRow(k, int(labels[k]), int(wrong[k]), share, rate, mean, most if count else None, count))
    return rows


def _noise_of_classes(data: PageData, audited: np.ndarray) -> np.ndarray | None:
    """Estimated share of wrong labels among those given to each class, from the transition matrix handed in."""
    matrix = matrix_of(data) if data.transition is not None else None
    if matrix is None:
        return None
    joint = matrix.counts
    if joint is None:  # shares of true classes: their sizes are those of the proposed labels
        sizes = proposed_by_given(data, audited).sum(axis=1, keepdims=True)
        joint = np.nan_to_num(matrix.shares) * sizes
    given = joint.sum(axis=0)
    return 1 - np.divide(np.diag(joint), given, out=np.full(len(given), np.nan), where=given > 0)
