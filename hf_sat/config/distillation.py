"""The flags of distillation."""

import dataclasses
import math
import numbers
import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from .checks import AUTO, count_or_none, device_or_auto, is_a, one_of, refuse

KD_LOSSES = ("kl", "reverse_kl", "js", "mse", "hard")
KD_HIDDEN_LOSSES = ("cosine", "mse", "similarity")
LAYER_PAIR = re.compile(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*")


@dataclass
class DistillationArguments:
    """The flags of distillation; they go with `SATTrainer(teacher_model=...)`.

    Args:
        kd_weight (number in [0, 1]): share of the teacher in
            `(1 - kd_weight) * task + kd_weight * T^2 * KL(teacher || student)` (Hinton et al. 2015,
            https://arxiv.org/abs/1503.02531). The task's target is the label, or with label correction the corrected
            one. There is no default: a teacher asks for it, and it for a teacher.
        kd_temperature (number > 0): `T`, by which the logits of both are divided.
        kd_loss ("kl" | "reverse_kl" | "js" | "mse" | "hard"): how far the student is from its teacher; the last two
            know no temperature. See `hf_sat.methods.distillation`.
        kd_hidden_weight (number >= 0): weight at which the distance of the student's hidden states from the teacher's
            is added to the loss above; 0 leaves hidden states out. Each example has the mean over its positions and
            the matched layers, and counts as often as it has labels. A good start is where `kd/hidden_loss` times the
            weight is as large as the rest of the loss.
        kd_hidden_loss ("cosine" | "mse" | "similarity"): that distance; the last one, of the similarities between an
            example's positions, takes student and teacher of different width. See `hf_sat.methods.hidden_distillation`.
        kd_layer_map (str): "auto" draws each layer of the student to one of the teacher, evenly, the last to the last;
            or pairs student:teacher such as "1:2,2:4,3:6", as `hidden_states` are numbered: 0 is the embeddings, 1 the
            first layer, -1 the last.
        kd_teacher_dtype ("auto" | "float32" | "bfloat16" | "float16"): of a teacher given by name; "auto" is that of
            its checkpoint. A teacher given as a model keeps its own.
        kd_teacher_device (str): "auto" is the training device, except for a teacher that lies on an accelerator
            already, or on several.
        kd_cache_dir (str): compute the teacher's logits once, into this folder, and train from there, with no teacher
            in memory. A run that finds the folder goes on with it.
        kd_cache_top_k (int): keep the k largest logits of each row, and the mass of the rest at the temperature, for
            large label spaces; the default keeps all.
        kd_cache_dtype ("float32" | "float16" | "bfloat16"): of the stored logits.
        kd_cache_per_epoch (bool): logits for each epoch, for data that change with it by `set_epoch`.

    Raises:
        ValueError: for a value outside the above; the message names setting, value and the way out.
    """

    HELP_GROUP = "distillation, in runs that have a teacher"  # of `--help`

    kd_weight: float | None = field(
        default=None, metadata={"help": "Share of the teacher in the loss, in [0, 1]; needs a teacher model."}
    )
    kd_temperature: float = field(default=2.0, metadata={"help": "Temperature of the softened distributions, > 0."})
    kd_loss: Literal["kl", "reverse_kl", "js", "mse", "hard"] = field(
        default="kl", metadata={"help": "Distance of the student from its teacher."}
    )
    kd_hidden_weight: float = field(
        default=0.0, metadata={"help": "Weight of the distance between hidden states, >= 0; 0 leaves them out."}
    )
    kd_hidden_loss: Literal["cosine", "mse", "similarity"] = field(
        default="cosine", metadata={"help": "That distance; similarity takes models of different width."}
    )
    kd_layer_map: str = field(
        default=AUTO, metadata={"help": "Layers that are matched, as student:teacher,...; auto spaces them evenly."}
    )
    kd_teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default=AUTO, metadata={"help": "Precision of a teacher given by name; auto is that of its checkpoint."}
    )
    kd_teacher_device: str = field(
        default=AUTO, metadata={"help": "Device of the teacher, such as cpu; auto is that of training."}
    )
    kd_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder in which the teacher's logits are computed once and kept."}
    )
    kd_cache_top_k: int | None = field(
        default=None, metadata={"help": "Keep the k largest logits of each row and the mass of the rest. Default: all."}
    )
    kd_cache_dtype: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata={"help": "Precision of the stored logits."}
    )
    kd_cache_per_epoch: bool = field(
        default=False, metadata={"help": "Store logits for each epoch, for data that change with it."}
    )

    def __post_init__(self):
        self.check_distillation()
        # Next in line is TrainingArguments where this is mixed in, and `object` where it stands alone.
        parent = super()
        if hasattr(parent, "__post_init__"):
            parent.__post_init__()

    def check_distillation(self) -> None:
        """Raise `ValueError` for a flag outside its range."""
        if self.kd_weight is not None and not (is_a(self.kd_weight, numbers.Real) and 0 <= self.kd_weight <= 1):
            raise refuse(
                "kd_weight", self.kd_weight, "give a number in [0, 1], or leave it out together with the teacher."
            )
        if not (is_a(self.kd_temperature, numbers.Real) and 0 < self.kd_temperature < math.inf):
            raise refuse("kd_temperature", self.kd_temperature, "give a finite number > 0.")
        one_of("kd_loss", self.kd_loss, KD_LOSSES)
        if not (is_a(self.kd_hidden_weight, numbers.Real) and 0 <= self.kd_hidden_weight < math.inf):
            raise refuse("kd_hidden_weight", self.kd_hidden_weight, "give a finite number >= 0.")
        one_of("kd_hidden_loss", self.kd_hidden_loss, KD_HIDDEN_LOSSES)
        if self.kd_layer_map != AUTO:
            read_layer_map(self.kd_layer_map)
        one_of("kd_teacher_dtype", self.kd_teacher_dtype, (AUTO, "float32", "bfloat16", "float16"))
        device_or_auto("kd_teacher_device", self.kd_teacher_device)
        one_of("kd_cache_dtype", self.kd_cache_dtype, ("float32", "float16", "bfloat16"))
        if isinstance(self.kd_cache_dir, os.PathLike):
            self.kd_cache_dir = os.fspath(self.kd_cache_dir)
        if self.kd_cache_dir is not None and not (isinstance(self.kd_cache_dir, str) and self.kd_cache_dir):
            raise refuse("kd_cache_dir", self.kd_cache_dir, "name a folder, or leave it out.")
        count_or_none("kd_cache_top_k", self.kd_cache_top_k, "how many logits to keep of each row")
        if not isinstance(self.kd_cache_per_epoch, bool):
            raise refuse("kd_cache_per_epoch", self.kd_cache_per_epoch, "give True or False.")
        if self.kd_cache_dir is None and (self.kd_cache_top_k is not None or self.kd_cache_per_epoch):
            setting = "kd_cache_top_k" if self.kd_cache_top_k is not None else "kd_cache_per_epoch"
            raise refuse(setting, getattr(self, setting), "there is no cache; set kd_cache_dir, or leave it out.")


def read_layer_map(layer_map: str) -> list[tuple[int, int]]:
    """Pairs of layers, student's and teacher's, from "1:2,3:6".

    Raises:
        ValueError: for what is no such pairs.
    """
    found = [LAYER_PAIR.fullmatch(pair) for pair in layer_map.split(",")] if isinstance(layer_map, str) else [None]
    if not all(found):
        raise refuse("kd_layer_map", layer_map, 'give "auto", or pairs student:teacher such as "1:2,2:4,3:6".')
    return [(int(match[1]), int(match[2])) for match in found]


def distillation_settings(args: Any) -> DistillationArguments:
    """The distillation flags of any training arguments, checked; the defaults where there are none."""
    names = [f.name for f in dataclasses.fields(DistillationArguments)]
    return DistillationArguments(**{name: getattr(args, name) for name in names if hasattr(args, name)})
