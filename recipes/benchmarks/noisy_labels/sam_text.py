"""What SAM adds to plain training and to label correction: a table of the cells that all four have."""

import pandas as pd

from .summary import interval, paired, points
from .tables import markdown, percent

METHODS = ("ce", "sat", "sam", "sat_sam")
HEADER = ["TREC, labels wrong", "plain", "SAT", "SAM", "SAT + SAM", "SAT gains", "SAM gains", "SAM gains on top of SAT"]
GAINS = (("sat", "ce"), ("sam", "ce"), ("sat_sam", "sat"))


def sam_table(cells: pd.DataFrame) -> str:
    """A row per noise of TREC, from cells of one grid, half and length: means over seeds, and paired gains."""
    both = paired(cells[cells["column"].str.startswith("trec/")], list(METHODS))
    rows, seeds = [], set()
    for column, found in both.groupby(level="column", sort=False):
        seeds |= set(found.index.get_level_values("seed"))
        means = [percent(found[method].mean()) for method in METHODS]
        gains = [points(interval((found[method] - found[other]).tolist())) for method, other in GAINS]
        rows.append([column.partition("/")[2], *means, *gains])
    if not rows:
        return "No cells are stored yet."
    numbers = ", ".join(map(str, sorted(seeds)))
    note = (
        f"Accuracy in % at the last epoch, means over seeds {numbers}; gains in points with 95 % t intervals over them."
    )
    return f"{note}\n\n{markdown(rows, HEADER)}"
