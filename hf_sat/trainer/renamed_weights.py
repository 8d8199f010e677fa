"""Checkpoints of models whose weights have other names in files than in memory, in `transformers.Trainer`.

transformers saves a ViT under its old names and `from_pretrained` translates them back, but the Trainer's own loading
does not (5.23): a resumed run keeps the layers' first weights, and only a warning tells.
"""

import json
import os

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..quiet import errors_only
from ..rng import preserved_rng


class RenamedWeightsMixin:
    """Loads what upstream's loading leaves out; where nothing is renamed, upstream alone does it."""

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if not self._is_renamed(resume_from_checkpoint):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        with errors_only():  # upstream's warning would name weights that are loaded after it
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            load_translated(self.model, resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        if self._is_renamed(self.state.best_model_checkpoint):
            load_translated(self.model, self.state.best_model_checkpoint)

    def _is_renamed(self, folder: str) -> bool:
        """Whether a checkpoint of the whole model has names that the model has not."""
        if not isinstance(self.model, PreTrainedModel) or getattr(self.model, "_hf_peft_config_loaded", False):
            return False
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return False
        return bool(names_in(folder) - self.model.state_dict().keys())


def load_translated(model: PreTrainedModel, folder: str) -> None:
    """Weights of a checkpoint into a model, by way of `from_pretrained`, which knows their names."""
    with preserved_rng():
        saved = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def names_in(folder: str) -> set[str]:
    """The names of the weights in a checkpoint; none where it has no safetensors."""
    index, whole = (os.path.join(folder, name) for name in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME))
    if os.path.isfile(whole):
        with safe_open(whole, framework="pt") as file:
            return set(file.keys())
    if os.path.isfile(index):
        with open(index, encoding="utf-8") as file:
            return set(json.load(file)["weight_map"])
    return set()
