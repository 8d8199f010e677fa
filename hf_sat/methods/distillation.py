"""Distillation of logits (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

The functions are pure and serve any training loop; the class binds them to settings. Shapes: `M` counted positions
(examples, or tokens) by `C` classes. `p` is the teacher's and `q` the student's distribution, both at temperature `T`,
`softmax(z / T)`; gradients flow into the student's logits alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .self_adaptive import log_softmax

# Stands for log 0 of classes whose logit is -inf, so that differences stay finite.
LEAST_LOG = -1e30


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 KL(p || q)` of each row (Hinton et al. 2015, section 2.1): the student covers all that the teacher says.

    Args:
        student: logits of the student, (M, C), any floating dtype; computed in at least float32.
        teacher: logits of the teacher, (M, C).
        temperature: `T`, > 0. `T^2` keeps the size of the gradient as `T` grows.

    Returns:
        Divergences in nats, (M,), >= 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> kl_divergence(logits, logits, temperature=4.0)
        tensor([0.])
    """
    log_q, log_p = _log_probabilities(student, teacher, temperature)
    return temperature**2 * _kl(log_p, log_q)


def reverse_kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 KL(q || p)` of each row, (M,): the student is to say nothing that the teacher does not (Gu et al. 2024,
    https://arxiv.org/abs/2306.08543). Arguments as in [`kl_divergence`].
    """
    log_q, log_p = _log_probabilities(student, teacher, temperature)
    return temperature**2 * _kl(log_q, log_p)


def jensen_shannon_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 (KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2` of each row, (M,); at most `T^2 log 2` (Lin 1991).

    Arguments as in [`kl_divergence`].
    """
    log_q, log_p = _log_probabilities(student, teacher, temperature)
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    return temperature**2 * (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def logit_mean_squared_error(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over the classes of `(z_student - z_teacher)^2` of each row, (M,) (Ba and Caruana 2014,
    https://arxiv.org/abs/1312.6184). The temperature has no part in it.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    return F.mse_loss(student.to(wide), teacher.detach().to(wide), reduction="none").mean(dim=-1)


def hard_distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`CE(argmax z_teacher, z_student)` of each row, (M,): the teacher's class is the label (Touvron et al. 2021,
    https://arxiv.org/abs/2012.12877, equation 3). The temperature has no part in it.
    """
    return F.nll_loss(log_softmax(student), teacher.argmax(dim=-1), reduction="none")


def entropy(logits: Tensor) -> Tensor:
    """Entropy of `softmax(z)` of each row, in nats, (M,)."""
    log_p = log_softmax(logits).clamp_min(LEAST_LOG)
    return -_expectation(log_p, log_p)


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "kl": kl_divergence,
    "reverse_kl": reverse_kl_divergence,
    "js": jensen_shannon_divergence,
    "mse": logit_mean_squared_error,
    "hard": hard_distillation,
}


@dataclass
class Distillation:
    """Distillation with its settings: `(1 - weight) * task + weight * loss`.

    Args:
        weight: share of the teacher, in [0, 1].
        temperature: `T`, > 0.
        loss: "kl", "reverse_kl", "js", "mse" or "hard".

    Example:
        >>> import torch
        >>> student = torch.zeros(2, 3, requires_grad=True)
        >>> teacher, labels = torch.eye(3)[:2], torch.tensor([0, 1])
        >>> task = torch.nn.functional.cross_entropy(student, labels, reduction="none")
        >>> Distillation(weight=0.5).mixed(task, student, teacher).mean().backward()
    """

    weight: float = 0.5
    temperature: float = 2.0
    loss: str = "kl"

    def losses(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Distance of each row of student logits (M, C) from the teacher's, (M,), not weighted."""
        return LOSSES[self.loss](student, teacher, self.temperature)

    def mixed(self, task: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
        """Each row's loss, (M,), from its task loss (M,)."""
        return (1 - self.weight) * task + self.weight * self.losses(student, teacher)


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(student.dtype, torch.float32)
    logits = student.to(wide) / temperature, teacher.detach().to(wide) / temperature
    return tuple(log_softmax(each).clamp_min(LEAST_LOG) for each in logits)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return _expectation(log_p, log_p - log_q)


def _expectation(log_p: Tensor, values: Tensor) -> Tensor:
    """`sum_c p_c v_c` of each row."""
    return (log_p.exp() * values).sum(dim=-1)
