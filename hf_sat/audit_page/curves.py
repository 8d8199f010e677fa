"""Training curves as the lines of an SVG chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# What the log calls them, and what the page does.
LOGGED = {
    "sat/agreement": "agrees with the given label",
    "sat/clean_agreement": "agrees with the clean label",
    "sat/corrected": "labels corrected",
    "sat/precision": "precision of corrections",
    "sat/recall": "recall of corrections",
}
MAX_LINES, MAX_POINTS, MAX_DOTS, MAX_ROWS = 8, 400, 40, 25
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34


@dataclass
class Line:
    """One curve: SVG path data, dots (x, y, value), and the last value."""

    name: str
    path: str
    dots: list[tuple[float, float, float]]
    last: float


@dataclass
class Chart:
    """Sizes in SVG units; ticks are (position, text)."""

    width: int
    height: int
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def curves_of_log(log_history: Sequence[dict]) -> pd.DataFrame | None:
    """The curves in a Trainer's log.

    Args:
        log_history: `trainer.state.log_history`.

    Returns:
        `epoch`, and a column for each share that the page knows; None where no entry has one.

    Example:
        >>> curves_of_log([{"epoch": 1.0, "loss": 0.5, "sat/corrected": 0.25}, {"epoch": 1.0, "eval_loss": 0.4}])
           epoch  labels corrected
        0    1.0              0.25
    """
    entries = [entry for entry in log_history if "epoch" in entry and LOGGED.keys() & entry.keys()]
    if not entries:
        return None
    table = pd.DataFrame(entries)
    return table[["epoch", *(name for name in LOGGED if name in table)]].rename(columns=LOGGED)


def lines_of(curves: pd.DataFrame | None) -> pd.DataFrame | None:
    """The columns that can be drawn, by epoch; None without any point."""
    if curves is None:
        return None
    table = curves.select_dtypes("number").replace([np.inf, -np.inf], np.nan).dropna(subset="epoch")
    table = table.sort_values("epoch", kind="stable").set_index("epoch").dropna(axis=1, how="all").iloc[:, :MAX_LINES]
    return None if table.empty or not table.shape[1] else table


def chart(lines: pd.DataFrame, width: int, height: int) -> Chart:
    """Lay out the lines of `lines_of` in a drawing of this size."""
    x_low, x_high = float(lines.index.min()), float(lines.index.max())
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    y_ticks = nice_ticks(0.0, max(float(np.nanmax(lines.to_numpy())), 0.01), 5)
    y_high = y_ticks[-1]
    across, down = width - LEFT - RIGHT, height - TOP - BOTTOM

    def x_of(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * across, 1)

    def y_of(value: float) -> float:
        return round(TOP + (1 - min(max(value / y_high, 0), 1)) * down, 1)

    x_ticks = [tick for tick in nice_ticks(x_low, x_high, max(width // 80, 3)) if x_low <= tick <= x_high]
    return Chart(
        width,
        height,
        [_line(name, lines[name].dropna(), x_of, y_of) for name in lines],
        [(x_of(tick), f"{tick:g}") for tick in x_ticks],
        [(y_of(tick), f"{100 * tick:g} %") for tick in y_ticks],
    )


def table_rows(lines: pd.DataFrame) -> pd.DataFrame:
    """Some of the entries, evenly spaced, for those who would rather read numbers."""
    return lines.iloc[np.unique(np.linspace(0, len(lines) - 1, MAX_ROWS).round().astype(int))]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, the last one at or over `high`."""
    raw = (high - low) / count
    power = 10 ** np.floor(np.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [round(float(k * step), 10) for k in np.arange(first, last + 1)]


def _line(name: str, values: pd.Series, x_of, y_of) -> Line:
    if len(values) > MAX_POINTS:
        values = values.iloc[np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int)]
    points = [(x_of(x), y_of(y), float(y)) for x, y in values.items()]
    path = "M" + "L".join(f"{x} {y}" for x, y, _ in points)
    return Line(str(name), path, points if len(points) <= MAX_DOTS else [], float(values.iloc[-1]))
