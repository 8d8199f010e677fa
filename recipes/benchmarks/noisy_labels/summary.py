"""What a half of the grid says of each method in a few numbers."""

import math
from dataclasses import dataclass

import pandas as pd

from .columns import Column
from .methods import METHODS
from .tables import NONE, in_order, is_ablation, markdown, one_training, percent

GAP_NOISES = ("pair40", "symmetric40")


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % t interval (NaN with one value), and the number of values."""

    mean: float
    low: float
    high: float
    count: int


def paired(cells: pd.DataFrame, methods: list[str], value: str = "accuracy") -> pd.DataFrame:
    """A row per column and seed in which all the methods have a cell, a column per method."""
    wide = cells[cells["method"].isin(methods)].pivot_table(value, ["column", "seed"], "method")
    return wide.reindex(columns=methods).dropna()


def column_ranks(cells: pd.DataFrame) -> pd.DataFrame:
    """Rank of each method of one training's cost, 1 the best, a row per column that all of them have.

    Ranked are the means over the seeds that all methods have; ties share their ranks.
    """
    methods = in_order({name for name in cells["method"] if one_training(name)}, list(METHODS))
    return paired(cells, methods).groupby("column").mean().rank(axis=1, ascending=False)


def average_ranks(ranks: pd.DataFrame) -> dict[str, pd.Series]:
    """Means over the columns of `column_ranks`, and where they are of both kinds, over texts and images alone."""
    images = ranks.index.map(lambda name: Column.parse(name).is_image).to_numpy(dtype=bool)
    kinds = {"on texts": ~images, "on images": images} if images.any() and not images.all() else {}
    return {"average rank": ranks.mean(), **{kind: ranks[of_it].mean() for kind, of_it in kinds.items()}}


def gap_recovered(cells: pd.DataFrame, name: str, noise: str) -> float:
    """Share of the gap between CE and the oracle that a method wins back, pooled over data and seeds; NaN unknown.

    Args:
        noise: a noise of the columns, "pair40".
    """
    means = paired(cells[cells["noise"] == noise], list(dict.fromkeys(("ce", name, "oracle")))).mean()
    gap = means["oracle"] - means["ce"]
    return float((means[name] - means["ce"]) / gap) if gap > 0 else math.nan


def difference_on_clean(cells: pd.DataFrame, name: str) -> Interval:
    """Accuracy less CE's on clean labels, over data and seeds."""
    both = paired(cells[cells["noise"] == "clean"], ["ce", name])
    return interval((both[name] - both["ce"]).tolist())


def interval(values: list[float]) -> Interval:
    """Mean and 95 % t interval.

    Example:
        >>> interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, low=-0.484..., high=4.484..., count=3)
    """
    from scipy import stats

    count = len(values)
    mean = sum(values) / count if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
    low, high = mean, mean  # where all values are equal, scipy gives NaN
    if spread := stats.sem(values):
        low, high = map(float, stats.t.interval(0.95, count - 1, mean, spread))
    return Interval(mean, low, high, count)


def detection(cells: pd.DataFrame) -> pd.DataFrame:
    """AUROC and average precision of the wrong labels found: means over the cells that all methods that tell have.

    What finds them in other trainings takes many, has few cells, and tells where it has them all.
    """
    telling = cells.dropna(subset=["auroc"])
    methods = in_order({name for name in telling["method"] if not is_ablation(name)}, list(METHODS))
    own = [name for name in methods if METHODS[name].labels == "given"] or methods
    found = {}
    for value in ("auroc", "average_precision"):
        common = paired(telling, own, value)
        others = {name: paired(telling, [*own, name], value) for name in methods if name not in own}
        means = {name: both[name].mean() for name, both in others.items() if len(both) == len(common)}
        found[value] = pd.concat([common.mean(), pd.Series(means, dtype=float)])
    return pd.DataFrame(found)


def summary_table(cells: pd.DataFrame, costs: dict[str, float]) -> str:
    """A row per method, for cells of one grid, half and length of training.

    Args:
        costs: step time of a method over the plain Trainer's, where it has been measured.
    """
    averages = average_ranks(column_ranks(cells))
    found = detection(cells)
    names = {name for name in cells["method"] if not is_ablation(name)}
    rows = []
    for name in in_order(names - {"oracle"}, list(METHODS)):
        gaps = [percent(gap_recovered(cells, name, noise), 0) if name != "ce" else NONE for noise in GAP_NOISES]
        detected = [number(found[value].get(name), ".3f") for value in found]
        ranks = [number(average.get(name), ".1f") for average in averages.values()]
        clean = NONE if name == "ce" else points(difference_on_clean(cells, name))
        rows.append([name, *ranks, *gaps, clean, *detected, cost_of(name, costs)])
    header = ["method", *averages, *(f"gap recovered, {noise} (%)" for noise in GAP_NOISES)]
    return markdown(rows, [*header, "clean labels (points)", "AUROC", "average precision", "cost of a step"])


def number(value: float | None, form: str) -> str:
    return NONE if value is None or math.isnan(value) else format(value, form)


def points(difference: Interval) -> str:
    if difference.count == 0:
        return NONE
    mean = f"{100 * difference.mean:+.2f}"
    if difference.count == 1:
        return f"{mean} (1 pair)"
    return f"{mean} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f}; {difference.count} pairs)"


def cost_of(name: str, costs: dict[str, float]) -> str:
    """Cost over plain training: measured where it has been, else what follows from the number of trainings."""
    if name in costs:
        return f"{costs[name]:.2f}"
    trainings = METHODS[name].trainings
    return str(trainings) if name == "ce" or trainings > 1 else NONE


def coverage(cells: pd.DataFrame) -> str:
    """Over how much the columns of the summary go."""
    columns = len(column_ranks(cells))
    ranked = sum(one_training(name) for name in cells["method"].unique())
    gaps = ", ".join(sorted(cells.loc[cells["noise"].isin(GAP_NOISES), "column"].unique()))
    over = f"{columns} column{'' if columns == 1 else 's'}"
    return f"Ranks are among {ranked} methods over {over}; the gap is that of {gaps or 'no column yet'}."


def measured_costs(rows: list[dict]) -> dict[str, float]:
    """Step time over the plain Trainer's by method; of a method measured with several settings, the largest."""
    costs: dict[str, float] = {}
    for row in rows:
        name = row["method"].split(":")[0]
        costs[name] = max(costs.get(name, 0.0), row["ratio"])
    return costs
