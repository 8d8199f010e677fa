"""Self-Adaptive Training (Huang, Zhang, Zhang, NeurIPS 2020, https://arxiv.org/abs/2002.10319).

The functions are pure and serve any training loop; the class binds them to settings. Shapes: `M` counted labels
(examples, or tokens) by `C` classes.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

# log(0) := log(1e-4), as in Wang et al. 2019 (https://arxiv.org/abs/1908.06112): a one-hot target has zeros.
SMALLEST_TARGET = 1e-4


def update_soft_targets(stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
    """One visit: `t <- a * t + (1 - a) * softmax(z)` (algorithm 1, line 5), the prediction detached.

    Args:
        stored: soft targets before the visit, (M, C).
        logits: the model's raw scores, (M, C), any floating dtype.
        momentum: `a`, in [0, 1).

    Returns:
        The new soft targets, (M, C), in the dtype of `stored`, without gradient.

    Example:
        >>> import torch
        >>> update_soft_targets(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), momentum=0.5)
        tensor([[0.7500, 0.2500]])
    """
    return moved_targets(stored, log_softmax(logits.detach()).exp(), momentum)


def moved_targets(stored: Tensor, estimate: Tensor, momentum: float) -> Tensor:
    """`t <- a * t + (1 - a) * e`, where what is known of the true class, (M, C), need not be the model's prediction."""
    return momentum * stored + (1.0 - momentum) * estimate.to(stored.dtype)


def sample_weights(targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """Confidence `w = max_c t` (algorithm 1, line 6), normalised to mean 1 over the counted rows.

    Args:
        targets: soft targets, (M, C).
        counted: rows that count, bool (M,); the others get weight 0. Default: all.

    Returns:
        Weights, (M,).

    Example:
        >>> import torch
        >>> sample_weights(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor([1.3333, 0.6667])
    """
    confidence = targets.max(dim=-1).values
    if counted is None:
        counted = torch.ones_like(confidence, dtype=torch.bool)
    confidence = confidence * counted
    return confidence * counted.sum() / confidence.sum().clamp_min(torch.finfo(confidence.dtype).tiny)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`CE(t, z) = -sum_c t_c log softmax(z)_c` of each row (equation 2 without the weight).

    Args:
        logits: (M, C), any floating dtype; computed in at least float32.
        targets: distributions, (M, C).

    Returns:
        Losses in nats, (M,).
    """
    return -(targets * log_softmax(logits)).sum(dim=-1)


def reverse_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`RCE(t, z) = -sum_c softmax(z)_c log max(t_c, 1e-4)` of each row (Wang et al. 2019, equation 6).

    Shapes as in [`soft_cross_entropy`]. The floor 1e-4 stands for the paper's constant A = log 0 and keeps the value
    and its gradient finite for one-hot targets.
    """
    log_target = targets.clamp_min(SMALLEST_TARGET).log()
    return -(log_softmax(logits).exp() * log_target).sum(dim=-1)


def symmetric_cross_entropy(logits: Tensor, targets: Tensor, beta: float) -> Tensor:
    """`CE + beta * RCE` of each row, (M,); the SAT authors use beta 0.3. Finite wherever the logits are."""
    return soft_cross_entropy(logits, targets) + beta * reverse_cross_entropy(logits, targets)


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities, (M, C), in at least float32."""
    return F.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


@dataclass
class SelfAdaptiveTraining:
    """SAT with its settings: what the soft target becomes at a visit, and the loss against it.

    Args:
        loss: "ce", "sce", or "auto": "sce" with a weight that is not known before the onset.
        sce_beta: weight of the reverse cross-entropy under "sce".
        reweight: weigh rows by the confidence of their target.

    Example:
        >>> import torch
        >>> sat = SelfAdaptiveTraining()
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]], requires_grad=True)
        >>> target = sat.resolve(torch.eye(2), logits, momentum=0.9)
        >>> sat.losses(logits, target, sat.weights(target)).mean().backward()
    """

    loss: str = "ce"
    sce_beta: float = 0.3
    reweight: bool = True

    waits = True
    starts_empty = False

    def at_onset(self, sce_beta: float) -> "SelfAdaptiveTraining":
        """What "auto" comes to with the weight that the onset told; itself where nothing is automatic."""
        return replace(self, loss="sce" if sce_beta > 0 else "ce", sce_beta=sce_beta) if self.loss == "auto" else self

    def resolve(self, stored: Tensor, logits: Tensor, momentum: float) -> Tensor:
        """The soft target of this visit, (M, C)."""
        return update_soft_targets(stored, logits, momentum)

    def weights(self, targets: Tensor, counted: Tensor | None = None) -> Tensor:
        """The weight of each row, (M,); mean 1 over the counted rows."""
        if self.reweight:
            return sample_weights(targets, counted)
        ones = targets.new_ones(targets.shape[0])
        return ones if counted is None else ones * counted

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor, labels: Tensor | None = None) -> Tensor:
        """Weighted loss of each row, (M,); what is left of the given labels stands in the targets."""
        if self.loss == "sce":
            return weights * symmetric_cross_entropy(logits, targets, self.sce_beta)
        return weights * soft_cross_entropy(logits, targets)
