"""Search spaces over the settings of hf_sat, for `trainer.hyperparameter_search(backend="optuna", hp_space=...)`.

A parameter has the name of its setting, so what a search finds best can be given to a `SATConfig` as it is. A space
proposes all its settings in every trial, as the Trainer keeps from one to the next what is not proposed anew.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config import refuse

if TYPE_CHECKING:
    from optuna import Trial

Space = Callable[["Trial"], dict[str, Any]]


def sat_space(trial: "Trial") -> dict[str, Any]:
    """Label correction by SAT: momentum, onset, loss and weights."""
    return {
        "sat_momentum": trial.suggest_categorical("sat_momentum", ["auto", 0.5, 0.7, 0.8, 0.9]),
        "sat_start_epoch": trial.suggest_categorical("sat_start_epoch", ["auto", 1.0, 2.0, 3.0]),
        "sat_loss": trial.suggest_categorical("sat_loss", ["ce", "sce"]),
        "sat_reweight": trial.suggest_categorical("sat_reweight", [True, False]),
    }


def method_space(trial: "Trial") -> dict[str, Any]:
    """SAT, one of its peers, or no label correction; each with the constants it has."""
    methods = ["none", "sat", "elr", "gce", "sce", "bootstrap"]
    return {"label_correction": trial.suggest_categorical("label_correction", methods)}


def sam_space(trial: "Trial") -> dict[str, Any]:
    """SAM or none: its radius, around the default of 0.1, and when it begins."""
    return {
        "sam": trial.suggest_categorical("sam", ["none", "sam"]),
        "sam_rho": trial.suggest_float("sam_rho", 0.02, 0.3, log=True),
        "sam_start": trial.suggest_categorical("sam_start", [0.0, 0.5, 0.85]),
    }


def asam_space(trial: "Trial") -> dict[str, Any]:
    """ASAM or none: its radius, around the default of 0.5, and when it begins."""
    return {
        "sam": trial.suggest_categorical("sam", ["none", "asam"]),
        "sam_rho": trial.suggest_float("sam_rho", 0.1, 2.0, log=True),
        "sam_start": trial.suggest_categorical("sam_start", [0.0, 0.5, 0.85]),
    }


def kd_space(trial: "Trial") -> dict[str, Any]:
    """Distillation: share of the teacher, temperature, and distance; the Trainer has a teacher."""
    return {
        "kd_weight": trial.suggest_float("kd_weight", 0.1, 0.9),
        "kd_temperature": trial.suggest_float("kd_temperature", 1.0, 8.0, log=True),
        "kd_loss": trial.suggest_categorical("kd_loss", ["kl", "reverse_kl", "js"]),
    }


def training_space(trial: "Trial") -> dict[str, Any]:
    """The learning rate, which the rest depends on; for adapters (LoRA) look higher."""
    return {"learning_rate": trial.suggest_float("learning_rate", 5e-6, 5e-4, log=True)}


SPACES: dict[str, Space] = {
    "sat": sat_space,
    "method": method_space,
    "sam": sam_space,
    "asam": asam_space,
    "kd": kd_space,
    "training": training_space,
}


def search_space(*names: str) -> Space:
    """Several spaces as one.

    Args:
        names: keys of `SPACES`.

    Raises:
        ValueError: for another name, and for spaces that propose the same settings.

    Example:
        >>> space = search_space("training", "sat")
        >>> trainer.hyperparameter_search(space, backend="optuna", direction="maximize")    # doctest: +SKIP
    """
    for name in names:
        if name not in SPACES:
            raise refuse("search_space", name, f"choose among {', '.join(SPACES)}.")
    if {"sam", "asam"} <= set(names):
        raise refuse("search_space", "asam", "'sam' proposes the same settings; leave one out.")
    return lambda trial: {setting: value for name in names for setting, value in SPACES[name](trial).items()}
