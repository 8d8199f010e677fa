"""Markdown tables of accuracy, from the stored cells."""

import pandas as pd

from .columns import ALL
from .methods import METHODS, OURS, PEER

NONE = "-"


def markdown(rows: list[list[str]], header: list[str]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float | None, digits: int = 1) -> str:
    return NONE if share is None or pd.isna(share) else f"{round(100 * share, digits) + 0.0:.{digits}f}"  # no -0


def is_ablation(name: str) -> bool:
    return ":" in name


def one_training(name: str) -> bool:
    """Whether a method competes at the cost of plain training."""
    return not is_ablation(name) and METHODS[name].role in (OURS, PEER) and METHODS[name].trainings == 1


def in_order(names: set[str], order: list[str] | tuple[str, ...]) -> list[str]:
    """Names in the order given; others follow by name."""
    return [name for name in order if name in names] + sorted(names - set(order))


def accuracy_table(cells: pd.DataFrame, value: str = "accuracy") -> str:
    """A row per column and a column per method: the mean over seeds in %, the best at one training's cost in bold.

    Args:
        cells: of one grid and one length of training.
        value: "accuracy" at the last epoch, or "best".
    """
    cells = cells[~cells["method"].map(is_ablation)]
    methods = in_order(set(cells["method"]), list(METHODS))
    means = cells.pivot_table(value, "column", "method", "mean", observed=True).reindex(columns=methods)
    counts = cells.pivot_table(value, "column", "method", "count").reindex(columns=methods)
    ranked = [name for name in methods if one_training(name)]
    rows = []
    for column in in_order(set(means.index), ALL):
        shown = {name: percent(means.loc[column, name]) for name in methods}
        best = max((float(shown[name]) for name in ranked if shown[name] != NONE), default=None)
        marked = [_marked(shown[name], name in ranked and best is not None, best) for name in methods]
        rows.append([column, *marked, seeds(counts.loc[column])])
    return markdown(rows, ["data/noise", *methods, "seeds"])


def _marked(text: str, is_ranked: bool, best: float | None) -> str:
    return f"**{text}**" if is_ranked and text != NONE and float(text) == best else text


def seeds(counts: pd.Series) -> str:
    """Number of seeds behind the means of a row, as a range where the methods that have any differ."""
    counts = counts[counts > 0]
    least, most = int(counts.min()), int(counts.max())
    return str(most) if least == most else f"{least} to {most}"


def ablation_table(cells: pd.DataFrame) -> str:
    """A row per method with settings of its own, under the method as it is, and what the settings change.

    The change is the mean over the columns and seeds that both have, in points, and their number.
    """
    bases = {name.split(":")[0] for name in cells["method"] if is_ablation(name)}
    kept = cells[cells["method"].map(lambda name: name.split(":")[0] in bases)]
    columns = in_order(set(kept["column"]), ALL)
    wide = kept.pivot_table("accuracy", ["column", "seed"], "method")
    means = kept.pivot_table("accuracy", "method", "column").reindex(columns=columns)
    rows = []
    for base in in_order(bases, list(METHODS)):
        for name in sorted(name for name in means.index if name.split(":")[0] == base):
            accuracies = [percent(share) for share in means.loc[name]]
            rows.append([f"`{name}`", *accuracies, *_change(wide, base, name)])
    return markdown(rows, ["method and settings", *columns, "change (points)", "cells"])


def _change(wide: pd.DataFrame, base: str, name: str) -> list[str]:
    if name == base or base not in wide:
        return [NONE, str(wide[name].count())]
    change = (wide[name] - wide[base]).dropna()
    return [NONE if change.empty else f"{100 * change.mean():+.1f}", str(len(change))]
