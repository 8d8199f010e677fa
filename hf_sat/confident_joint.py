"""Given and confidently predicted classes, counted together while training makes its predictions.

Northcutt et al. 2021 (Confident Learning, https://arxiv.org/abs/1911.00068, equation 1): an example given class i
counts for class j if its predicted probability of j is at least what the examples given j have of j on average; for the
most probable such j, if there are several. They take predictions of five more trainings, each on examples held out.
Here they are those of the one training, at one visit of each label: the third, by which a model has learned what the
examples of a class have in common, and hardly a wrong label by heart; where neighbors keep it from that, a later one.
Two classes are learned by heart sooner: there they are counted at the second visit and at those after it.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .methods.confident_learning import NOT_CONFIDENT, confident_class, lasting

# The visit that is counted: the third; with neighbors the last, at most the fifth. Of two classes the second and later.
COUNTED_VISIT, LATEST_COUNTED, FIRST_OF_TWO_CLASSES = 3, 5, 2
# From more classes on, the counts would take more memory than they are worth.
MOST_CLASSES = 1000
# Probabilities are summed as whole numbers, so that no order of summation changes a threshold.
UNIT = 2**20
# The averages begin at those of the visit before, which weigh as much as so many labels.
EARLIER = 20


def counted_visits(total_epochs: float, num_classes: int, has_neighbors: bool) -> range:
    """Which visits of a label are counted, from 1.

    On TREC with 20 and 40 % noise of three kinds, in five epochs with neighbors, the fifth was off by 1.3 points on
    average; with a neighbors' share of a half the fourth by 3 and the third by 6. Of two classes (SST-2 and SUBJ with
    0, 20 and 40 %) the fifth was off by 7.4, the second by 3.2, with 7 % of SST-2's clean labels; both together by 2.3.

    Example:
        >>> [counted_visits(epochs, num_classes=3, has_neighbors=True) for epochs in (3, 4, 10)]
        [range(3, 4), range(4, 5), range(5, 6)]
        >>> counted_visits(3, num_classes=2, has_neighbors=True), counted_visits(3, 2, has_neighbors=False)
        (range(2, 6), range(3, 4))
    """
    if has_neighbors and num_classes == 2:  # however long the run, as it may go on for longer
        return range(FIRST_OF_TWO_CLASSES, LATEST_COUNTED + 1)
    visit = min(max(COUNTED_VISIT, int(total_epochs)), LATEST_COUNTED) if has_neighbors else COUNTED_VISIT
    return range(visit, visit + 1)


class ConfidentJoint:
    """Counts of labels by given and confidently predicted class, for C classes.

    Args:
        visits: that are counted, each from 2.

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

    def __init__(self, num_classes: int, device: torch.device, visits: range = range(COUNTED_VISIT, COUNTED_VISIT + 1)):
        self.visits = visits
        size = num_classes if num_classes <= MOST_CLASSES else 0
        self.counts = torch.zeros(len(visits), size, size, dtype=torch.int32, device=device)
        # At the visit before them, and at each: probabilities of the given label, and how many they are.
        self.sums = torch.zeros(len(visits) + 1, size, dtype=torch.int64, device=device)
        self.seen = torch.zeros(len(visits) + 1, size, dtype=torch.int64, device=device)

    @property
    def counting(self) -> bool:
        """Whether there are few enough classes."""
        return self.counts.shape[-1] > 0

    def thresholds(self) -> Tensor:
        """By visit, average probability of each class among the labels given to it, (V, C); out of reach for none."""
        total, number = self.sums.double() / UNIT, self.seen
        before = total[:-1] / number[:-1].clamp_min(1)
        weight = EARLIER * (number[:-1] > 0)
        average = (total[1:] + weight * before) / (number[1:] + weight)
        return torch.where(number[:-1] + number[1:] > 0, average, 2.0)

    def confident(self, probabilities: Tensor, before: Tensor) -> Tensor:
        """At a visit counted the most probable of the classes that reach their threshold; else, and without any, -1.

        Args:
            probabilities: (M, C).
            before: number of visits before this one, (M,).
        """
        if not self.counting:
            return torch.full_like(before, NOT_CONFIDENT)
        at, last = before + 1 - self.visits.start, len(self.visits) - 1
        best = confident_class(probabilities, self.thresholds().to(probabilities)[at.clamp(0, last)])
        return torch.where((at >= 0) & (at <= last), best, NOT_CONFIDENT)

    def see(self, before: Tensor, given: Tensor, confident: Tensor, p_given: Tensor, counted: Tensor) -> None:
        """Add visits, (M,) each; those that are not `counted` are left out."""
        if not self.counting:
            return
        number, last = before + 2 - self.visits.start, len(self.visits)
        counted = counted & (number >= 0) & (number <= last) & (given >= 0)
        given, size = given.clamp_min(0), self.counts.shape[-1]
        at = number.clamp(0, last) * size + given
        self.seen.view(-1).index_add_(0, at, counted.long())
        self.sums.view(-1).index_add_(0, at, torch.where(counted, (p_given.double() * UNIT).round().long(), 0))
        found = (counted & (confident >= 0)).int()
        pair = (number - 1).clamp(0, last - 1) * size**2 + given * size + confident.clamp_min(0)
        self.counts.view(-1).index_add_(0, pair, found)

    def estimate(self, given: np.ndarray, onset: float | None = None) -> np.ndarray | None:
        """Labels by given and true class, (C, C): the counts of a class, scaled to how many labels it was given.

        None where not half of the labels had the visit counted, and where there are too many classes. Of several visits
        counted the first after the onset and the last say it together: see [`lasting`].

        Args:
            given: number of labels given as each class, (C,).
            onset: epoch at which correction began, by when a model has learned something.
        """
        if not self.counting or not given.any():
            return None
        seen = self.seen[1:].sum(dim=1).tolist()
        reached = [visit for visit, number in zip(self.visits, seen) if 2 * number >= given.sum()]
        if not reached or len(reached) == 1 < len(self.visits):
            return None
        late = reached[-1]
        early = min(late, max(reached[0], math.floor(onset or 0.0) + 1))
        return lasting(self._shares(early), self._shares(late), late - early) * given[:, None]

    def _shares(self, visit: int) -> np.ndarray:
        """Of the labels given as each class (row) the share of each confident one, (C, C); its own without any."""
        counts = self.counts[self.visits.index(visit)].cpu().numpy().astype(np.float64)
        empty = counts.sum(axis=1) == 0
        counts[empty] = np.eye(len(counts))[empty]
        return counts / counts.sum(axis=1, keepdims=True)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {f"joint.{name}": getattr(self, name) for name in ("counts", "sums", "seen")}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])
