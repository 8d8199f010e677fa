"""Table and figure of the wrong labels found, beside cleanlab's, from the JSON that `audit.py` leaves."""

import statistics
from pathlib import Path
from typing import Any

from .columns import Column
from .cost_text import NOT_MEASURED, read
from .tables import NONE, markdown, percent

FIGURE = "figures/audit.png"
BOTH = {"report": "one run of SATTrainer", "cleanlab": "cleanlab, five folds"}
COLOURS = {"report": "C0", "cleanlab": "C7"}


def audit_table(folder: Path) -> str:
    """A row for each column: how well wrong labels are found, and the noise rate that is estimated, by both."""
    result = read(folder, "audit.json")
    if result is None:
        return NOT_MEASURED
    runs, first = result["runs"], result["runs"][0]
    images = next((f", images: MobileNetV2 at {run['image_size']} pixels" for run in runs if _is_image(run)), "")
    costs = [_cost(run) for run in runs]
    caption = (
        f"{first['samples']:,} examples each, {first['epochs']} epochs of the first {first['layers']} layers of "
        f"MiniLM-L6{images}, means over the seeds; {first['device'].split(',')[0]}. In each pair one run of "
        "SATTrainer stands first, as `hf-sat audit` trains (texts of like length together; embeddings, or the lower "
        "half of the convolutions, left as they are, ended where the order of the labels has settled), and cleanlab on "
        "out-of-sample predictions of five trainings second. The five take "
        f"{statistics.median(costs):.1f} times the processor time of the one ({min(costs):.1f} at least), without the "
        "training on what is left, which the one has done already."
    )
    rows = []
    for column, of in _by_column(runs).items():
        pairs = [_pair(of, name, ".3f") for name in ("auroc", "average_precision")]
        rates = " / ".join(percent(_mean(of, who, "rate")) for who in BOTH)
        wrong = percent(statistics.fmean(run["wrong"] for run in of))
        rows.append([column, *pairs, wrong, rates, str(len(of))])
    header = ["data/noise", "AUROC", "average precision", "labels wrong (%)", "estimated (%)", "seeds"]
    return f"{caption}\n\n{markdown(rows, header)}"


def audit_time_sentence(folder: Path) -> str:
    """What the command takes for a file."""
    result = read(folder, "audit_time.json")
    if result is None:
        return NOT_MEASURED
    return (
        f"{result['rows']:,} sentences of {result['column'].partition('/')[0].upper()} take "
        f"{result['seconds'] / 60:.1f} minutes on {result['cores']} cores, from the call to the page "
        f"({result['training']}; {result['device']}; `recipes/benchmarks/audit_time.py`)."
    )


def _by_column(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each column; those on data from the Hub, whose splits differ, under a name of their own."""
    columns = {}
    for run in runs:
        source = " from the Hub" if run["source"] == "hub" else ""
        columns.setdefault(f"{run['column']}{source}", []).append(run)
    return columns


def _is_image(run: dict[str, Any]) -> bool:
    return Column.parse(run["column"]).is_image


def _cost(run: dict[str, Any]) -> float:
    return run["cleanlab"]["cpu_seconds"] / run["report"]["cpu_seconds"]


def _mean(runs: list[dict[str, Any]], who: str, name: str) -> float | None:
    values = [run[who][name] for run in runs if run[who].get(name) is not None]
    return statistics.fmean(values) if values else None


def _pair(runs: list[dict[str, Any]], name: str, form: str) -> str:
    values = [_mean(runs, who, name) for who in BOTH]
    return NONE if None in values else " / ".join(format(value, form) for value in values)


def draw(folder: Path, path: Path) -> None:
    """Average precision and estimated noise rate by column, of both; without results, nothing."""
    result = read(folder, "audit.json")
    if result is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = result["runs"]
    of = _by_column(runs)
    columns = list(of)[::-1]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.34 * len(columns) + 1.3), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("average_precision", "rate")):
        for who, label in BOTH.items():
            values = [_mean(of[column], who, name) for column in columns]
            known = [(value, at) for at, value in enumerate(values) if value is not None]
            axis.scatter(*zip(*known), label=label, color=COLOURS[who], marker="o" if who == "report" else "s", s=36)
        axis.grid(alpha=0.3)
    wrong = [statistics.fmean(run["wrong"] for run in of[column]) for column in columns]
    axes[1].scatter(wrong, range(len(columns)), marker="|", s=180, color="k", label="labels that are wrong")
    axes[0].set_yticks(range(len(columns)), columns)
    axes[0].set_title("average precision of the wrong labels found", fontsize=10)
    axes[1].set_title("share of wrong labels, estimated", fontsize=10)
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
