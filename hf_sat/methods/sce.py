"""Symmetric cross-entropy with the given label (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06112)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .given_label import GivenLabelLoss
from .self_adaptive import reverse_cross_entropy, soft_cross_entropy


def weighted_symmetric_cross_entropy(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha * CE + beta * RCE` of each row, (M,) (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06112, eq. 7).

    Args:
        logits: raw scores, (M, C).
        labels: class ids, int64 (M,).
        alpha, beta: weights; `log 0` in the reverse is `log 1e-4`, as in the authors' code.
    """
    target = F.one_hot(labels, logits.shape[-1]).to(torch.promote_types(logits.dtype, torch.float32))
    return alpha * soft_cross_entropy(logits, target) + beta * reverse_cross_entropy(logits, target)


@dataclass
class SymmetricCrossEntropy(GivenLabelLoss):
    """[`weighted_symmetric_cross_entropy`] with its weights."""

    alpha: float = 0.1
    beta: float = 1.0

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return weighted_symmetric_cross_entropy(logits, labels, self.alpha, self.beta)
