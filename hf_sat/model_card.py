"""What a model card says of the methods a model was trained with."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .audit import LabelReport

# Name, paper and its address.
PAPERS = {
    "sat": ("Self-Adaptive Training", "Huang et al. 2020", "2002.10319"),
    "elr": ("Early-Learning Regularization", "Liu et al. 2020", "2007.00151"),
    "gce": ("Generalized cross-entropy", "Zhang and Sabuncu 2018", "1805.07836"),
    "sce": ("Symmetric cross-entropy", "Wang et al. 2019", "1908.06112"),
    "bootstrap": ("Soft bootstrapping", "Reed et al. 2015", "1412.6596"),
    "sam": ("Sharpness-Aware Minimization", "Foret et al. 2021", "2010.01412"),
    "asam": ("Adaptive Sharpness-Aware Minimization", "Kwon et al. 2021", "2102.11600"),
    "kd": ("Knowledge distillation", "Hinton et al. 2015", "1503.02531"),
}
TAG = "hf_sat"
# Headings of transformers' card, before the first of which ours goes.
FOLLOWING = ("### Training results", "### Framework versions")


@dataclass
class CardEntry:
    """A method that took part in the training of a model.

    Args:
        method: its key in `PAPERS`.
        settings: by name, as the run had them.
        findings: what came of it, by a word or two.
    """

    method: str
    settings: dict[str, Any]
    findings: dict[str, str] = field(default_factory=dict)


def settings_of(arguments: Any, prefixes: Sequence[str]) -> dict[str, Any]:
    """Fields of a dataclass of settings whose names begin in one of these ways, without those left at None."""
    names = [f.name for f in dataclasses.fields(arguments) if f.name.startswith(tuple(prefixes))]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def found_by_report(report: LabelReport) -> dict[str, str]:
    """What a label report says in a card."""
    judged = int((report.columns["n_visits"] > 0).sum())
    findings = {"training labels": f"{judged:,}", "corrected": f"{report.num_corrected:,}"}
    if (rate := report.noise_rate) is not None:
        findings["held to be wrong"] = f"{report.num_issues:,}"
        findings["estimated noise rate"] = f"{rate.rate:.1%} (95 % interval {rate.low:.1%} to {rate.high:.1%})"
    return findings


def card_section(entries: Sequence[CardEntry]) -> str:
    """The part of a card that is about these methods, in Markdown.

    Example:
        >>> print(card_section([CardEntry("sam", {"sam_rho": 0.1}, {"last sharpness": "0.02"})]))
        ### Methods
        <BLANKLINE>
        Trained with hf_sat:
        <BLANKLINE>
        **Sharpness-Aware Minimization** ([Foret et al. 2021](https://arxiv.org/abs/2010.01412))
        <BLANKLINE>
        | | |
        | --- | --- |
        | `sam_rho` | 0.1 |
        | last sharpness | 0.02 |
        <BLANKLINE>
    """
    parts = ["### Methods\n\nTrained with hf_sat:\n"]
    for entry in entries:
        name, paper, number = PAPERS[entry.method]
        rows = [f"| `{key}` | {value} |" for key, value in entry.settings.items()]
        rows += [f"| {key} | {value} |" for key, value in entry.findings.items()]
        table = "\n".join(["| | |", "| --- | --- |", *rows])
        parts.append(f"**{name}** ([{paper}](https://arxiv.org/abs/{number}))\n\n{table}\n")
    return "\n".join(parts)


def with_section(card: str, section: str) -> str:
    """A card of transformers' with our section in it, before its results; at its end if it is of another make."""
    at = min((card.find(f"\n{heading}") for heading in FOLLOWING if f"\n{heading}" in card), default=len(card))
    return f"{card[:at].rstrip()}\n\n{section}{card[at:]}"
