"""The loop that every method goes through, and what is measured of it."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.results import accuracy

from .data import Examples
from .methods import FOLDS, method
from .models import Setting

LEARNING_RATE = 1e-4
BATCH_SIZE = 32


@dataclass
class Outcome:
    """What came of a cell. Shares are in [0, 1], None where there is nothing to say.

    Args:
        accuracy: on the held-out examples after the last epoch.
        accuracy_by_epoch: the same after each.
        seconds: wall time of all its trainings, evaluation included.
        num_train, num_held_out: examples; `wrong`: share of the training labels that is wrong.
        auroc, average_precision: of finding the wrong labels by `label_quality`.
        found: labels held to be wrong; `found_precision`, `found_recall`: of those that are.
        corrected_precision: share of the changed labels that became the clean one; `corrected_recall`: share of the
            wrong ones that did.
        log: last entries of the library in the Trainer's log, the onset and the momentum among them.
    """

    accuracy: float
    accuracy_by_epoch: list[float]
    seconds: float
    num_train: int
    num_held_out: int
    wrong: float
    auroc: float | None = None
    average_precision: float | None = None
    found: int | None = None
    found_precision: float | None = None
    found_recall: float | None = None
    corrected_precision: float | None = None
    corrected_recall: float | None = None
    log: dict[str, float] = field(default_factory=dict)


def run_method(
    name: str, made: Setting, train: Examples, held_out: Examples, epochs: float, seed: int, bf16: bool, **more: Any
) -> Outcome:
    """Run a method.

    Args:
        made: model and preparation.
        more: further training arguments, for all its trainings.
    """
    chosen = method(name)
    kind, config = (Trainer, TrainingArguments) if chosen.plain else (SATTrainer, SATConfig)
    run = partial(fit, kind, config, made, epochs=epochs, seed=seed, bf16=bf16, **chosen.settings_for(epochs), **more)
    begun = time.perf_counter()
    found: dict[str, Any] = {}
    kept = train.with_clean_labels() if chosen.labels == "clean" else train
    if chosen.labels == "filtered":
        quality, issues = _find_issues(run, made, train, seed)
        found = detection(train, quality, issues)
        kept = train.select(np.flatnonzero(~issues))
    trainer = run(kept, held_out)
    if not chosen.plain and chosen.settings.get("label_correction") != "none":
        columns = trainer.label_report().columns
        found = detection(train, columns["label_quality"], columns["is_label_issue"], columns["corrected_label"])
    curve = [log["eval_accuracy"] for log in trainer.state.log_history if "eval_accuracy" in log]
    return Outcome(
        accuracy=curve[-1],
        accuracy_by_epoch=curve,
        seconds=round(time.perf_counter() - begun, 1),
        num_train=len(train),
        num_held_out=len(held_out),
        wrong=round(float(train.is_wrong.mean()), 4),
        log=_last_logs(trainer),
        **found,
    )


def fit(
    kind: type[Trainer],
    config: type,
    made: Setting,
    train: Examples,
    held_out: Examples | None,
    callback: Callable[[Trainer], TrainerCallback] | None = None,
    **settings: Any,
) -> Trainer:
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        args = config(
            output_dir=folder,
            num_train_epochs=settings.pop("epochs"),
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=8 * BATCH_SIZE if on_gpu else 4 * BATCH_SIZE,
            save_strategy="no",
            eval_strategy="no" if held_out is None else "epoch",
            logging_strategy="epoch",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            **settings,
        )
        trainer = kind(
            made.make_model(),
            args,
            data_collator=made.collator,
            train_dataset=made.prepare(train),
            eval_dataset=held_out and made.prepare(_by_length(held_out)),
            compute_metrics=accuracy,
        )
        trainer.remove_callback(PrinterCallback)
        if callback is not None:
            trainer.add_callback(callback(trainer))
        trainer.train()
    return trainer


def _by_length(examples: Examples) -> Examples:
    """Texts of about the same length side by side, so that batches are padded less."""
    if isinstance(examples.inputs, np.ndarray):
        return examples
    return examples.select(np.argsort([len(text) for text in examples.inputs], kind="stable"))


def _find_issues(fit: Callable, made: Setting, train: Examples, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label quality and suspected labels by cleanlab, from predictions on folds that were not trained on."""
    from cleanlab.filter import find_label_issues  # takes long to import, and no other method needs it
    from cleanlab.rank import get_label_quality_scores

    probabilities = out_of_sample(fit, made, train, seed)
    issues = find_label_issues(train.labels, probabilities, n_jobs=1)
    return get_label_quality_scores(train.labels, probabilities), issues


def out_of_sample(fit: Callable, made: Setting, train: Examples, seed: int) -> np.ndarray:
    """Predicted probabilities, (N, C), each by the training of several that did not see the example."""
    from sklearn.model_selection import KFold

    probabilities = np.zeros((len(train), len(train.classes)))
    for rest, fold in KFold(FOLDS, shuffle=True, random_state=seed).split(train.labels):
        trainer = fit(train.select(rest), None)
        logits = trainer.predict(made.prepare(train.select(fold))).predictions
        probabilities[fold] = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    return probabilities


def detection(
    train: Examples, quality: np.ndarray, issues: np.ndarray, corrected: np.ndarray | None = None
) -> dict[str, float | int | None]:
    """How well the wrong labels were found, and put right where they were changed."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    wrong, issues = train.is_wrong, np.asarray(issues, dtype=bool)
    result = {"found": int(issues.sum()), "found_precision": _share(wrong & issues, issues)}
    if corrected is not None:
        right = issues & (corrected == train.clean)
        result |= {"corrected_precision": _share(right, issues), "corrected_recall": _share(right & wrong, wrong)}
    if wrong.any():
        suspicion = 1.0 - np.nan_to_num(quality, nan=1.0)
        result["found_recall"] = _share(wrong & issues, wrong)
        result["auroc"] = float(roc_auc_score(wrong, suspicion))
        result["average_precision"] = float(average_precision_score(wrong, suspicion))
    return result


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _last_logs(trainer: Trainer) -> dict[str, float]:
    logs: dict[str, float] = {}
    for entry in trainer.state.log_history:
        logs |= {name.removeprefix("sat/"): value for name, value in entry.items() if name.startswith("sat/")}
    return logs
