"""A run of a Trainer on a task: what is trained, from which checkpoint, and what is left in the folder."""

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..augment import AugmentedTexts
from ..config import SATConfig
from ..trainer import SATTrainer
from ..trainer.numbered_data import NumberedDataMixin
from ..trainer.renamed_weights import RenamedWeightsMixin
from .results import Result, add_corrections

MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "labels")


@dataclass
class Task:
    """What is trained, whichever Trainer does it.

    Args:
        train: training examples with the column "labels", and "clean_labels" where the noise was injected.
        validation: held-out examples; None leaves the accuracy open.
        make_model: a new model, the same at each call; keyword arguments, where it takes any, go to `from_pretrained`.
        title: data and model in a line.
        collator, processing_class, compute_metrics: as `transformers.Trainer` takes them.
        metric: the held-out score that counts, a key of what `compute_metrics` returns, higher being better.
        views: what is trained on in place of `train`, where its texts are augmented.
        all_cores: whether the model has work for more cores than one.
        export: what else is made of a trained model that lies in a folder; returns the folder it leaves.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    make_model: Callable[[], torch.nn.Module]
    title: str = ""
    collator: Any = None
    processing_class: Any = None
    compute_metrics: Callable | None = None
    metric: str = "accuracy"
    views: AugmentedTexts | None = None
    all_cores: bool = True
    export: Callable[[str], str] | None = None


class ResumableTrainer(RenamedWeightsMixin, Trainer):
    """The plain Trainer, but that it resumes from checkpoints of ViTs too."""


class EpochTellingTrainer(NumberedDataMixin, ResumableTrainer):
    """The plain Trainer, but that it tells its data set the epoch, which upstream does with some samplers alone."""


def trainer_of(kind: type[Trainer], task: Task, args: SATConfig, **more: Any) -> Trainer:
    """A Trainer for the task; `more` are further arguments of its class."""
    if kind is Trainer:
        kind = ResumableTrainer if task.views is None else EpochTellingTrainer
    return kind(
        model=task.make_model(),
        args=args,
        train_dataset=task.train if task.views is None else task.views,
        eval_dataset=task.validation,
        data_collator=task.collator,
        processing_class=task.processing_class,
        compute_metrics=task.compute_metrics,
        **more,
    )


def train_and_evaluate(trainer: Trainer, name: str, metric: str = "accuracy") -> Result:
    """Train, from the checkpoint that the Trainer's arguments name, and measure after the last step."""
    checkpoint = _checkpoint(trainer.args)
    seconds = trainer.train(resume_from_checkpoint=checkpoint).metrics["train_runtime"]
    result = Result(name, seconds, metric=metric, resumed=checkpoint is not None)
    logged = f"eval_{metric}"
    result.score_by_epoch = [log[logged] for log in trainer.state.log_history if logged in log]
    result.score = held_out_score(trainer, metric)
    return result


def held_out_score(trainer: Trainer, metric: str = "accuracy") -> float | None:
    """The metric on the held-out examples; None where there are none."""
    return None if trainer.eval_dataset is None else trainer.evaluate().get(f"eval_{metric}")


def batches_of(
    task: Task, rows: datasets.Dataset, args: SATConfig, most: int | None = None
) -> list[dict[str, torch.Tensor]]:
    """Rows of a task as its model takes them, in batches of evaluation, on the device; at most so many batches."""
    rows = rows.select_columns([name for name in MODEL_COLUMNS if name in rows.column_names])
    loader = DataLoader(rows, batch_size=args.per_device_eval_batch_size, collate_fn=task.collator)
    return [{name: value.to(args.device) for name, value in batch.items()} for batch in islice(loader, most)]


def save_run(trainer: SATTrainer, result: Result, task: Task) -> None:
    """Leave model and label report in the run's folder, and count the corrections in its result."""
    trainer.save_model()
    result.folders = [trainer.args.output_dir]
    if task.export is not None and trainer.is_world_process_zero():
        result.folders.append(task.export(trainer.args.output_dir))
    if trainer.args.label_correction == "none":
        return
    report = trainer.label_report()
    add_corrections(result, report, task.train)
    if trainer.is_world_process_zero():
        report.save(trainer.args.output_dir)


def quiet_args(args: SATConfig) -> SATConfig:
    """A copy that pins no memory on CPU, which would only warn, at every loader."""
    args = copy.copy(args)
    args.dataloader_pin_memory &= args.device.type != "cpu"
    return args


def args_below(args: SATConfig, folder: str, **changes: Any) -> SATConfig:
    """Arguments of a run beside the main one: in a folder below its own, resumed from what lies there."""
    resumes = _resume_from(args) is not None
    args = copy.copy(args)
    args.output_dir = os.path.join(args.output_dir, folder)
    args.resume_from_checkpoint = "true" if resumes else None
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def _checkpoint(args: SATConfig) -> str | None:
    resume = _resume_from(args)
    if resume is not True:
        return resume
    return _last_whole_checkpoint(args.output_dir)


def _last_whole_checkpoint(folder: str) -> str | None:
    """The last checkpoint in a folder; not one that a killed run has begun to write, which has no state yet."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = {int(found[1]): os.path.join(folder, name) for name in names if (found := pattern.fullmatch(name))}
    whole = [step for step, path in steps.items() if os.path.isfile(os.path.join(path, TRAINER_STATE_NAME))]
    return steps[max(whole)] if whole else None


def _resume_from(args: SATConfig) -> str | bool | None:
    """Upstream's flag is a string: a path, or "true" for the last checkpoint, as `Trainer.train` takes it."""
    words = {"true": True, "false": None, "none": None}
    value = args.resume_from_checkpoint
    return words.get(str(value).lower(), value)


def length_of(args: SATConfig) -> str:
    return f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
