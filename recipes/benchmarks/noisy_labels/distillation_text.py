"""Sentences and tables about distillation, from the JSON that its two scripts leave."""

import statistics
from pathlib import Path
from typing import Any

from .cost_text import NOT_MEASURED, listed, read
from .tables import markdown, percent

NAMES = {"trec": "TREC", "trec_fine": "TREC with fine classes", "sst": "SST-2", "subj": "SUBJ", "ag": "AG News"}
SPLITS = {"test": "the test file", "held_out": "held-out training data"}
STARTS = {"teacher": "its weights", "pretrained": "the pretrained weights"}
MODELS = ("teacher", "student alone", "student")
COSTS = {
    "cached_over_plain": "cached / plain",
    "live_over_plain": "live / plain",
    "live_over_plain_and_teacher": "live / (plain + teacher)",
    "cache_over_bare_loop": "cache built / bare loop",
}


def distillation_table(folder: Path) -> str:
    """For each data set a row per seed and one of the means: accuracy of the three models, what is kept, and what the
    teacher adds.
    """
    results = [read(folder, name) for name in ("distillation.json", *_other_files(folder))]
    return "\n\n".join(_table(result) for result in results if result is not None) or NOT_MEASURED


def _other_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("distillation_on_*.json"))


def _table(result: dict[str, Any]) -> str:
    rows = [_row(str(row["seed"]), row) for row in result["rows"]]
    rows.append(_row("**mean**", _means(result["rows"])))
    header = ["seed", *(f"{name} (%)" for name in MODELS), "kept (%)", "over alone (points)", "speed"]
    return f"{_caption(result)}\n\n{markdown(rows, header)}"


def distillation_paragraph(folder: Path) -> str:
    """README's words about what it brings and costs."""
    return f"{distillation_sentence(folder)}\n{distillation_cost_sentence(folder)}"


def distillation_sentence(folder: Path) -> str:
    """README's words: what is kept, at which speed, and what the teacher adds."""
    result = read(folder, "distillation.json")
    if result is None:
        return NOT_MEASURED
    means = _means(result["rows"])
    size = {name: bytes / 1e6 for name, bytes in result["weight_bytes"].items()}
    return (
        f"On {_name(result)} a student of half the layers of MiniLM-L6 keeps {percent(means['kept'])} % of its "
        f"teacher's accuracy at {means['speed_up']:.1f} times its speed ({size['student']:.0f} instead of "
        f"{size['teacher']:.0f} MB), {_points(means)} points over the same student without the teacher{_start(result)}"
        f"{''.join(_elsewhere(read(folder, name)) for name in _other_files(folder))} (means over "
        f"{len(result['rows'])} seeds; `recipes/benchmarks/distillation.py`)."
    )


def _name(result: dict[str, Any]) -> str:
    return NAMES[result["data"]] + (" from the Hub" if result["source"] == "hub" else "")


def _start(result: dict[str, Any]) -> str:
    return ", both from the pretrained layers" if result.get("student_start") == "pretrained" else ""


def _elsewhere(result: dict[str, Any]) -> str:
    means = _means(result["rows"])
    return f"; on {_name(result)} {percent(means['kept'])} % and {_points(means)} points"


def distillation_cost_sentence(folder: Path) -> str:
    """README's words about the cost of a step, by head."""
    result = read(folder, "distillation_cost.json")
    if result is None:
        return NOT_MEASURED
    heads = result["heads"]
    cached, live, built = (
        listed([f"{head[key]:.2f}" for head in heads.values()])
        for key in ("cached_over_plain", "live_over_plain_and_teacher", "cache_over_bare_loop")
    )
    return (
        f"With labels for {listed(list(heads))} a step from cached logits takes {cached} times the plain Trainer's, "
        f"one with a live teacher {live} times that and the teacher's forward pass; a cache is built at {built} times "
        f"the speed of a bare inference loop ({result['device']}; `recipes/benchmarks/distillation_cost.py`)."
    )


def distillation_cost_table(folder: Path) -> str:
    """A row per head: time of a step in each way, and the ratios."""
    result = read(folder, "distillation_cost.json")
    if result is None:
        return NOT_MEASURED
    heads = result["heads"]
    ways = list(next(iter(heads.values()))["ms"])
    rows = [
        [name, *(f"{head['ms'][way]:.1f}" for way in ways), *(f"{head[key]:.3f}" for key in COSTS)]
        for name, head in heads.items()
    ]
    caption = (
        f"BERTs of width 256, the student of 4 layers, its teacher of 8; batch {result['batch_size']} of 32 tokens; "
        f"{result['steps']} steps in turn, {result['clock']}, {result['device']}. Tokens have 100 classes, of which "
        f"the cache keeps 8. The cache is built for {result['cached_examples']:,} examples, with its checks and "
        "fingerprints."
    )
    return f"{caption}\n\n{markdown(rows, ['labels for', *(f'{way} (ms)' for way in ways), *COSTS.values()])}"


def _caption(result: dict[str, Any]) -> str:
    start = STARTS[result.get("student_start", "teacher")]
    return (
        f"{_name(result)}: {result['train']:,} training examples, another sample for each seed, measured on "
        f"{result['held_out']:,} of {SPLITS[result['split']]} after the last step. MiniLM-L6 is fine-tuned for "
        f"{result['teacher_epochs']:g} epochs, both students of half its layers{_which(result)} start from {start} and "
        f"train for {result['epochs']:g}; learning rate {result['learning_rate']:g}{_teachers_rate(result)}, batch "
        f"{result['batch_size']}, `kd_weight={result['kd_weight']:g}`, "
        f"`kd_temperature={result['kd_temperature']:g}`{_hidden(result)}; {result['precision']}, {result['device']}. "
        "Speed is that of inference over the teacher's."
    )


def _teachers_rate(result: dict[str, Any]) -> str:
    rate = result.get("teacher_learning_rate", result["learning_rate"])
    return "" if rate == result["learning_rate"] else f" (the teacher's {rate:g})"


def _which(result: dict[str, Any]) -> str:
    """Which layers these are, where they are not evenly spaced."""
    layers = result.get("student_layers")
    return f" ({', '.join(map(str, layers))}, counted from 0)" if isinstance(layers, list) else ""


def _hidden(result: dict[str, Any]) -> str:
    weight = result.get("kd_hidden_weight")
    return f', `kd_hidden_weight={weight:g}`, `kd_hidden_loss="{result["kd_hidden_loss"]}"`' if weight else ""


def _row(name: str, row: dict[str, Any]) -> list[str]:
    return [
        name,
        *(percent(row[model]) for model in MODELS),
        percent(row["kept"]),
        _points(row),
        f"{row['speed_up']:.2f}",
    ]


def _points(row: dict[str, Any]) -> str:
    return f"{100 * (row['student'] - row['student alone']):+.1f}"


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """
    Example:
        >>> same = {"student alone": 0.7, "speed_up": 2.0}
        >>> means = _means([{"teacher": 0.8, "student": 0.8, **same}, {"teacher": 1, "student": 0.7, **same}])
        >>> round(means["student"], 3), round(means["kept"], 3)
        (0.75, 0.833)
    """
    means = {name: statistics.fmean(row[name] for row in rows) for name in (*MODELS, "speed_up")}
    return {**means, "kept": means["student"] / means["teacher"]}
