"""Given and confidently predicted classes, counted together while training makes its predictions.

Northcutt et al. 2021 (Confident Learning, https://arxiv.org/abs/1911.00068, equation 1): an example given class i
counts for class j if its predicted probability of j is at least what the examples given j have of j on average; for the
most probable such j, if there are several. They take predictions of five more trainings, each on examples held out.
Here they are those of the one training, at one visit of each label: the third, by which a model has learned what the
examples of a class have in common, and hardly a wrong label by heart; where neighbors keep it from that, a later one.
"""

import numpy as np
import torch
from torch import Tensor

from .methods.confident_learning import NOT_CONFIDENT, confident_class

# The visit that is counted: the third; with neighbors the last, at most the fifth.
COUNTED_VISIT, LATEST_COUNTED = 3, 5
# From more classes on, the counts would take more memory than they are worth.
MOST_CLASSES = 1000
# Probabilities are summed as whole numbers, so that no order of summation changes a threshold.
UNIT = 2**20
# The averages begin at those of the visit before, which weigh as much as so many labels.
EARLIER = 20


def counted_visit(total_epochs: float, has_neighbors: bool) -> int:
    """Which visit of a label is counted, from 1.

    On TREC with 20 and 40 % noise of three kinds, in five epochs with neighbors, the fifth was off by 1.3 points on
    average; with a neighbors' share of a half the fourth by 3 and the third by 6.

    Example:
        >>> [counted_visit(epochs, has_neighbors=True) for epochs in (3, 4, 5, 10)], counted_visit(10, False)
        ([3, 4, 5, 5], 3)
    """
    return min(max(COUNTED_VISIT, int(total_epochs)), LATEST_COUNTED) if has_neighbors else COUNTED_VISIT


class ConfidentJoint:
    """Counts of labels by given and confidently predicted class, for C classes.

    Args:
        visit: that is counted, from 2.

    Example:
        >>> joint = ConfidentJoint(num_classes=2, device=torch.device("cpu"))
        >>> given = torch.tensor([0, 0, 0, 1])
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.0, 1.0], [0.0, 1.0]])
        >>> p_given = probabilities.gather(1, given[:, None])[:, 0]
        >>> for visits in range(3):
        ...     before = torch.full((4,), visits)
        ...     joint.see(before, given, joint.confident(probabilities, before), p_given, given >= 0)
        >>> joint.estimate(np.array([3, 1]))
        array([[2., 1.],
               [0., 1.]])
    """

    def __init__(self, num_classes: int, device: torch.device, visit: int = COUNTED_VISIT):
        self.visit = visit
        size = num_classes if num_classes <= MOST_CLASSES else 0
        self.counts = torch.zeros(size, size, dtype=torch.int32, device=device)
        # At the visit before it, and at it: probabilities of the given label, and how many they are.
        self.sums = torch.zeros(2, size, dtype=torch.int64, device=device)
        self.seen = torch.zeros(2, size, dtype=torch.int64, device=device)

    @property
    def counting(self) -> bool:
        """Whether there are few enough classes."""
        return self.counts.shape[0] > 0

    def thresholds(self) -> Tensor:
        """Average probability of each class among the labels given to it, (C,); out of reach for a class not seen."""
        total, number = self.sums.double() / UNIT, self.seen
        before = total[0] / number[0].clamp_min(1)
        weight = EARLIER * (number[0] > 0)
        average = (total[1] + weight * before) / (number[1] + weight)
        return torch.where(number.sum(dim=0) > 0, average, 2.0)

    def confident(self, probabilities: Tensor, before: Tensor) -> Tensor:
        """At the visit counted the most probable of the classes that reach their threshold; else, and without any, -1.

        Args:
            probabilities: (M, C).
            before: number of visits before this one, (M,).
        """
        if not self.counting:
            return torch.full_like(before, NOT_CONFIDENT)
        best = confident_class(probabilities, self.thresholds())
        return torch.where(before == self.visit - 1, best, NOT_CONFIDENT)

    def see(self, before: Tensor, given: Tensor, confident: Tensor, p_given: Tensor, counted: Tensor) -> None:
        """Add visits, (M,) each; those that are not `counted` are left out."""
        if not self.counting:
            return
        number = before - (self.visit - 2)
        counted = counted & (number >= 0) & (number <= 1) & (given >= 0)
        given, size = given.clamp_min(0), self.counts.shape[0]
        at = number.clamp(0, 1) * size + given
        self.seen.view(-1).index_add_(0, at, counted.long())
        self.sums.view(-1).index_add_(0, at, torch.where(counted, (p_given.double() * UNIT).round().long(), 0))
        found = (counted & (confident >= 0)).int()
        self.counts.view(-1).index_add_(0, given * size + confident.clamp_min(0), found)

    def estimate(self, given: np.ndarray) -> np.ndarray | None:
        """Labels by given and true class, (C, C): the counts of a class, scaled to how many labels it was given.

        None where not half of the labels had that visit, and where there are too many classes.

        Args:
            given: number of labels given as each class, (C,).
        """
        if not self.counting or 2 * int(self.seen[1].sum()) < given.sum() or not given.any():
            return None
        counts = self.counts.cpu().numpy().astype(np.float64)
        empty = counts.sum(axis=1) == 0
        counts[empty] = np.eye(len(counts))[empty]
        return counts / counts.sum(axis=1, keepdims=True) * given[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {f"joint.{name}": getattr(self, name) for name in ("counts", "sums", "seen")}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])
