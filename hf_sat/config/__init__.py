"""Settings: `TrainingArguments` with the flags of hf_sat beside its own, a group of flags a file."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import Seq2SeqTrainingArguments, TrainingArguments

from .checks import AUTO, refuse
from .distillation import DistillationArguments, distillation_settings
from .label_correction import LabelCorrectionArguments, label_correction_settings
from .sharpness import SharpnessArguments, sharpness_settings

__all__ = [
    "AUTO",
    "DistillationArguments",
    "LabelCorrectionArguments",
    "SATConfig",
    "SATSeq2SeqConfig",
    "SharpnessArguments",
    "distillation_settings",
    "label_correction_settings",
    "refuse",
    "sharpness_settings",
]


@dataclass
class SATConfig(LabelCorrectionArguments, SharpnessArguments, DistillationArguments, TrainingArguments):
    """`transformers.TrainingArguments` plus the flags of [`LabelCorrectionArguments`], [`SharpnessArguments`] and
    [`DistillationArguments`].
    """


@dataclass
class SATSeq2SeqConfig(LabelCorrectionArguments, SharpnessArguments, DistillationArguments, Seq2SeqTrainingArguments):
    """`transformers.Seq2SeqTrainingArguments` plus the flags of [`SATConfig`]; `label_correction` is "none" here."""

    label_correction: Literal["sat", "elr", "gce", "sce", "bootstrap", "none"] = field(
        default="none",
        metadata={"help": "How labels are corrected while the model trains, or none."},
    )
