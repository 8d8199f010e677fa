"""Parameters with gradients, and how they are compared."""

import math

import numpy as np
import torch

VARIANTS = ["sam", "asam"]


def weights(named):
    return [parameter.detach().clone() for _, parameter in named]


def same_bits(ours, theirs):
    as_bytes = [[w.contiguous().view(-1).view(torch.uint8) for w in tensors] for tensors in (ours, theirs)]
    return all(torch.equal(one, other) for one, other in zip(*as_bytes, strict=True))


def formula(named, variant, rho, eta=0.01):
    """Norm and perturbed weights, in numpy and float64."""
    w = [parameter.detach().double().numpy() for _, parameter in named]
    g = [parameter.grad.to_dense().double().numpy() for _, parameter in named]
    adaptive = [variant == "asam" and not name.endswith("bias") for name, _ in named]
    t = [np.abs(each) + eta if on else np.ones_like(each) for each, on in zip(w, adaptive)]
    norm = math.sqrt(sum(((scale * each) ** 2).sum() for scale, each in zip(t, g)))
    return norm, [each + rho * scale**2 * slope / norm for each, scale, slope in zip(w, t, g)]
