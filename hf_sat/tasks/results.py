"""What came of the runs, and the table that shows it."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import datasets
import numpy as np
from transformers import EvalPrediction

from ..audit import REPORT_FILE, LabelReport
from ..samples import IGNORED

if TYPE_CHECKING:
    from rich.table import Table

RESULTS_FILE = "results.json"


@dataclass
class Result:
    """What came of a run.

    Args:
        name: the Trainer's.
        seconds: wall time of training; of what was left of it, where `resumed`.
        score: on the held-out examples after the last step, in [0, 1]; accuracy is the share classified as labelled.
        metric: what the score is.
        corrected: training labels changed.
        precision: share of them that are now the clean label; None where that is not known.
        recall: share of the wrong labels that are now the clean label; None likewise.
        resumed: whether the run went on from a checkpoint.
        score_by_epoch: the same after each epoch, where the run evaluated then.
        folders: where its models lie.
    """

    name: str
    seconds: float
    score: float | None = None
    metric: str = "accuracy"
    corrected: int | None = None
    precision: float | None = None
    recall: float | None = None
    resumed: bool = False
    score_by_epoch: list[float] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def add_corrections(result: Result, report: LabelReport, train: datasets.Dataset) -> None:
    """Count what was corrected, and how much of it rightly where clean labels are known.

    Args:
        result: of the run; changed in place.
        report: its labels, in the order of `train`.
        train: the training examples, with "clean_labels" where the noise was injected.
    """
    result.corrected = report.num_corrected
    if "clean_labels" not in train.column_names:
        return
    clean = clean_labels(train)
    given, corrected = report.columns["given_label"], report.columns["corrected_label"]
    right = int(((corrected != given) & (corrected == clean)).sum())
    wrong = int((given != clean).sum())
    result.precision = right / result.corrected if result.corrected else None
    result.recall = right / wrong if wrong else None


def clean_labels(train: datasets.Dataset) -> np.ndarray:
    """The clean label of each row of a report: of each example, or of each token that has a label.

    Args:
        train: the training examples, with "clean_labels" and, where these are lists, "labels".
    """
    clean = train.with_format(None)["clean_labels"][:]
    if not isinstance(clean[0], list):
        return np.asarray(clean)
    given = np.concatenate(train.with_format(None)["labels"][:])
    return np.concatenate(clean)[given != IGNORED]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of the examples whose highest logit is the label's; a `compute_metrics`."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}


def save_results(results: list[Result], folder: str) -> None:
    """Write `results.json` into `folder`."""
    with open(os.path.join(folder, RESULTS_FILE), "w", encoding="utf-8") as file:
        json.dump([asdict(result) for result in results], file, indent=2)


def results_table(results: list[Result], title: str, num_held_out: int) -> "Table":
    """The results as a `rich.table.Table`, a row for each."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("run")
    metric = results[-1].metric
    for header in (f"{metric} at the end\n({num_held_out} held out)", "labels\ncorrected", "precision", "recall"):
        table.add_column(header, justify="right")
    table.add_column("training\ntime", justify="right")
    for result in results:
        cells = (_share(result.score), result.corrected, _share(result.precision), _share(result.recall))
        time = f"{result.seconds:.0f} s{' (resumed)' if result.resumed else ''}"
        table.add_row(result.name, *("-" if cell is None else str(cell) for cell in cells), time)
    return table


def print_results(results: list[Result], title: str, num_held_out: int, folder: str) -> None:
    """Print the table and where the model and the label report lie."""
    from rich.console import Console

    Console().print(results_table(results, title, num_held_out))
    if results[-1].folders:
        print(f"Model: {', '.join(results[-1].folders)}")
    if results[-1].corrected is not None:
        print(f"Label report, a row for every training label: {os.path.join(folder, REPORT_FILE)}")


def _share(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"
