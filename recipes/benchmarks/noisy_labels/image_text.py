"""What the pages say of CIFAR-10N and of learning from scratch, from the JSON that their scripts leave."""

import statistics
from pathlib import Path

from .cost_text import NOT_MEASURED, read
from .tables import NONE, markdown, percent


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


def from_scratch_tables(folder: Path) -> str:
    """A table for each size, length and noise: accuracy of each method with augmentation and without, and its onset."""
    result = read(folder, "from_scratch.json")
    if result is None:
        return NOT_MEASURED
    alike = {}
    for run in result["runs"]:
        alike.setdefault(tuple(run[name] for name in ("samples", "epochs", "noise", "width", "device")), []).append(run)
    return "\n\n".join(map(_from_scratch_table, alike.values()))


def _from_scratch_table(runs: list[dict]) -> str:
    first = runs[0]
    caption = (
        f"A small ResNet on {first['samples']:,} pictures of CIFAR-10 with {first['noise']} noise, from scratch, "
        f"{first['epochs']} epochs of SGD, accuracy in % on 1,000 held-out training pictures at the last; "
        f"{first['device']}; `recipes/benchmarks/from_scratch.py`:"
    )
    rows = []
    for name in dict.fromkeys(run["method"] for run in runs):
        of = [_runs(runs, name, augmented) for augmented in (True, False)]
        scores = [percent(statistics.fmean(run["accuracy"] for run in it)) if it else NONE for it in of]
        onsets = {f"{run['log']['sat/onset_epoch']:g}" for it in of for run in it if run["log"]}
        seeds = ", ".join(str(len(it)) for it in of)
        rows.append([f"`{name}`", *scores, ", ".join(sorted(onsets)) or NONE, seeds])
    header = ["method", "with crops and flips", "without", "onset (epoch)", "seeds"]
    return f"{caption}\n\n{markdown(rows, header)}"


def _runs(runs: list[dict], name: str, augmented: bool) -> list[dict]:
    return [run for run in runs if run["method"] == name and run["augmented"] is augmented]


def _percent(rows: list[dict], name: str) -> str:
    return f"{100 * statistics.mean(row[name] or 0 for row in rows):.1f} %"
