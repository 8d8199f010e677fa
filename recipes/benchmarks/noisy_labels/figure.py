"""Held-out accuracy by epoch, a panel for each noise."""

import math
from pathlib import Path

import pandas as pd

from .columns import CHOOSE, REPORT, Column
from .summary import paired
from .tables import in_order

LINES = {
    "ce": ("cross-entropy", {"color": "C7", "linestyle": "--"}),
    "sat": ("SAT", {"color": "C0"}),
    "oracle": ("cross-entropy on clean labels", {"color": "C2", "linestyle": ":"}),
}
DATA = {
    "trec": "TREC",
    "trec_fine": "TREC, 50 classes",
    "sst": "SST-2",
    "subj": "SUBJ",
    "ag": "AG News",
    "cifar": "CIFAR-10",
}
NOISES = sorted(dict.fromkeys(Column.parse(name).noise for name in REPORT + CHOOSE), key=lambda name: name == "clean")
PANELS_IN_A_ROW = 4


def curves(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Mean accuracy by epoch (rows) and method (columns) under a title for each noise.

    Means go over the data and seeds in which all three methods have a cell; a noise without any is left out.
    """
    panels = {}
    for noise in in_order(set(cells["noise"]), NOISES):
        of_noise = cells[cells["noise"] == noise]
        common = paired(of_noise, list(LINES)).index
        if len(common):
            kept = of_noise.set_index(["column", "seed"]).loc[common]
            means = {name: _mean(kept.loc[kept["method"] == name, "accuracy_by_epoch"]) for name in LINES}
            data = ", ".join(DATA.get(name, name) for name in kept["data"].unique())
            panels[f"{noise} ({data})"] = pd.DataFrame(means)
    return panels


def _mean(lists: pd.Series) -> pd.Series:
    return pd.DataFrame(lists.tolist(), columns=range(1, len(lists.iloc[0]) + 1)).mean()


def draw(cells: pd.DataFrame, path: Path) -> None:
    """Draw the panels of cells of one grid, half and length of training; without any, nothing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = curves(cells)
    if not panels:
        return
    width = min(len(panels), PANELS_IN_A_ROW)
    height = math.ceil(len(panels) / width)
    size = (3.1 * width, 2.7 * height)
    figure, axes = pyplot.subplots(height, width, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, (title, means) in zip(axes.flat, panels.items()):
        for name, (label, style) in LINES.items():
            axis.plot(means.index, 100 * means[name], label=label, marker="o", markersize=3, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("held-out accuracy (%)")
    axes[0][0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
