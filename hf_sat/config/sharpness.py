"""The flags of sharpness-aware minimization."""

import dataclasses
import math
import numbers
from dataclasses import dataclass, field
from typing import Any, Literal

from .checks import is_a, one_of, refuse

# Radius where none is set. SAM's authors have 0.05 for training from scratch; see the ablation in recipes/benchmarks.
DEFAULT_RHO = {"sam": 0.1, "asam": 0.5}


@dataclass
class SharpnessArguments:
    """The flags of sharpness-aware minimization.

    Args:
        sam ("none" | "sam" | "asam"): follow the gradient at the weights plus the worst small step: SAM (Foret et al.
            2021, https://arxiv.org/abs/2010.01412, equation 3), or ASAM (Kwon et al. 2021,
            https://arxiv.org/abs/2102.11600), whose step has the scale of each weight. A step then takes two forward
            and backward passes, and memory for one copy of the trainable weights: on a GPU for the length of the second
            pass, on CPU, where fresh memory is slow, for that of training.
        sam_rho (number >= 0): length of the step; the default is 0.1 for SAM and 0.5 for ASAM.
        sam_interval (int >= 1): every how many optimizer steps; the others are plain.
        sam_start (number in [0, 1]): share of training after which it begins; 0.85 is "late SAM", at 1.15 times the
            cost of plain training.
        sam_scope ("step" | "micro_batch"): under gradient accumulation, one perturbation for the whole window, or one
            for each micro-batch.
        sam_sync ("global" | "local"): on several processes, one perturbation by the gradient of all, or each by its
            own, as the paper has it.

    Raises:
        ValueError: for a value outside the above; the message names setting, value and the way out.
    """

    HELP_GROUP = "sharpness-aware minimization"  # of `--help`

    sam: Literal["none", "sam", "asam"] = field(
        default="none", metadata={"help": "Sharpness-aware minimization: sam, asam, or none."}
    )
    sam_rho: float | None = field(
        default=None, metadata={"help": "Length of the perturbation. Default: 0.1 for sam, 0.5 for asam."}
    )
    sam_interval: int = field(default=1, metadata={"help": "Perturb every k-th optimizer step."})
    sam_start: float = field(default=0.0, metadata={"help": "Share of training after which it begins, in [0, 1]."})
    sam_scope: Literal["step", "micro_batch"] = field(
        default="step", metadata={"help": "One perturbation for a step's whole window, or for each micro-batch."}
    )
    sam_sync: Literal["global", "local"] = field(
        default="global", metadata={"help": "One perturbation for all processes, or each its own."}
    )

    def __post_init__(self):
        self.check_sharpness()
        # Next in line is TrainingArguments where this is mixed in, and `object` where it stands alone.
        parent = super()
        if hasattr(parent, "__post_init__"):
            parent.__post_init__()

    def check_sharpness(self) -> None:
        """Raise `ValueError` for a flag outside its range."""
        one_of("sam", self.sam, ("none", "sam", "asam"))
        one_of("sam_scope", self.sam_scope, ("step", "micro_batch"))
        one_of("sam_sync", self.sam_sync, ("global", "local"))
        if self.sam_rho is not None and not (is_a(self.sam_rho, numbers.Real) and 0 <= self.sam_rho < math.inf):
            raise refuse("sam_rho", self.sam_rho, "give a finite number >= 0.")
        if not (is_a(self.sam_interval, numbers.Integral) and self.sam_interval >= 1):
            raise refuse("sam_interval", self.sam_interval, "give a whole number >= 1; 1 perturbs every step.")
        if not (is_a(self.sam_start, numbers.Real) and 0 <= self.sam_start <= 1):
            raise refuse("sam_start", self.sam_start, "give the share of training before it begins, in [0, 1].")

    @property
    def sam_radius(self) -> float:
        """The radius in force."""
        return DEFAULT_RHO[self.sam] if self.sam_rho is None else float(self.sam_rho)


def sharpness_settings(args: Any) -> SharpnessArguments:
    """The SAM flags of any training arguments, checked; what a plain `TrainingArguments` lacks has its default."""
    names = [f.name for f in dataclasses.fields(SharpnessArguments)]
    return SharpnessArguments(**{name: getattr(args, name) for name in names if hasattr(args, name)})
