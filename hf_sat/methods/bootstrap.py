"""Soft bootstrapping (Reed et al., ICLR 2015 workshop, https://arxiv.org/abs/1412.6596)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .given_label import GivenLabelLoss
from .self_adaptive import log_softmax


def bootstrapped_cross_entropy(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """`-sum_c (beta * y_c + (1 - beta) * p_c) log p_c` of each row, (M,).

    Soft bootstrapping (Reed et al., ICLR 2015 workshop, https://arxiv.org/abs/1412.6596, equation 6); the gradient goes
    through both p, which makes it entropy minimisation, as the paper has it.

    Args:
        logits: raw scores, (M, C).
        labels: class ids, int64 (M,).
        beta: share of the given label, in [0, 1].
    """
    log_p = log_softmax(logits)
    entropy = -(log_p.exp() * log_p).sum(dim=-1)
    return beta * F.nll_loss(log_p, labels, reduction="none") + (1.0 - beta) * entropy


@dataclass
class SoftBootstrapping(GivenLabelLoss):
    """[`bootstrapped_cross_entropy`] with its share."""

    beta: float = 0.95

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return bootstrapped_cross_entropy(logits, labels, self.beta)
