"""The transition matrix as cells of a table, or, where there are many classes, as a few SVG paths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .summary import Matrix

LEVELS = 10
TABLE_UP_TO = 30  # classes; more have no room for numbers and names
DRAWN_UP_TO = 200  # classes; of more, those with the most confusion are drawn


@dataclass
class Cell:
    """One cell: its share, None in a row without labels; the number behind it; its colour."""

    share: float | None
    count: int | None
    level: str


@dataclass
class HeatMap:
    """What the template draws.

    Args:
        kept: the classes drawn, in order.
        largest: share that has the darkest colour.
        cells: rows of cells, where it is a table.
        paths: (colour, SVG path data), where it is a drawing.
        shares: the drawing's matrix in ten-thousandths, -1 in a row without labels.
    """

    matrix: Matrix
    kept: list[int]
    largest: float
    cells: list[list[Cell]] | None = None
    paths: list[tuple[str, str]] | None = None
    shares: list[list[int]] | None = None


def heat_map(matrix: Matrix) -> HeatMap:
    """Choose the form by the number of classes."""
    kept = _most_confused(matrix.shares) if len(matrix.shares) > DRAWN_UP_TO else np.arange(len(matrix.shares))
    shares = matrix.shares[np.ix_(kept, kept)]
    aside = shares[~np.eye(len(shares), dtype=bool)]
    largest = float(np.nanmax(aside)) if np.isfinite(aside).any() else 0.0
    levels = colours(shares, largest)
    drawn = HeatMap(matrix, kept.tolist(), largest)
    if len(matrix.shares) <= TABLE_UP_TO:
        drawn.cells = _cells(shares, matrix.counts, levels)
    else:
        drawn.paths = _paths(levels)
        drawn.shares = np.where(np.isnan(shares), -1, np.rint(shares * 10_000)).astype(int).tolist()
    return drawn


def colours(shares: np.ndarray, largest: float) -> np.ndarray:
    """Colour of each cell: "h0" to "h10"; "hd" on the diagonal, which would drown the rest; "hn" without labels.

    The root spreads small shares, as most are.
    """
    scaled = np.sqrt(np.nan_to_num(shares) / largest) if largest else np.zeros_like(shares)
    names = np.array([f"h{level}" for level in range(LEVELS + 1)], dtype=object)
    levels = names[np.ceil(np.clip(scaled, 0, 1) * LEVELS - 1e-9).astype(int)]
    np.fill_diagonal(levels, "hd")
    levels[np.isnan(shares)] = "hn"
    return levels


def _most_confused(shares: np.ndarray) -> np.ndarray:
    aside = np.nan_to_num(shares)
    np.fill_diagonal(aside, 0)
    confusion = aside.sum(axis=0) + aside.sum(axis=1)
    return np.sort(np.argsort(-confusion, kind="stable")[:DRAWN_UP_TO])


def _cells(shares: np.ndarray, counts: np.ndarray | None, levels: np.ndarray) -> list[list[Cell]]:
    return [
        [
            Cell(
                None if np.isnan(shares[i, j]) else float(shares[i, j]),
                None if counts is None else int(counts[i, j]),
                levels[i, j],
            )
            for j in range(len(shares))
        ]
        for i in range(len(shares))
    ]


def _paths(levels: np.ndarray) -> list[tuple[str, str]]:
    """A path for each colour: thousands of rectangles would be as many nodes."""
    paths = []
    for level in dict.fromkeys(levels.ravel()):
        if level != "h0":
            squares = (f"M{j} {i}h1v1h-1z" for i, j in zip(*np.nonzero(levels == level)))
            paths.append((level, "".join(squares)))
    return paths
