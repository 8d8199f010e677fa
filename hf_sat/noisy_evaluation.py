"""Evaluation labels that are noisy too: a best model picked by them is picked for learning the noise."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from transformers.utils import logging

from .noise_estimate import NoiseRate
from .samples import LABEL_NAMES

logger = logging.get_logger(__name__)
# Estimated share of wrong training labels from which a run asks where its evaluation labels come from.
NOTABLE_RATE = 0.05


def known_wrong_share(dataset: Any, label_key: str) -> float | None:
    """Share of evaluation labels that differ from the clean ones beside them; None where there are none.

    Args:
        dataset: a `datasets.Dataset`, with `clean_<label>` as `hf_sat.noise` leaves it, or anything else.
        label_key: name of the labels in a batch; the column may have another of the usual names.
    """
    if not isinstance(dataset, datasets.Dataset):
        return None
    columns = dataset.column_names
    name = next((n for n in (label_key, *LABEL_NAMES) if n in columns and f"clean_{n}" in columns), None)
    if name is None:
        return None
    plain = dataset.with_format(None)
    given, clean = (np.hstack(plain[column][:]) for column in (name, f"clean_{name}"))
    return float((given != clean).mean()) if len(given) else None


def warn_of_noisy_evaluation(dataset: Any, label_key: str, estimate: NoiseRate | None) -> None:
    """Warn where a best model was picked by labels that are known to be noisy, or may well be.

    Args:
        dataset: that is evaluated on, or several by name.
        estimate: of the training labels.
    """
    parts = list(dataset.values()) if isinstance(dataset, Mapping) else [dataset]
    known = [known_wrong_share(part, label_key) for part in parts]
    advice = (
        "A best model picked by them is picked for learning the same wrong labels: evaluate on labels that were "
        "checked, or take the last model (load_best_model_at_end=False)."
    )
    if any(known):
        logger.warning(f"{max(filter(None, known)):.0%} of the evaluation labels are wrong too. {advice}")
    elif None in known and estimate is not None and estimate.rate >= NOTABLE_RATE:
        logger.warning(
            f"About {estimate.rate:.0%} of the training labels are held to be wrong; if the evaluation labels come "
            f"from the same source, so are as many of them. {advice}"
        )
