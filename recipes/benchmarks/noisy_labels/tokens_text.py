"""Sentences about tags of words, from the JSON that its script leaves."""

import statistics
from pathlib import Path

from .cost_text import NOT_MEASURED, read
from .tables import percent


def tokens_sentence(folder: Path) -> str:
    """README's words: span F1 of both Trainers on a dictionary's tags, and how well the wrong ones are found."""
    result = read(folder, "ner.json")
    if result is None:
        return NOT_MEASURED
    rows = {name: [row for row in result["rows"] if row["trainer"] == name] for name in ("Trainer", "SATTrainer")}
    plain, sat = ([row["f1"] for row in part] for part in rows.values())
    found = {name: statistics.mean(row[name] for row in rows["SATTrainer"]) for name in ("auroc", "precision")}
    first = rows["SATTrainer"][0]
    return (
        f"On the tags that a dictionary gives WikiGold, {percent(first['wrong'] / first['tokens'])} % of them wrong, "
        f"SATTrainer ends at a span F1 of {percent(statistics.mean(sat))}, the plain Trainer at "
        f"{percent(statistics.mean(plain))}; the report ranks wrong tags with an AUROC of {percent(found['auroc'])}, "
        f"and {percent(found['precision'])} % of the corrections are right ({result['epochs']} epochs of MiniLM-L6, "
        f"{_seeds(len(sat))}; `recipes/benchmarks/ner.py`)."
    )


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"means over {count} seeds"
