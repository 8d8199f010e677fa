"""README's words about CIFAR-10N, from the JSON that its script leaves."""

import statistics
from pathlib import Path

from .cost_text import NOT_MEASURED, read


def cifar10n_sentence(folder: Path) -> str:
    """Accuracy of both Trainers after the last epoch, and how good the corrections are."""
    result = read(folder, "cifar10n.json")
    if result is None:
        return NOT_MEASURED
    of = {name: [row for row in result["rows"] if row["name"] == name] for name in ("plain Trainer", "SATTrainer")}
    plain, sat = of.values()
    told, seeds = result["settings"], len(sat)
    return (
        f"CIFAR-10N worse, the first {told['train_samples']:,} training pictures, MobileNetV2 at {told['image_size']} "
        f"pixels, {told['epochs']:g} epochs: {_percent(plain, 'score')} of {told['eval_samples']:,} test pictures "
        f"right after the last epoch with the plain Trainer, {_percent(sat, 'score')} with SATTrainer, which "
        f"corrects {_percent(sat, 'recall')} of the wrong labels and is right in {_percent(sat, 'precision')} of its "
        f"corrections ({'1 seed' if seeds == 1 else f'means over {seeds} seeds'}; {result['device']}; "
        "`recipes/benchmarks/cifar10n.py`)."
    )


def _percent(rows: list[dict], name: str) -> str:
    return f"{100 * statistics.mean(row[name] or 0 for row in rows):.1f} %"
