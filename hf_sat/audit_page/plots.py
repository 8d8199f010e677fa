"""The heat map and the curves of the page as PNG files, for papers and reports. Needs `hf_sat[plots]`."""

from __future__ import annotations

import os

import numpy as np

from .curves import lines_of
from .data import PageData
from .summary import matrix_of

NAMED_UP_TO, NUMBERED_UP_TO = 40, 15  # classes that have room for their names and for numbers
INK, MUTED = "#1c2126", "#5d6872"
COLOURS = ("#2f5fd0", "#c2500c", "#12805c", "#8a3fb0", "#9a7400", "#c02f63", "#3a8fa8", "#5d6872")
DASHES = ("-", "--", "-.", ":")


def plot_transition(data: PageData, path: str | os.PathLike, dpi: int = 150) -> str:
    """Write the transition matrix as a heat map; returns the path.

    Args:
        data: what to show; its own matrix, or one counted from its rows.
        path: of the file; the format follows its ending.
        dpi: dots per inch.

    Raises:
        ValueError: there is no label to count.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> plot_transition(data, "transition.png")                                         # doctest: +SKIP
    """
    matrix = matrix_of(data)
    if matrix is None:
        raise ValueError(
            f"rows has {len(data.rows)} labels and none of them was visited: no transition to plot; train first"
        )
    size = len(data.class_names)
    side = min(max(3.0, 0.42 * size + 2), 12.0)
    figure, axes = _figure(side + 1, side)
    aside = np.where(np.eye(size, dtype=bool), np.nan, matrix.shares)
    image = axes.imshow(aside, cmap="Oranges", vmin=0, interpolation="nearest")
    for k in range(size):
        if not np.isnan(matrix.shares[k, k]):
            axes.fill_between([k - 0.5, k + 0.5], k - 0.5, k + 0.5, color="#e3e7ea", linewidth=0)
    axes.set(xlabel="given label", ylabel="true label (estimated)" if matrix.is_estimate else "proposed label")
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    if size <= NAMED_UP_TO:
        names = [_short(name) for name in data.class_names]
        axes.set_xticks(range(size), names, rotation=90)
        axes.set_yticks(range(size), names)
    if size <= NUMBERED_UP_TO:
        _write_numbers(axes, matrix.shares)
    if size > 1:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda share, _: f"{100 * share:g} %")
        bar.ax.tick_params(labelsize=8)
        bar.set_label("share of the row", size=9)
    return _save(figure, path, dpi)


def plot_curves(data: PageData, path: str | os.PathLike, dpi: int = 150) -> str:
    """Write the training curves; returns the path.

    Args:
        data: what to show.
        path: of the file; the format follows its ending.
        dpi: dots per inch.

    Raises:
        ValueError: there are no curves.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> plot_curves(data, "curves.png")                                                 # doctest: +SKIP
    """
    lines = lines_of(data.curves)
    if lines is None:
        raise ValueError(
            "curves is None or has no number: nothing to plot; pass curves_of_log(trainer.state.log_history)"
        )
    figure, axes = _figure(6.4, 3.6)
    for k, name in enumerate(lines):
        values = lines[name].dropna()
        marker = "o" if len(values) <= 40 else None
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)]}
        axes.plot(values.index, values, label=_literal(str(name)), marker=marker, markersize=3, linewidth=1.6, **style)
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.grid(axis="y", color="#e3e7ea", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, path, dpi)


def _figure(width: float, height: float):
    # Without pyplot, which would choose a window system and keep the figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8)
    return figure, axes


def _write_numbers(axes, shares: np.ndarray) -> None:
    aside = np.where(np.eye(len(shares), dtype=bool), 0, np.nan_to_num(shares))
    for (i, j), share in np.ndenumerate(shares):
        if not np.isnan(share) and round(100 * share) > 0:
            colour = "white" if aside[i, j] > 0.6 * aside.max() else INK
            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)


def _short(name: str) -> str:
    return _literal(name if len(name) <= 24 else name[:23] + "…")


def _literal(name: str) -> str:
    """`$` would begin a formula, and halves of surrogate pairs have no glyph."""
    return name.encode("utf-8", "replace").decode().replace("$", r"\$")


def _save(figure, path: str | os.PathLike, dpi: int) -> str:
    path = os.fspath(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path
