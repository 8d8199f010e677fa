"""What label correction asks of a method: SAT and its peers answer alike, so that all of them run everywhere."""

from typing import Protocol

from torch import Tensor


class LabelCorrectionMethod(Protocol):
    """How the stored soft target of a label moves at a visit, and what the loss is.

    Attributes:
        waits: whether training is plain before the onset; otherwise the loss is the method's from the first step.
        starts_empty: whether soft targets begin at zero, rather than one-hot at the given label.

    Shapes: `M` labels (of examples, or of tokens) by `C` classes.
    """

    waits: bool
    starts_empty: bool

    def at_onset(self, sce_beta: float) -> "LabelCorrectionMethod":
        """The method from the onset on, where its loss is to be decided by then; else itself."""

    def resolve(self, stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
        """The soft target after this visit, (M, C), without gradient."""

    def weights(self, targets: Tensor, counted: Tensor | None = None) -> Tensor:
        """The weight of each row, (M,); 0 where it does not count."""

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
        """Weighted loss of each row, (M,), from its soft target (M, C) and its given label (M,), -100 for none."""
