"""Given and confidently predicted classes, counted together while training makes its predictions.

Northcutt et al. 2021 (Confident Learning, https://arxiv.org/abs/1911.00068, equation 1): an example given class i
counts for class j if its predicted probability of j is at least what the examples given j have of j on average; for the
most probable such j, if there are several. They take predictions of five more trainings, each on examples held out.
Here they are those of the one training, at each label's third visit: by then a model has learned what the examples of a
class have in common, and hardly a wrong label by heart.
"""

import numpy as np
import torch
from torch import Tensor

from .methods.confident_learning import NOT_CONFIDENT, confident_class

# Visits before the one that is counted.
VISITS_BEFORE = 2
# From more classes on, the counts would take more memory than they are worth.
MOST_CLASSES = 1000
# Probabilities are summed as whole numbers, so that no order of summation changes a threshold.
UNIT = 2**20
# The averages begin at those of the visit before, which weigh as much as so many labels.
EARLIER = 20


class ConfidentJoint:
    """Counts of labels by given and confidently predicted class, for C classes.

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

    def __init__(self, num_classes: int, device: torch.device):
        size = num_classes if num_classes <= MOST_CLASSES else 0
        self.counts = torch.zeros(size, size, dtype=torch.int32, device=device)
        # At the second and at the third visit: probabilities of the given label, and how many they are.
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
        """At a third visit the most probable of the classes that reach their threshold; else, and without any, -1.

        Args:
            probabilities: (M, C).
            before: number of visits before this one, (M,).
        """
        if not self.counting:
            return torch.full_like(before, NOT_CONFIDENT)
        best = confident_class(probabilities, self.thresholds())
        return torch.where(before == VISITS_BEFORE, best, NOT_CONFIDENT)

    def see(self, before: Tensor, given: Tensor, confident: Tensor, p_given: Tensor, counted: Tensor) -> None:
        """Add visits, (M,) each; those that are not `counted` are left out."""
        if not self.counting:
            return
        number = before - (VISITS_BEFORE - 1)
        counted = counted & (number >= 0) & (number <= 1) & (given >= 0)
        given, size = given.clamp_min(0), self.counts.shape[0]
        at = number.clamp(0, 1) * size + given
        self.seen.view(-1).index_add_(0, at, counted.long())
        self.sums.view(-1).index_add_(0, at, torch.where(counted, (p_given.double() * UNIT).round().long(), 0))
        found = (counted & (confident >= 0)).int()
        self.counts.view(-1).index_add_(0, given * size + confident.clamp_min(0), found)

    def estimate(self, given: np.ndarray) -> np.ndarray | None:
        """Labels by given and true class, (C, C): the counts of a class, scaled to how many labels it was given.

        None where not half of the labels had a third visit, and where there are too many classes.

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
        return {f"joint.{name}": value for name, value in vars(self).items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        for name, value in vars(self).items():
            value.copy_(tensors[f"joint.{name}"])
