"""What the losses of the given label have in common."""

from torch import Tensor

from .self_adaptive import update_soft_targets


class GivenLabelLoss:
    """A loss that wrong labels pull less, from the first step on; it changes no label.

    Soft targets are kept beside it all the same, moved as SAT moves them, so that the label report of such a run says
    which labels its predictions contradict. A subclass gives `of_labels(logits, labels)`, (M,), or `losses`.
    """

    waits = False
    starts_empty = False

    def at_onset(self, sce_beta: float) -> "GivenLabelLoss":
        """Itself: nothing is decided later."""
        return self

    def resolve(self, stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
        """The soft target after this visit, (M, C), as SAT would have it."""
        return update_soft_targets(stored, logits, momentum)

    def weights(self, targets: Tensor, counted: Tensor | None = None) -> Tensor:
        """1 for each row that counts, (M,)."""
        return targets.new_ones(len(targets)) if counted is None else counted.to(targets)

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row, (M,)."""
        return weights * self.of_labels(logits, labels.clamp_min(0))
