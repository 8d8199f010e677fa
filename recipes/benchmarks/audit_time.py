"""How long `hf-sat audit` takes for a file of sentences, from its call to the page, training included.

    python recipes/benchmarks/audit_time.py --column sst/symmetric20 --rows 5000

The command runs as a user would run it, in a process of its own and with its own settings: all six layers of MiniLM-L6.
Writes `results/audit_time.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from noisy_labels.cell import machine
from noisy_labels.columns import Column
from noisy_labels.data import Examples, read
from noisy_labels.training import detection
from transformers import HfArgumentParser

RESULTS = Path(__file__).parent / "results" / "audit_time.json"


@dataclass
class Options:
    column: str = field(default="sst/symmetric20", metadata={"help": "data/noise; see columns.py."})
    rows: int = field(default=5000, metadata={"help": "Sentences."})
    seed: int = field(default=0, metadata={"help": "Seed of sample and noise."})
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder of the data."})
    out: str = field(default=str(RESULTS), metadata={"help": "File of the result."})


def audit(examples: Examples, folder: Path) -> tuple[float, dict[str, Any], pd.DataFrame]:
    """Seconds, what the command prints as JSON, and its table."""
    table = pd.DataFrame({"text": examples.inputs, "label": examples.labels})
    table.to_csv(folder / "sentences.csv", index=False)
    command = [sys.executable, "-m", "hf_sat.cli", "audit", str(folder / "sentences.csv")]
    begun = time.perf_counter()
    done = subprocess.run([*command, "--json", "--out", str(folder / "report")], check=True, stdout=subprocess.PIPE)
    seconds = time.perf_counter() - begun
    return seconds, json.loads(done.stdout), pd.read_parquet(folder / "report" / "labels.parquet")


def found(examples: Examples, table: pd.DataFrame) -> dict[str, float]:
    """How well the table tells the wrong labels, which may stand in any order there."""
    table = table.sort_values("sample_id")
    scores = (table[name].to_numpy() for name in ("label_quality", "is_label_issue", "corrected_label"))
    return detection(examples, *scores)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    examples, _ = read(Column.parse(options.column), options.data_dir, options.seed, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        seconds, told, table = audit(examples, Path(folder))
    result = {
        "column": options.column,
        "rows": told["audited"],
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "cores": os.cpu_count(),
        "training": told["run"]["training"],
        "wrong": float(np.mean(examples.is_wrong)),
        "rate": told["noise_rate"]["rate"],
        **{name: value for name, value in found(examples, table).items() if name in ("auroc", "average_precision")},
        **machine(),
        "device": machine()["device"].split(",")[0],  # the command chooses its own threads
    }
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    main()
