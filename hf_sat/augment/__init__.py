"""Augmentation of text: deterministic by (seed, key), fast, and safe for the labels of words.

from hf_sat.augment import TextAugmenter
augmenter = TextAugmenter("deletion:0.1,swap:0.1", seed=0)
augmenter("a text", key=(epoch, sample_id))
"""

import importlib
from typing import TYPE_CHECKING, Any

from .labels import labels_follow
from .spec import OPERATIONS
from .text import AugmentedWords, TextAugmenter

if TYPE_CHECKING:
    from .dataset import AugmentedTexts
    from .offline import back_translation, masked_lm_substitution

__all__ = [
    "OPERATIONS",
    "AugmentedTexts",
    "AugmentedWords",
    "TextAugmenter",
    "back_translation",
    "labels_follow",
    "masked_lm_substitution",
]

_HOMES = {"AugmentedTexts": ".dataset", "back_translation": ".offline", "masked_lm_substitution": ".offline"}


def __getattr__(name: str) -> Any:
    # Late, so that augmenting alone imports neither torch nor datasets.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
