"""Sentences and tables about text augmentation, from the JSON that its scripts leave."""

import statistics
from pathlib import Path
from typing import Any

from .cost_text import NOT_MEASURED, read
from .tables import markdown, percent

METHODS = {"none": "plain", "sat": "sat", "sat, start 5": "sat, `sat_start_epoch=5`"}


def augmentation_table(folder: Path) -> str:
    """A row for each method and way: accuracy on the test as it is, and with slips."""
    result = read(folder, "augmentation.json")
    if result is None:
        return NOT_MEASURED
    runs = result["runs"]
    seeds = sorted({run["seed"] for run in runs})
    first = runs[0]
    caption = (
        f"{first['samples']} questions of TREC with 40 % symmetric noise, {first['epochs']} epochs of the first "
        f"{first['layers']} layers of MiniLM-L6, accuracy in % after the last on the test questions as they are and "
        f"with slips (`keyboard:0.15,ocr:0.1`), means over {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}; "
        f"{result['device']}; `recipes/benchmarks/augmentation.py`:"
    )
    rows = [
        [METHODS[method], way, *(_mean(runs, method, way, key) for key in ("accuracy", "accuracy_slips"))]
        for method in METHODS
        for way in dict.fromkeys(run["way"] for run in runs if run["method"] == method)
    ]
    return f"{caption}\n\n{markdown(rows, ['method', 'augmentation', 'test', 'test with slips'])}"


def augmentation_cost_table(folder: Path) -> str:
    """A row for each operation: sentences a second, and over nlpaug's."""
    speed, step = read(folder, "augment_speed.json"), read(folder, "augment_step.json")
    if speed is None:
        return NOT_MEASURED
    rows = [
        [
            f"`{row['operation']}`",
            f"{row['per_second'] / 1e3:.0f}k",
            f"{row['ratio']:.1f}" if row.get("ratio") else "-",
            row.get("nlpaug") or "-",
            f"{row['changed']:.0%}",
        ]
        for row in speed["rows"]
    ]
    header = ["operation", "sentences a second", "over nlpaug's", "which", "sentences changed"]
    caption = f"Sentences of 18 to 22 words at a rate of {speed['rate']:g}, one core, CPU time, {speed['device']}."
    parts = [caption, markdown(rows, header)]
    if step is not None:
        parts.append(
            f"A training step with five operations in {step['workers']} workers takes {step['ratio']:.3f} times that "
            f"on texts tokenised before (batch {step['batch_size']}, {step['device']}; `augment_step.py`)."
        )
    return "\n\n".join(parts)


def _mean(runs: list[dict[str, Any]], method: str, way: str, key: str) -> str:
    found = [run[key] for run in runs if (run["method"], run["way"]) == (method, way)]
    return percent(statistics.fmean(found)) if found else "-"
