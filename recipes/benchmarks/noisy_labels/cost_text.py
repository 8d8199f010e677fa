"""Sentences and tables about cost, from the JSON that the scripts of cost leave."""

import json
from pathlib import Path
from typing import Any

from .methods import METHODS
from .tables import NONE, in_order, markdown

NOT_MEASURED = "Not measured yet."
MIB = 2**20
TWO_PROCESSES = "step_time_2_processes.json"


def read(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / name
    return json.loads(path.read_text()) if path.exists() else None


def listed(parts: list[str]) -> str:
    """
    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def cost_paragraph(folder: Path) -> str:
    """README's words about the cost of a step."""
    sentences = [_of_one_process(read(folder, "step_time.json")), _of_processes(read(folder, TWO_PROCESSES))]
    sentences.append(_of_neighbors(read(folder, "neighbors_cost.json")))
    costs = read(folder, "cost.json")
    if costs:
        sentences.append(
            f"By method: {_by_method(costs['rows'])} ({costs['device']}; `recipes/benchmarks/cost.py`; memory is in "
            "[recipes/benchmarks](recipes/benchmarks/README.md))."
        )
    return "\n".join(sentence for sentence in ["**Cost.**", *sentences] if sentence)


def _of_one_process(result: dict | None) -> str:
    if result is None:
        return "The time of a step has not been measured yet."
    ratios = listed([f"{row['ratio']:.2f}" for row in result["rows"]])
    sizes = listed([f"{row['rows']:,}" for row in result["rows"]])
    clock = result.get("clock", "from its begin to its end")
    batch = f"batch {result['batch_size']}, " if "batch_size" in result else ""
    return (
        f"A step of SAT, {clock}, takes {ratios} times the plain Trainer's at {sizes} examples "
        f"(4-layer BERT, {batch}{result['device']}, medians of steps in turn; `recipes/benchmarks/step_time.py`)."
    )


def _of_processes(result: dict | None) -> str:
    if result is None:
        return ""
    row = max((row for row in result["rows"] if "message_bytes" in row), key=lambda row: row["rows"])
    return (
        f"On two processes each sends the other {row['message_bytes']:,} bytes a step and waits for "
        f"{row['wait_ms']:.2f} ms, in a step of {row['sat_ms']:.0f} ms, {row['ratio']:.2f} times the plain one's."
    )


def _of_neighbors(result: dict | None) -> str:
    if result is None:
        return ""
    return (
        f"With {result['neighbors']} neighbors among as many remembered examples as there can be it takes "
        + listed([f"{row['ratio']:.2f} times with {classes} classes" for classes, row in result["by_classes"].items()])
        + f" the plain one's ({result['device']}; `recipes/benchmarks/neighbors_cost.py`)."
    )


def _by_method(rows: list[dict]) -> str:
    return listed([f"`{row['method']}` {row['ratio']:.2f}" for row in _sorted(rows)])


def _sorted(rows: list[dict]) -> list[dict]:
    by_name = {row["method"]: row for row in rows}
    return [by_name[name] for name in in_order(set(by_name), list(METHODS))]


def top_k_sentence(folder: Path, k: int = 8) -> str:
    """What storing k entries of each soft target loses."""
    result = read(folder, "top_k.json")
    row = next((row for row in result["rows"] if row["k"] == k), None) if result else None
    if row is None:
        return "What is lost has not been measured yet."
    return (
        f"On {result['examples']:,} questions of TREC with {result['classes']} fine classes {k} entries differ from "
        f"all of them by {row['mean']:.2f} in total variation and name the same label for {row['same_label']:.1%} of "
        "the questions (`recipes/benchmarks/top_k.py`)."
    )


def step_cost_table(folder: Path) -> str:
    """A row per method: time of a step over the plain Trainer's, and peak memory beyond it."""
    result = read(folder, "cost.json")
    if result is None:
        return NOT_MEASURED
    rows = [
        [f"`{row['method']}`", f"{row['ratio']:.3f}", f"{row['plain_ms']:.1f}", _mib(row)]
        for row in _sorted(result["rows"])
    ]
    caption = (
        f"4-layer BERT of width 256, batch {result['batch_size']} of 32 tokens, {result['examples']:,} examples, "
        f"{result['steps']} steps in turn, {result['device']}. Memory: {result['memory']}."
    )
    return f"{caption}\n\n{markdown(rows, ['method', 'time over plain', 'plain (ms)', 'memory over plain (MiB)'])}"


def _mib(row: dict) -> str:
    extra = row.get("extra_bytes")
    return NONE if extra is None else f"{extra / MIB:+.1f}"


def sam_cost_table(folder: Path) -> str:
    """A row per model and way: time of a step, and transient memory over the trainable weights'."""
    result = read(folder, "sam_cost.json")
    if result is None:
        return NOT_MEASURED
    header = ["model", "way", "time (ms)", "over plain", "over plain and one pass", "extra memory over weights"]
    rows = [
        [model["model"], name, _number(way.get("ms"), 1), *(_number(way.get(key)) for key in SAM_RATIOS)]
        for model in result["models"]
        for name, way in model["ways"].items()
    ]
    sizes = "; ".join(
        f"{model['model']}: {model['parameters'] / 1e6:.1f} M parameters, batch {model['batch_size']} of "
        f"{model['tokens']} tokens"
        for model in result["models"]
    )
    caption = (
        f"4-layer BERTs, {sizes}; {result['steps']} steps in turn, {result['device']}. Memory: {result['memory']}."
    )
    return f"{caption}\n\n{markdown(rows, header)}"


SAM_RATIOS = ("over_plain", "over_plain_and_pass", "extra_memory")


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"
