"""The methods: each a pure function and a small class around it, usable in any training loop."""

from .bootstrap import SoftBootstrapping, bootstrapped_cross_entropy
from .distillation import (
    Distillation,
    entropy,
    hard_distillation,
    jensen_shannon_divergence,
    kl_divergence,
    logit_mean_squared_error,
    reverse_kl_divergence,
)
from .elr import EarlyLearningRegularization, early_learning_regularizer, update_running_prediction
from .gce import GeneralizedCrossEntropy, generalized_cross_entropy
from .hidden_distillation import (
    HiddenDistillation,
    cosine_distance,
    hidden_mean_squared_error,
    layer_pairs,
    similarity_distance,
)
from .neighbors import (
    direction_distances,
    logit_distances,
    neighbor_votes,
    one_sidedness,
    transitions,
    true_label_posterior,
)
from .sce import SymmetricCrossEntropy, weighted_symmetric_cross_entropy
from .self_adaptive import (
    SelfAdaptiveTraining,
    reverse_cross_entropy,
    sample_weights,
    soft_cross_entropy,
    symmetric_cross_entropy,
    update_soft_targets,
)
from .sharpness_aware import (
    Perturbation,
    SharpnessAware,
    frozen_batch_norm_statistics,
    perturb,
    perturbation_norm,
    sam_gradient,
)

__all__ = [
    "Distillation",
    "EarlyLearningRegularization",
    "GeneralizedCrossEntropy",
    "HiddenDistillation",
    "Perturbation",
    "SelfAdaptiveTraining",
    "SharpnessAware",
    "SoftBootstrapping",
    "SymmetricCrossEntropy",
    "bootstrapped_cross_entropy",
    "cosine_distance",
    "direction_distances",
    "early_learning_regularizer",
    "entropy",
    "frozen_batch_norm_statistics",
    "generalized_cross_entropy",
    "hard_distillation",
    "hidden_mean_squared_error",
    "jensen_shannon_divergence",
    "kl_divergence",
    "layer_pairs",
    "logit_distances",
    "logit_mean_squared_error",
    "neighbor_votes",
    "one_sidedness",
    "perturb",
    "perturbation_norm",
    "reverse_cross_entropy",
    "reverse_kl_divergence",
    "sam_gradient",
    "sample_weights",
    "similarity_distance",
    "soft_cross_entropy",
    "symmetric_cross_entropy",
    "transitions",
    "true_label_posterior",
    "update_running_prediction",
    "update_soft_targets",
    "weighted_symmetric_cross_entropy",
]
