"""Generalized cross-entropy (Zhang and Sabuncu, NeurIPS 2018, https://arxiv.org/abs/1805.07836)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .given_label import GivenLabelLoss
from .self_adaptive import log_softmax


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """`(1 - p_y^q) / q` of each row, (M,) (Zhang and Sabuncu, NeurIPS 2018, https://arxiv.org/abs/1805.07836, eq. 6).

    Args:
        logits: raw scores, (M, C).
        labels: class ids, int64 (M,).
        q: in (0, 1].

    Example:
        >>> import torch
        >>> generalized_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), q=1.0)
        tensor([0.5000])
    """
    log_p = log_softmax(logits).gather(1, labels[:, None])[:, 0]
    return -torch.expm1(q * log_p) / q


@dataclass
class GeneralizedCrossEntropy(GivenLabelLoss):
    """[`generalized_cross_entropy`] with its order."""

    q: float = 0.7

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return generalized_cross_entropy(logits, labels, self.q)
