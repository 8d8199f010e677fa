"""How many labels are wrong, and which class was taken for which, from the labels a run proposes."""

import math
from dataclasses import dataclass

import numpy as np

# Of the normal distribution, for intervals of 95 %.
Z95 = 1.959963984540054


@dataclass
class NoiseRate:
    """A share with its 95 % interval (Wilson 1927), which tells of sampling alone: not of what the model has missed.

    Example:
        >>> rate = NoiseRate.of(wrong=20, total=100)
        >>> rate.rate, round(rate.low, 3), round(rate.high, 3)
        (0.2, 0.133, 0.289)
    """

    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, wrong: float, total: int) -> "NoiseRate | None":
        """The share of `wrong` in `total`; None where there is nothing to tell from."""
        if total == 0:
            return None
        share, square = wrong / total, Z95**2
        middle = (share + square / (2 * total)) / (1 + square / total)
        half = Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
        return cls(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


@dataclass
class NoiseEstimate:
    """What the labels of a run say of the noise.

    Args:
        rate: share of wrong labels; None where no label could be judged.
        by_class: the same of the labels given as each class; None for a class that was never given.
        transition: labels counted by proposed (row) and given (column) class, (C, C).
    """

    rate: NoiseRate | None
    by_class: list[NoiseRate | None]
    transition: np.ndarray


def estimate_noise(given: np.ndarray, proposed: np.ndarray, judged: np.ndarray, num_classes: int) -> NoiseEstimate:
    """Estimate from given and proposed labels.

    A model that has learned a wrong label by heart proposes it, so that this is rather too low where training was long
    and labels wrong in a way that follows from the input.

    Args:
        given, proposed: class numbers, (R,).
        judged: which rows count, bool (R,).

    Example:
        >>> given, proposed = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
        >>> estimate = estimate_noise(given, proposed, np.ones(4, bool), num_classes=2)
        >>> estimate.rate.rate, estimate.transition.tolist()
        (0.25, [[1, 0], [1, 2]])
    """
    transition = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(transition, (proposed[judged], given[judged]), 1)
    totals, kept = transition.sum(axis=0), np.diag(transition)
    by_class = [NoiseRate.of(float(total - right), int(total)) for total, right in zip(totals, kept)]
    return NoiseEstimate(NoiseRate.of(float(totals.sum() - kept.sum()), int(totals.sum())), by_class, transition)
