"""Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068): which class an example stands for."""

import numpy as np
import torch
from torch import Tensor

NOT_CONFIDENT = -1
# Of the wrong labels that a model contradicts at one visit it contradicts at least so many at the next. (MiniLM on
# SST-2 and SUBJ with 20 and 40 % symmetric noise: .66 to 1; on clean labels, which it learns to be right, .31 to .56.)
STILL_CONTRADICTED = 0.7


def confident_class(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """The most probable of the classes that reach their threshold (equation 1), (M,); -1 where none does.

    Args:
        probabilities: (M, C).
        thresholds: average probability of each class among the labels given to it, (C,), or (M, C).

    Example:
        >>> import torch
        >>> confident_class(torch.tensor([[0.7, 0.3], [0.5, 0.5]]), torch.tensor([0.6, 0.9])).tolist()
        [0, -1]
    """
    reaches = probabilities >= thresholds.to(probabilities)
    best = torch.where(reaches, probabilities, -1.0).argmax(dim=-1)
    return torch.where(reaches.any(dim=-1), best, NOT_CONFIDENT)


def joint_counts(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Labels by given (row) and true (column) class, (C, C) float64: confident counts, scaled to the labels given.

    Equations 1 and 3 on probabilities that were not made with the example's own label. A class that is never given, or
    has no confident example, stands for itself.

    Args:
        probabilities: (Q, C).
        labels: given labels, int64 (Q,); those below 0 do not count.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
        >>> joint_counts(p, torch.tensor([0, 0, 1, 1])).tolist()
        [[1.0, 1.0], [0.0, 2.0]]
    """
    size, wide = probabilities.shape[-1], probabilities.double()
    known = labels >= 0
    labels = labels.clamp_min(0)
    given = torch.zeros(size, dtype=torch.float64, device=labels.device).index_add_(0, labels, known.double())
    of_given = torch.where(known, wide.gather(1, labels[:, None])[:, 0], 0.0)
    thresholds = torch.zeros_like(given).index_add_(0, labels, of_given) / given.clamp_min(1.0)
    stands_for = confident_class(wide, torch.where(given > 0, thresholds, 2.0))
    counted = (known & (stands_for >= 0)).double()
    pairs = torch.zeros(size * size, dtype=torch.float64, device=labels.device)
    pairs = pairs.index_add_(0, labels * size + stands_for.clamp_min(0), counted).view(size, size)
    pairs = torch.where(pairs.sum(dim=1, keepdim=True) > 0, pairs, torch.eye(size).to(pairs))
    return pairs / pairs.sum(dim=1, keepdim=True) * given[:, None]


def lasting(early: np.ndarray, late: np.ndarray, visits: int) -> np.ndarray:
    """Shares of true classes at an early visit, less what a model contradicted because it had yet to learn, (C, C).

    At an early visit a model is wrong on labels that are right, and later it knows wrong ones by heart. But what it has
    yet to learn it learns fast: so of the labels given as a class as many are wrong as it contradicts early, at most as
    many as it contradicts late, divided by 0.7 for each visit between them.

    Args:
        early, late: share of each true class (column) among the labels given as each (row), at two visits, (C, C).
        visits: from the one to the other.

    Example:
        >>> early, late = np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.7, 0.3], [0.07, 0.93]])
        >>> lasting(early, late, visits=1).round(2).tolist()
        [[0.6, 0.4], [0.1, 0.9]]
    """
    contradicted, still = 1 - early.diagonal(), 1 - late.diagonal()
    wrong = np.minimum(contradicted, still / STILL_CONTRADICTED**visits)
    shares = early * np.divide(wrong, contradicted, out=np.zeros_like(wrong), where=contradicted > 0)[:, None]
    np.fill_diagonal(shares, 1 - wrong)
    return shares
