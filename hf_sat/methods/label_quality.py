"""How far each given label is to be trusted, from what training saw of it."""

import numpy as np
import torch

# The area under the margin counts so many times: it finds most noise better, the soft target one-sided noise.
MARGINS_WEIGHT = 4.0
# Of the log of how much more often than others a class was given, what is taken from its margins.
PRIOR_SHARE = 0.4


def label_quality(given: np.ndarray, margin: np.ndarray, p_given: np.ndarray) -> np.ndarray:
    """`(4 sigmoid(margin - 0.4 log(n / mean n)) + p_given) / 5`, n being how many labels were given as the same class.

    A class that is given more often than others wins where the model knows nothing, and rules and people put there what
    fits nowhere else; so its labels take a larger margin to be trusted as far. It is the logit adjustment of Menon et
    al. 2021 (https://arxiv.org/abs/2007.07314), applied after training with tau = 0.4 to the margin over an average
    class; with as many labels of each class it is none.

    Args:
        given: class numbers, (R,).
        margin: area under the margin (Pleiss et al. 2020, https://arxiv.org/abs/2001.10528), in logits, (R,).
        p_given: the soft target's mass on the given label, (R,).

    Returns:
        (R,), 0 to 1; low is suspect.

    Example:
        >>> label_quality(np.array([0, 1]), np.array([0.0, -3.0]), np.array([1.0, 0.0])).round(2).tolist()
        [0.6, 0.04]
        >>> label_quality(np.array([0, 0, 0, 1]), np.zeros(4), np.ones(4)).round(2).tolist()
        [0.57, 0.57, 0.57, 0.66]
    """
    counts = np.bincount(given)
    often = np.log(counts.clip(1) / counts[counts > 0].mean()) if len(given) else counts
    trusted = sigmoid(margin - PRIOR_SHARE * often[given])
    return (MARGINS_WEIGHT * trusted + p_given) / (MARGINS_WEIGHT + 1)


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """Margins as shares, 0.5 where as much speaks for the given label as for another.

    Example:
        >>> sigmoid(np.array([-1e9, 0.0, 1e9])).tolist()
        [0.0, 0.5, 1.0]
    """
    return torch.as_tensor(margin).sigmoid().numpy()
