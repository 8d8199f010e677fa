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
    """What a run says of the noise.

    Args:
        rate: share of wrong labels; None where no label could be judged.
        by_class: the same of the labels given as each class; None for a class that was never given.
        transition: labels counted by true (row) and given (column) class, as estimated, (C, C) whole numbers.
    """

    rate: NoiseRate | None
    by_class: list[NoiseRate | None]
    transition: np.ndarray


def estimate_noise(joint: np.ndarray) -> NoiseEstimate:
    """Rates and transitions of labels that are counted by given and true class.

    Args:
        joint: number of labels by given (row) and true (column) class, (C, C).

    Example:
        >>> estimate = estimate_noise(np.array([[3.0, 1.0], [0.0, 4.0]]))
        >>> estimate.rate.rate, estimate.by_class[0].rate, estimate.transition.tolist()
        (0.125, 0.25, [[3, 0], [1, 4]])
    """
    totals = joint.sum(axis=1)
    wrong = totals - np.diag(joint)
    by_class = [NoiseRate.of(float(part), round(total)) for part, total in zip(wrong, totals)]
    return NoiseEstimate(
        NoiseRate.of(float(wrong.sum()), round(totals.sum())), by_class, np.rint(joint.T).astype(np.int64)
    )


def counted_pairs(given: np.ndarray, proposed: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels counted by given (row) and proposed (column) class, (C, C).

    Args:
        given, proposed: class numbers, (R,).

    Example:
        >>> counted_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(pairs, (given, proposed), 1)
    return pairs


def least_trusted(given: np.ndarray, quality: np.ndarray, by_class: list[NoiseRate | None]) -> np.ndarray:
    """Of the labels given as each class, as many of the lowest quality as are estimated to be wrong: bool (R,).

    Args:
        given: class numbers, (R,).
        quality: low is suspect, (R,).
        by_class: share of wrong labels among those given as each class.

    Example:
        >>> rates = [NoiseRate.of(1, 2), NoiseRate.of(0, 2)]
        >>> least_trusted(np.array([0, 1, 0, 1]), np.array([0.9, 0.1, 0.4, 0.8]), rates).tolist()
        [False, False, True, False]
    """
    chosen = np.zeros(len(given), dtype=bool)
    for label, rate in enumerate(by_class):
        rows = np.flatnonzero(given == label)
        if rate is not None:
            chosen[rows[np.argsort(quality[rows], kind="stable")[: round(rate.rate * len(rows))]]] = True
    return chosen
