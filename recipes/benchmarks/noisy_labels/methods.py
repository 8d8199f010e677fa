"""The methods of the grid: a row of a table says how each is run.

Settings are fixed: none depends on a column's noise. Those of a peer are its paper's; where the paper tunes one by the
noise, the row says which value stands for all. `name:setting=value:...` on a command line is a method with other
settings, for ablations.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OURS, PEER, REFERENCE = "ours", "peer", "reference"
FOLDS = 5


@dataclass(frozen=True)
class Method:
    """How a method is run.

    Args:
        role: "ours", "peer", or "reference": what no one has in practice, clean labels.
        settings: of `SATConfig` where SATTrainer runs it, of `TrainingArguments` where the plain Trainer does.
        plain: whether the plain Trainer runs it.
        labels: what is trained on: "given", "clean", or what cleanlab leaves, "filtered".
        start_share: share of the epochs after which correction starts, where the paper gives it so.
        trainings: how many trainings it takes, the cost in units of one.
        version: part of a cell's key; raise it when the method's code has changed, and its cells run anew.
    """

    role: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False
    labels: str = "given"
    start_share: float | None = None
    trainings: int = 1
    version: int = 1

    def settings_for(self, epochs: float) -> dict[str, Any]:
        """Settings of a run of so many epochs."""
        start = {} if self.start_share is None else {"sat_start_epoch": self.start_share * epochs}
        return {**start, **self.settings}


def _library(label_correction: str) -> Method:
    """A peer that the library has, with its paper's constants as they are the defaults there."""
    return Method(PEER, {"label_correction": label_correction})


METHODS = {
    "ce": Method(PEER, plain=True),
    # Wei et al. 2022 (https://arxiv.org/abs/2106.04149) choose the rate by the noise, from 0.8 to -8. Here 0.1, the
    # usual one, stands for all positive rates, and -0.4 for all negative ones.
    "ls_positive": Method(PEER, {"label_smoothing_factor": 0.1}, plain=True),
    "ls_negative": Method(PEER, {"label_smoothing_factor": -0.4}, plain=True),
    "gce": _library("gce"),
    "sce": _library("sce"),
    "elr": _library("elr"),
    "bootstrap": _library("bootstrap"),
    "sat_paper": Method(PEER, {"sat_momentum": 0.9}, start_share=0.3),
    "sat": Method(OURS, version=3),
    # Two passes a step.
    "sam": Method(OURS, {"label_correction": "none", "sam": "sam"}, trainings=2),
    "asam": Method(OURS, {"label_correction": "none", "sam": "asam"}, trainings=2),
    "sat_sam": Method(OURS, {"sam": "sam"}, trainings=2, version=3),
    # Trains five times to find wrong labels and once more on the rest.
    "cleanlab": Method(PEER, plain=True, labels="filtered", trainings=FOLDS + 1),
    "oracle": Method(REFERENCE, plain=True, labels="clean"),
}


def method(name: str) -> Method:
    """A method of the table, or one with other settings.

    Example:
        >>> method("sat:sat_momentum=0.6:sat_start_epoch=2").settings_for(10)
        {'sat_momentum': 0.6, 'sat_start_epoch': 2}
    """
    base, *changes = name.split(":")
    if base not in METHODS:
        raise ValueError(f"method {base!r}: choose of {', '.join(METHODS)}")
    found = METHODS[base]
    changed = {}
    for change in changes:
        setting, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"method {name!r}: write {base}:setting=value, not {change!r}")
        changed[setting] = _value(value)
    return found if not changed else Method(**{**vars(found), "settings": {**found.settings, **changed}})


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
