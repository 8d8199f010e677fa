"""Redraws every table, figure and number of README.md and recipes/benchmarks/README.md from the stored results.

    python recipes/benchmarks/report.py            # writes them
    python recipes/benchmarks/report.py --check    # exits with 1 where they are not what the results give

The texts stand between markers in those files; the rest is written by hand. The grid with most cells of the reporting
half stands in README.md, every grid in the other.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from noisy_labels import (
    audit_text,
    augmentation_text,
    cost_text,
    distillation_text,
    figure,
    image_text,
    results,
    sam_text,
    summary,
    tables,
    tokens_text,
)
from noisy_labels.blocks import with_blocks
from transformers import HfArgumentParser

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIGURE = "figures/accuracy_by_epoch.png"
HALVES = {"report": "Reporting half", "choose": "Choosing half", "other": "Other columns"}
MAIN_LENGTH = 10
AUDIT_FIGURE = f"![wrong labels found, and the noise rate estimated](recipes/benchmarks/{audit_text.FIGURE})"
NOTHING = "No cells are stored yet."


@dataclass
class Options:
    check: bool = field(default=False, metadata={"help": "Write nothing; exit with 1 where a text is not up to date."})
    results: str = field(default=str(HERE / "results"), metadata={"help": "Folder of the stored results."})


def texts(folder: Path) -> dict[Path, str]:
    """Both files as the results in a folder give them."""
    cells = results.load(folder / "noisy_labels.jsonl")
    blocks = {ROOT / "README.md": main_blocks(cells, folder), HERE / "README.md": all_blocks(cells, folder)}
    return {path: with_blocks(path.read_text(encoding="utf-8"), names) for path, names in blocks.items()}


# ---- README.md ------------------------------------------------------------------------------------------------------


def main_blocks(cells: pd.DataFrame, folder: Path) -> dict[str, str]:
    """The reporting half of the leading grid at the main length, and what it costs."""
    leading = main_cells(cells)
    has_curves = not leading.empty and figure.curves(leading)
    return {
        "figure": f"![held-out accuracy by epoch](recipes/benchmarks/{FIGURE})" if has_curves else "",
        "accuracy": section(leading, tables.accuracy_table) or NOTHING,
        "summary": section(leading, partial(summarised, folder)) or NOTHING,
        "cost": cost_text.cost_paragraph(folder),
        "sam": section(main_cells(cells, "choose"), sam_text.sam_table) or NOTHING,
        "top_k": cost_text.top_k_sentence(folder),
        "distillation": distillation_text.distillation_paragraph(folder),
        "augmentation": augmentation_text.augmentation_table(folder),
        "audit": audit_text.audit_table(folder),
        "audit_time": audit_text.audit_time_sentence(folder),
        "audit_figure": AUDIT_FIGURE if (folder / "audit.json").exists() else "",
        "tokens": tokens_text.tokens_sentence(folder),
        "images": image_text.cifar10n_sentence(folder),
    }


def main_cells(cells: pd.DataFrame, half: str = "report") -> pd.DataFrame:
    """A half of the grid that has most of it, at the main length."""
    grids = sorted(results.grids(cells), key=lambda grid: (grid["half"] == half).sum())
    return part_of(grids[-1], half, MAIN_LENGTH) if grids else cells


# ---- recipes/benchmarks/README.md -----------------------------------------------------------------------------------


def all_blocks(cells: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Every grid, half and length of training."""
    return {
        "accuracy": sections(cells, tables.accuracy_table),
        "summary": sections(cells, partial(summarised, folder)),
        "best_epoch": sections(cells, partial(tables.accuracy_table, value="best"), mark="at the best epoch; "),
        "ablations": sections(cells, ablations),
        "step_cost": cost_text.step_cost_table(folder),
        "sam_cost": cost_text.sam_cost_table(folder),
        "distillation": distillation_text.distillation_table(folder),
        "distillation_cost": distillation_text.distillation_cost_table(folder),
        "augmentation": augmentation_text.augmentation_table(folder),
        "from_scratch": image_text.from_scratch_tables(folder),
        "augmentation_cost": augmentation_text.augmentation_cost_table(folder),
    }


def sections(cells: pd.DataFrame, write: Callable[[pd.DataFrame], str], mark: str = "") -> str:
    parts = [
        part_of(grid, half, epochs)
        for grid in results.grids(cells)
        for half in HALVES
        for epochs in sorted(grid["epochs"].unique(), reverse=True)
    ]
    return "\n\n".join(filter(None, (section(part, write, mark) for part in parts))) or NOTHING


# ---- both -----------------------------------------------------------------------------------------------------------


def part_of(grid: pd.DataFrame, half: str, epochs: int) -> pd.DataFrame:
    return results.compared(grid[(grid["half"] == half) & (grid["epochs"] == epochs)])


def section(part: pd.DataFrame, write: Callable[[pd.DataFrame], str], mark: str = "") -> str:
    """Which cells these are, in a line, and what `write` makes of them; nothing of nothing."""
    body = "" if part.empty else write(part)
    if not body:
        return ""
    half, epochs = HALVES[part["half"].iloc[0]], part["epochs"].iloc[0]
    return f"**{half}, {epochs} epochs** ({mark}{results.described(part)}):\n\n{body}"


def summarised(folder: Path, part: pd.DataFrame) -> str:
    measured = cost_text.read(folder, "cost.json")
    costs = summary.measured_costs(measured["rows"]) if measured else {}
    return f"{summary.coverage(part)}\n\n{summary.summary_table(part, costs)}"


def ablations(part: pd.DataFrame) -> str:
    return tables.ablation_table(part) if part["method"].map(tables.is_ablation).any() else ""


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    folder = Path(options.results)
    written = texts(folder)
    stale = [path for path, text in written.items() if text != path.read_text(encoding="utf-8")]
    if options.check:
        sys.exit(f"{', '.join(map(str, stale))}: not what the results give; run report.py" if stale else 0)
    for path in stale:
        path.write_text(written[path], encoding="utf-8")
    leading = main_cells(results.load(folder / "noisy_labels.jsonl"))
    if not leading.empty:
        figure.draw(leading, HERE / FIGURE)
    audit_text.draw(folder, HERE / audit_text.FIGURE)


if __name__ == "__main__":
    main()
