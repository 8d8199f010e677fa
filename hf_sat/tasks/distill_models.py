"""Teacher and student of a text classification: which models they are, and the tasks they are trained on."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import datasets
import numpy as np
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from ..config import SATConfig, refuse
from ..quiet import errors_only
from ..students import create_student
from ..teacher import class_order
from ..teacher_columns import add_teacher_columns
from .run import Task
from .text import TextOptions, Texts, encoder_title, packaged_encoder, prepared_task, title_of


@dataclass
class Pair:
    """A teacher and its student, and the same data for both.

    Args:
        teacher: its task; `make_model` gives the same model at each call, trained or not.
        student: its task, but for the model.
        make_student: teacher -> a new student, the same at each call.
        is_trained: whether the teacher knows the classes already.
        teacher_tokenizer: where it is not the student's.
    """

    teacher: Task
    student: Task
    make_student: Callable[[PreTrainedModel], PreTrainedModel]
    is_trained: bool
    teacher_tokenizer: Any = None


def teacher_and_student(
    texts: Texts,
    options: TextOptions,
    args: SATConfig,
    teacher_name: str | None,
    layers: int | list[int] | None,
    start: str = "teacher",
) -> Pair:
    """Load the models that the options of a run describe, and prepare the data for them.

    Args:
        texts: the labelled texts.
        options: `model_name_or_path` is the student; None cuts it from the teacher.
        teacher_name: an encoder, which is yet to be trained, or a classifier of these classes; None for MiniLM-L6.
        layers: of a student that is cut, how many or which; None for half of the teacher's.
        start: its weights; "teacher" are those of the trained one, "pretrained" those before.

    Raises:
        ValueError: for a classifier of as many other classes, a teacher that cannot be cut so, and "pretrained" where
            the teacher is trained already.
    """
    name = teacher_name or packaged_encoder()
    model = trained_classifier(name, len(texts.names), args.kd_teacher_dtype)
    is_trained = model is not None
    if is_trained:
        texts = in_order_of(model, texts)
    prepare = partial(prepared_task, texts, options, args)
    teacher = prepare(name, encoder_title(teacher_name))
    model = model or teacher.make_model()
    teacher = replace(teacher, make_model=lambda: model)
    if options.model_name_or_path is None:
        if start == "pretrained" and is_trained:
            way_out = "the teacher is a trained classifier, whose pretrained weights are not known; name its encoder."
            raise refuse("student_start", start, way_out)
        make_student = _cutter(model, layers, start)
        total, kept = (it.config.num_hidden_layers for it in (model, make_student(model)))
        title = f"{kept} of the {total} layers of {encoder_title(teacher_name)}"
        return Pair(teacher, replace(teacher, title=title_of(title, options, texts)), make_student, is_trained)
    student = prepare(options.model_name_or_path, encoder_title(options.model_name_or_path))
    pair = Pair(teacher, student, lambda _: student.make_model(), is_trained)
    return _with_teacher_columns(pair, texts.column, options, args)


def trained_classifier(name: str, num_classes: int, dtype: str = "auto") -> PreTrainedModel | None:
    """The classifier of that name, whose head is in its checkpoint; None for an encoder, or a head of another size."""
    if AutoConfig.from_pretrained(name).num_labels != num_classes:
        return None
    with errors_only():  # a head of another size is seen below
        model, info = AutoModelForSequenceClassification.from_pretrained(name, dtype=dtype, output_loading_info=True)
    return None if info["missing_keys"] else model


def in_order_of(model: PreTrainedModel, texts: Texts) -> Texts:
    """The texts with their classes numbered as a trained classifier has them; a classifier without names gets theirs.

    Raises:
        ValueError: where it has other classes.
    """
    order = class_order(_NamesOnly(texts.names), model)
    names = texts.names
    if order is not None:
        names = [names[i] for i in np.argsort(order.numpy())]
        texts = replace(
            texts,
            train=_renumbered(texts.train, order.numpy(), names),
            validation=texts.validation and _renumbered(texts.validation, order.numpy(), names),
        )
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    return texts


class _NamesOnly:
    """Stands for a model in a comparison of classes."""

    def __init__(self, names: list[str]):
        self.config = self
        self.id2label = dict(enumerate(names))


def _renumbered(split: datasets.Dataset, order: np.ndarray, names: list[str]) -> datasets.Dataset:
    for column in ("labels", "clean_labels"):
        if column in split.column_names:
            numbers = order[split.with_format(None)[column][:]]
            feature = datasets.ClassLabel(names=names)
            split = split.remove_columns(column).add_column(column, numbers, feature=feature)
    return split


def _cutter(
    teacher: PreTrainedModel, layers: int | list[int] | None, start: str
) -> Callable[[PreTrainedModel], PreTrainedModel]:
    """What cuts the student, tried out before the teacher is trained."""
    total = getattr(teacher.config, "num_hidden_layers", None)
    if layers is None:
        layers = max(1, (total or 2) // 2)
    elif isinstance(layers, list) and total is not None and set(layers) - set(range(total)):
        raise refuse("student_layers", layers, f"the teacher has {total}, counted from 0; give some of them.")
    elif isinstance(layers, int) and total is not None and layers > total:
        raise refuse("student_layers", layers, f"the teacher has {total}; give a smaller number.")
    # In full precision, whatever the teacher's: it is trained.
    untaught = create_student(teacher, layers).float()
    if start == "pretrained":
        return lambda _: copy.deepcopy(untaught)
    return lambda teacher: create_student(teacher, layers).float()


def _with_teacher_columns(pair: Pair, column: str, options: TextOptions, args: SATConfig) -> Pair:
    """Where teacher and student read different tokens, the teacher's are put beside the student's."""
    theirs, ours = pair.teacher.processing_class, pair.student.processing_class
    if type(theirs) is type(ours) and theirs.get_vocab() == ours.get_vocab():
        return pair
    if pair.student.views is not None:
        raise refuse(
            "augment",
            options.augment,
            "teacher and student read different tokens, and the teacher's are made once, not of each view; take a "
            "student with the teacher's tokenizer, or leave it out.",
        )
    with args.main_process_first(desc="tokenising for the teacher"):
        train = add_teacher_columns(pair.student.train, theirs, column, truncation=True, max_length=options.max_length)
    return replace(pair, student=replace(pair.student, train=train), teacher_tokenizer=theirs)
