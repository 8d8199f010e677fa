"""What every fine-tuning run is told, whatever it classifies: data, model, noise."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets

from ..augment import TextAugmenter
from ..config import SATConfig, refuse
from .data import ROW, take_sample
from .options import OptionParser

# A run without data of the user's logs and saves each epoch, and keeps its last checkpoint.
EACH_EPOCH = {"logging_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1}


@dataclass
class RunOptions:
    """Data, model and noise of a run.

    Args:
        model_name_or_path: on the Hub or in a folder; default one of the task's own, offline.
        dataset_name: data set on the Hub or in a folder. Without it and `train_file`, the task's offline data.
        dataset_config_name: configuration of that data set.
        train_file: file to train on.
        validation_file: file of held-out examples.
        label_column: default "label", "labels" or the only `ClassLabel`.
        max_train_samples: train on so many examples, drawn at random (`seed`); the report has their rows in the whole.
        max_eval_samples: hold out so many.
        noise_rate: share of the training labels made wrong, in [0, 1).
        noise_type: how; see `hf_sat.noise.inject_label_noise`.
        compare: train the plain Trainer on the same labels and seed too.

    Raises:
        ValueError: for numbers out of their range.
    """

    HELP_GROUP = "data and model"  # of `--help`

    model_name_or_path: str | None = field(default=None, metadata={"help": "Model on the Hub or in a folder."})
    dataset_name: str | None = field(default=None, metadata={"help": "Data set on the Hub or in a folder."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of that data set."})
    train_file: str | None = field(default=None, metadata={"help": "File to train on."})
    validation_file: str | None = field(default=None, metadata={"help": "File of held-out examples."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on so many examples."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Hold out so many examples."})
    noise_rate: float = field(default=0.0, metadata={"help": "Share of the training labels made wrong."})
    noise_type: Literal["symmetric", "pair", "instance"] = field(
        default="symmetric", metadata={"help": "How they are made wrong."}
    )
    compare: bool = field(default=True, metadata={"help": "Train the plain Trainer on the same labels and seed too."})

    def __post_init__(self):
        refuse_below(self, {"max_train_samples": 2, "max_eval_samples": 1})
        if not 0.0 <= self.noise_rate < 1.0:
            raise refuse("noise_rate", self.noise_rate, "give a share in [0, 1); 0.4 means that 40% end wrong.")


@dataclass
class ReadingOptions(RunOptions):
    """How an encoder reads the texts of a run. What else is in it, see [`RunOptions`].

    Args:
        max_length: tokens of a text, longer ones are cut.
        augment: operations on the training texts with their rates, "deletion:0.1,swap:0.1"; see
            `hf_sat.augment.TextAugmenter`.
        augment_lock: what they leave alone, separated by commas: "urls,numbers".

    Raises:
        ValueError: for numbers out of their range, and operations that are not known.
    """

    max_length: int = field(default=128, metadata={"help": "Tokens of a text; longer ones are cut."})
    augment: str | None = field(
        default=None, metadata={"help": 'Operations on the training texts with their rates: "deletion:0.1,swap:0.1".'}
    )
    augment_lock: str | None = field(default=None, metadata={"help": 'What they leave alone: "urls,numbers".'})

    def __post_init__(self):
        super().__post_init__()
        refuse_below(self, {"max_length": 3})
        self.augmenter(seed=0)

    def augmenter(self, seed: int) -> TextAugmenter | None:
        """What changes the training texts, if anything."""
        if not self.augment:
            return None
        return TextAugmenter(
            self.augment, seed=seed, locked=[name for name in (self.augment_lock or "").split(",") if name]
        )


def refuse_below(options: Any, least: Mapping[str, int]) -> None:
    """Refuse settings that are below their least value; None is left alone."""
    for setting, lowest in least.items():
        value = getattr(options, setting)
        if value is not None and value < lowest:
            raise refuse(setting, value, f"give a whole number >= {lowest}.")


def training_sample(train: datasets.Dataset, options: RunOptions, args: SATConfig) -> datasets.Dataset:
    """The rows to train on. Sets `args.sample_id_column`, where it is free, when they are a part of the data."""
    if args.sample_id_column is None and len(train) > (options.max_train_samples or len(train)):
        args.sample_id_column = ROW
    return take_sample(train, options.max_train_samples, args.seed, keep_rows=args.sample_id_column == ROW)


def run_title(model: str, examples: str, classes: str, options: RunOptions) -> str:
    """Model and data in a line.

    Example:
        >>> run_title("ViT", "900 images (digits)", "10 classes", RunOptions(noise_rate=0.4))
        'ViT on 900 images (digits), 10 classes, 40% symmetric noise'
    """
    noise = f", {options.noise_rate:.0%} {options.noise_type} noise" if options.noise_rate else ""
    return f"{model} on {examples}, {classes}{noise}"


def source_of(options: RunOptions, offline: str) -> str:
    """Where the data come from, in a word or two."""
    return options.dataset_name or os.path.basename(options.train_file or "") or offline


def read_run_options(
    argv: Sequence[str],
    kinds: Sequence[type],
    offline: Mapping[str, Any],
    own_data: Mapping[str, Any],
    instead: Mapping[str, Mapping[str, Any]] | None = None,
    **parser: Any,
) -> tuple:
    """Options of a run from its command line and environment; defaults differ with and without data of the user's.

    Args:
        argv: command line without the program's name.
        kinds: of the options, a dataclass each; a [`RunOptions`] is among them.
        offline, own_data: these defaults, by setting.
        instead: those that stand in for `offline` where the user names a setting, by that setting.
        parser: further arguments of [`OptionParser`].

    Returns:
        The options, one of each kind, and the `SATConfig`.

    Raises:
        ValueError: see `OptionParser.read`.
    """
    epilog = "Without data of yours the defaults are " + ", ".join(f"{name} {offline[name]}" for name in offline) + "."
    description = "A setting may also stand in the environment, as HF_SAT_<SETTING>, weaker than file and flags."
    parser = OptionParser([*kinds, SATConfig], description=description, epilog=epilog, **parser)
    named = parser.parse_known_args(parser.given_flags(argv, os.environ))[0]
    has_data = named.dataset_name or named.train_file or named.validation_file
    stand_ins = (its for setting, its in (instead or {}).items() if getattr(named, setting))
    return parser.read(argv, own_data if has_data else next(stand_ins, offline), os.environ)
