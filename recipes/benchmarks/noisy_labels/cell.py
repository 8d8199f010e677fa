"""One cell of the grid: what is run, and the line that is stored of it."""

import json
import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

import hf_sat

from .columns import Column
from .data import read
from .methods import method
from .models import setting
from .training import run_method

# Of the loop in `training`; raise it when cells that are stored are no longer what a run would give.
LOOP_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """What is run, and nothing else: equal cells give equal results on a machine.

    Args:
        column: "data/noise".
        method: name in the table of methods, with its settings where they differ.
        epochs, seed, samples: of training; samples 0 is all there are.
        split, eval_samples: what it is measured on, see `data.read`.
        model: layers of MiniLM, or side of the images in pixels.
        bf16: autocast.
        version: of the loop and of the method.
        source: of the data, "files" or "hub", whose splits differ.
    """

    column: str
    method: str
    epochs: int
    seed: int
    samples: int
    split: str
    eval_samples: int
    model: str
    bf16: bool
    version: str
    source: str = "files"

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def make_cell(column: str, name: str, layers: int, image_size: int, split: str, eval_samples: int, **same: Any) -> Cell:
    """A cell from the options of a grid; those that do not matter to its column are not in its key.

    Clean labels under injected noise are those of the clean column, so that cell is the oracle of them all.
    """
    parsed = Column.parse(column)
    if method(name).labels == "clean" and not parsed.is_real:
        column, name = f"{parsed.data}/clean", "ce"
    model = f"{image_size} pixels" if parsed.is_image else f"{layers} layers"
    return Cell(
        column=column,
        method=name,
        model=model,
        split=split,
        eval_samples=eval_samples if split == "test" else 0,
        version=f"{LOOP_VERSION}.{method(name).version}",
        **same,
    )


def run_cell(cell: Cell, data_dir: str) -> dict[str, Any]:
    """Train and measure; returns the line to store."""
    column = Column.parse(cell.column)
    train, held_out = read(column, data_dir, cell.seed, cell.samples, cell.split, cell.eval_samples)
    number = int(cell.model.split()[0])
    made = setting(column, len(train.classes), cell.seed, data_dir, layers=number, image_size=number)
    outcome = run_method(cell.method, made, train, held_out, cell.epochs, cell.seed, cell.bf16)
    return {"cell": asdict(cell), **asdict(outcome), **machine()}


def machine() -> dict[str, Any]:
    """Where it ran and with what."""
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
    versions = {module.__name__: module.__version__ for module in (torch, transformers, hf_sat)}
    return {"device": device, "versions": versions}
