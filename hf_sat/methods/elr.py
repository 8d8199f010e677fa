"""Early-Learning Regularization (Liu et al., NeurIPS 2020, https://arxiv.org/abs/2007.00151)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .given_label import GivenLabelLoss
from .self_adaptive import log_softmax

# The authors keep probabilities away from 0 and 1 by this much, so that the logarithm stays finite.
MARGIN = 1e-4


def update_running_prediction(stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
    """One visit: `t <- b * t + (1 - b) * p` (equation 9), with `p` the softmax, clamped and scaled back to sum 1.

    Args:
        stored: running predictions before the visit, (M, C); zero before the first.
        logits: raw scores, (M, C).
        momentum: `b`, in [0, 1).

    Returns:
        The new running predictions, (M, C), in the dtype of `stored`, without gradient.
    """
    prediction = log_softmax(logits.detach()).exp().clamp(MARGIN, 1.0 - MARGIN)
    prediction = prediction / prediction.sum(dim=-1, keepdim=True)
    return momentum * stored + (1.0 - momentum) * prediction.to(stored.dtype)


def early_learning_regularizer(logits: Tensor, running: Tensor) -> Tensor:
    """`log(1 - <p, t>)` of each row (equation 6), (M,): falls as the prediction keeps to what it was early on.

    Args:
        logits: raw scores, (M, C).
        running: running predictions, (M, C).
    """
    probability = log_softmax(logits).exp().clamp(MARGIN, 1.0 - MARGIN)
    return torch.log((1.0 - (running * probability).sum(dim=-1)).clamp_min(MARGIN))


@dataclass
class EarlyLearningRegularization(GivenLabelLoss):
    """Cross-entropy with the given label plus `strength` times the regularizer, from the first step on.

    Args:
        strength: the paper's lambda.

    Example:
        >>> import torch
        >>> elr = EarlyLearningRegularization()
        >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True), torch.tensor([0, 0])
        >>> target = elr.resolve(torch.zeros(2, 2), logits, momentum=0.7)
        >>> elr.losses(logits, target, elr.weights(target), labels).mean().backward()
    """

    strength: float = 3.0

    starts_empty = True

    def resolve(self, stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
        """The running prediction after this visit, (M, C)."""
        return update_running_prediction(stored, logits, momentum)

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row, (M,)."""
        cross_entropy = F.nll_loss(log_softmax(logits), labels, reduction="none", ignore_index=-100)
        return weights * (cross_entropy + self.strength * early_learning_regularizer(logits, targets))
