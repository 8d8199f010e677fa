"""The grid of the benchmark: columns x methods x seeds x lengths of training, cell by cell, through one Trainer loop.

    python recipes/benchmarks/grid.py run --columns choose:text --methods ce,sat,oracle --seeds 0,1,2 --epochs 10,3
    python recipes/benchmarks/grid.py status --columns choose:text

Each finished cell is a line of `results/noisy_labels.jsonl`; a cell that stands there is not run again, so a killed run
goes on where it was. Several processes can share a grid (`--shard 0/2` and `--shard 1/2`), and pieces fit a time limit.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from noisy_labels.columns import select
from noisy_labels.methods import METHODS, method
from transformers import HfArgumentParser

RESULTS = Path(__file__).parent / "results" / "noisy_labels.jsonl"


@dataclass
class Grid:
    columns: str = field(
        default="choose:text",
        metadata={"help": "choose, report or all, each also with :text or :images; data/noise; comma-separated."},
    )
    methods: str = field(
        default=",".join(METHODS),
        metadata={"help": "Names of the table, comma-separated; name:setting=value for other settings."},
    )
    seeds: str = field(default="0", metadata={"help": "Seeds of sample, noise, head and order, comma-separated."})
    epochs: str = field(default="10,3", metadata={"help": "Lengths of training, comma-separated."})
    samples: int = field(default=1500, metadata={"help": "Training examples; 0: all there are."})
    split: str = field(default="held_out", metadata={"help": "held_out: 1,000 of the training file; or test."})
    eval_samples: int = field(default=1000, metadata={"help": "Examples of the test file; 0: all."})
    layers: int = field(default=3, metadata={"help": "Layers of MiniLM, of its 6."})
    image_size: int = field(default=96, metadata={"help": "Side that images are resized to, in pixels."})
    bf16: bool = field(default=True, metadata={"help": "Autocast to bfloat16."})
    shard: str = field(default="0/1", metadata={"help": "i/n: every n-th cell, from the i-th on."})
    time_limit: float | None = field(
        default=None, metadata={"help": "Seconds; no cell is begun that would, by the longest so far, end later."}
    )
    data_dir: str = field(
        default="../shared/data", metadata={"help": "Folder of the data; hub: by their names on the Hub."}
    )
    results: str = field(default=str(RESULTS), metadata={"help": "File of the results."})


def cells(grid: Grid) -> Iterator:
    """Every cell of the grid, all methods of a column side by side, so that a part of it can be read already."""
    from noisy_labels.cell import make_cell
    from noisy_labels.hub import source_of

    names = grid.methods.split(",")
    for name in names:
        method(name)  # refuses what is not one before anything runs
    seen = set()
    lengths, seeds = ([int(number) for number in numbers.split(",")] for numbers in (grid.epochs, grid.seeds))
    for seed, epochs, column, name in product(seeds, lengths, select(grid.columns), names):
        cell = make_cell(
            column,
            name,
            grid.layers,
            grid.image_size,
            grid.split,
            grid.eval_samples,
            epochs=epochs,
            seed=seed,
            samples=grid.samples,
            bf16=grid.bf16,
            source=source_of(grid.data_dir),
        )
        if cell not in seen:  # several columns have one oracle
            seen.add(cell)
            yield cell


def done(path: Path) -> set[str]:
    """Keys of the cells that are stored."""
    from noisy_labels.results import stored

    return {json.dumps(row["cell"], sort_keys=True) for row in stored(path)}


def run(grid: Grid) -> int:
    """Run what has no result yet; returns how many cells were run."""
    from noisy_labels.cell import run_cell
    from noisy_labels.results import append

    path, begun, longest, count = Path(grid.results), time.monotonic(), 0.0, 0
    shard, of = map(int, grid.shard.split("/"))
    mine = list(cells(grid))[shard::of]
    for number, cell in enumerate(mine, 1):
        if cell.key in done(path):
            continue
        at = time.monotonic()
        if grid.time_limit is not None and at - begun + longest > grid.time_limit:
            print(f"time limit: {number - 1} of {len(mine)} cells looked at")
            break
        row = run_cell(cell, grid.data_dir)
        longest, count = max(longest, time.monotonic() - at), count + 1
        append(path, row)
        print(
            f"{number} of {len(mine)}: {cell.column} {cell.method}, {cell.epochs} epochs, seed {cell.seed}: "
            f"{row['accuracy']:.1%} in {row['seconds']:.0f} s",
            flush=True,
        )
    return count


def status(grid: Grid) -> None:
    stored, wanted = done(Path(grid.results)), [cell.key for cell in cells(grid)]
    print(f"{sum(key in stored for key in wanted)} of {len(wanted)} cells are done")


def main() -> None:
    import transformers

    command, *argv = sys.argv[1:] or ["--help"]
    if command not in ("run", "status"):
        sys.exit(__doc__)
    (grid,) = HfArgumentParser(Grid).parse_args_into_dataclasses(argv)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("hf_sat").setLevel(logging.ERROR)  # a swallowed class is a result here, not news
    run(grid) if command == "run" else status(grid)


if __name__ == "__main__":
    main()
