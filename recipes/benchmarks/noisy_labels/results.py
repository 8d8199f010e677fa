"""The stored cells as a table: a row per cell, the oracles of injected noise among them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from .cell import LOOP_VERSION
from .columns import CHOOSE, REPORT, Column
from .methods import method

# What the cells of a grid have in common, beside the model.
SHARED = ["samples", "split", "eval_samples", "source", "bf16"]


def stored(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a file of results; one that a kill cut short is left out."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "cell" in row:
            yield row


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line; what a kill cut short before it keeps a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    is_cut_short = bool(before) and not before.endswith("\n")
    with path.open("a") as file:
        file.write("\n" * is_cut_short + json.dumps(row) + "\n")


def load(path: Path) -> pd.DataFrame:
    """The cells that a run of today would give again, with the fields of `Cell` and of `Outcome`, and

    `data`, `noise`, `is_image` and `half` ("choose", "report" or "other") of the column, `best`, the accuracy at the
    best epoch, and `device`.
    """
    rows = {json.dumps(row["cell"], sort_keys=True): _flat(row) for row in stored(path) if _is_current(row["cell"])}
    return with_oracles(pd.DataFrame(list(rows.values()))) if rows else pd.DataFrame()


def _is_current(cell: dict[str, Any]) -> bool:
    try:
        return cell["version"] == f"{LOOP_VERSION}.{method(cell['method']).version}"
    except ValueError:  # the method is no longer in the table
        return False


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    outcome = {name: value for name, value in row.items() if name not in ("cell", "log", "versions")}
    device = row["device"].split(",")[0]  # without the number of threads, which changes no result
    best = max(row["accuracy_by_epoch"])
    return {**row["cell"], **outcome, **_of_column(row["cell"]["column"]), "best": best, "device": device}


def _of_column(name: str) -> dict[str, Any]:
    column = Column.parse(name)
    half = "choose" if name in CHOOSE else "report" if name in REPORT else "other"
    return {"data": column.data, "noise": column.noise, "is_image": column.is_image, "half": half}


def with_oracles(cells: pd.DataFrame) -> pd.DataFrame:
    """Add, under injected noise, the oracle: CE on the clean labels of the same sample and seed, stored once.

    On clean labels the oracle is CE.
    """
    of_column = ["column", "data", "noise", "is_image", "half"]
    clean = cells[(cells["noise"] == "clean") & (cells["method"] == "ce")]
    wanted = cells.loc[[not Column.parse(name).is_real for name in cells["column"]], of_column].drop_duplicates()
    same_data = clean.drop(columns=[name for name in of_column if name != "data"])
    oracles = same_data.merge(wanted, on="data").assign(method="oracle")
    return pd.concat([cells, oracles], ignore_index=True)[cells.columns]


def grids(cells: pd.DataFrame) -> list[pd.DataFrame]:
    """The cells by the grid that they are of, the largest grid of the reporting half first.

    Text and images of the same sizes are one grid, with the model of each that has most cells; another is a grid.
    """
    if cells.empty:
        return []
    parts: list[pd.DataFrame] = []
    for _, group in cells.groupby(SHARED):
        leading = group.groupby("is_image")["model"].agg(lambda models: models.mode()[0])
        leads = group["model"] == group["is_image"].map(leading)
        parts += [group[leads], *(part for _, part in group[~leads].groupby("model"))]
    return sorted(parts, key=lambda part: (part["half"] == "report").sum(), reverse=True)


def compared(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of columns in which a method stands beside CE; an oracle's cell alone makes no column."""
    has_more = cells.groupby("column")["method"].transform(lambda names: not set(names) <= {"ce", "oracle"})
    return cells[has_more.astype(bool)]


def described(cells: pd.DataFrame) -> str:
    """The grid of cells in a line: what they trained on, with what, and where."""
    one = cells.iloc[0]
    samples = f"{one['samples']:,} training examples" if one["samples"] else "all training examples"
    limit = f"at most {one['eval_samples']:,} examples" if one["eval_samples"] else "all"
    measured = f"{limit} of the test file" if one["split"] == "test" else "1,000 held out of the training file"
    source = ["from the Hub"] if one["source"] == "hub" else []
    models = cells.groupby("is_image")["model"].first()
    named = [
        "MobileNetV2 at " + name if is_image else f"first {name} of MiniLM-L6" for is_image, name in models.items()
    ]
    precision = "bfloat16 autocast" if one["bf16"] else "float32"
    seeds = ", ".join(map(str, sorted(cells["seed"].unique())))
    devices = " and ".join(sorted(cells["device"].unique()))
    return "; ".join(
        [f"{samples}, measured on {measured}", *source, ", ".join(named), precision, f"seeds {seeds}", devices]
    )
