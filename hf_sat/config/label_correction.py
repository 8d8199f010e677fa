"""The flags of label correction."""

import dataclasses
import math
import numbers
from dataclasses import dataclass, field
from typing import Any, Literal

from .checks import AUTO, count_or_auto, count_or_none, device_or_auto, is_a, number_or_auto, one_of, refuse
from .peers import PeerMethodArguments

METHODS = ("sat", "elr", "gce", "sce", "bootstrap")


@dataclass
class LabelCorrectionArguments(PeerMethodArguments):
    """The flags of label correction. Each has a default that suits fine-tuning; none depends on the noise.

    Args:
        label_correction ("sat" | "elr" | "gce" | "sce" | "bootstrap" | "none"): Self-Adaptive Training (Huang et al.
            2020, https://arxiv.org/abs/2002.10319, algorithm 1), one of its peers (early-learning regularization,
            generalized and symmetric cross-entropy, soft bootstrapping; their constants are in
            [`PeerMethodArguments`]), or nothing. The peers but ELR change no label; their report says which labels
            the run's predictions contradict.
        sat_momentum (number in [0, 1) or "auto"): `a` in `t <- a * t + (1 - a) * softmax(z)`. "auto" takes it from
            the visits that are left at the onset (see `hf_sat.methods.schedule.auto_momentum`); the paper has 0.9.
        sat_start_epoch (number >= 0 or "auto"): correction is on once `state.epoch >= sat_start_epoch` as an
            optimizer step begins; epochs count from 0 and may be fractional. "auto" watches the predictions of the
            run (see `hf_sat.methods.schedule.Schedule`).
        sat_neighbors (whole number >= 0 or "auto"): let so many neighbors in the space of logits (with two classes: of
            what the model's last linear layer is given) vote on what an example's true label is (Bahri et al. 2020,
            https://arxiv.org/abs/2004.12289; see `hf_sat.methods.neighbors`): the soft target moves towards their
            answer too, as far as wrong labels are of one kind; with two classes, as far as labels tell nothing. 0 is
            the paper's algorithm. "auto" is 0 where `sat_momentum` or `sat_start_epoch` is a number, for labels of
            tokens, in runs of less than three epochs, with fewer than 200 labels a class, of which 8,192 in all are
            remembered, and for two classes where no such layer is found; else 0.8 of the average class, at most 200,
            which are not asked if the model is unsure of what it knows at the onset.
        sat_loss ("auto" | "ce" | "sce"): once labels are corrected, cross-entropy with the soft target, or its
            symmetric form `CE + sat_sce_beta * reverse CE`. "auto" is the symmetric form with a weight found at the
            onset (see `hf_sat.methods.schedule.auto_sce_beta`), but the paper's cross-entropy where `sat_momentum` or
            `sat_start_epoch` is a number, and for labels of tokens.
        sat_sce_beta (number >= 0): weight of the reverse cross-entropy under "sce"; the authors' is 0.3.
        sat_reweight (bool): weigh each example by the largest entry of its soft target, normalised to mean 1 over
            the micro-batch. Without it, gradient accumulation gives the same loss at any number of steps.
        sat_top_k (int): keep the k largest entries of each soft target and the mass of the rest, for large label
            spaces; the default keeps all.
        sat_target_dtype ("float32" | "bfloat16" | "float16"): of the stored soft targets.
        sat_target_device (str): where they lie; "auto" is the model's device, "cpu" saves its memory and costs a copy
            and a wait at each step.
        sat_on_label_change ("refuse" | "reset_rows"): what to do on resume where labels were edited since.
        sat_num_samples (int): how many different ids a stream has; needed for datasets without a length.
        sample_id_column (str): column that names each example; the default id is the row's position.
        trusted_column (str): boolean column; rows where it is true are never corrected.

    Raises:
        ValueError: for a value outside the above; the message names setting, value and the way out.

    Example:
        >>> from hf_sat import SATConfig
        >>> SATConfig(output_dir="out", sat_momentum="0.6", sat_start_epoch=1.5).sat_momentum
        0.6
    """

    HELP_GROUP = "label correction"  # of `--help`

    label_correction: Literal["sat", "elr", "gce", "sce", "bootstrap", "none"] = field(
        default="sat",
        metadata={"help": "How labels are corrected while the model trains, or none."},
    )
    sat_momentum: str = field(
        default=AUTO,
        metadata={"help": "Share of the old soft target that a visit keeps: a number in [0, 1) or auto."},
    )
    sat_start_epoch: str = field(
        default=AUTO,
        metadata={"help": "Epoch (fractional allowed, counted from 0) from which labels are corrected, or auto."},
    )
    sat_neighbors: str = field(
        default=AUTO,
        metadata={"help": "Neighbors that vote on the label of an example, 0 for none: a whole number or auto."},
    )
    sat_loss: Literal["auto", "ce", "sce"] = field(
        default=AUTO,
        metadata={"help": 'Loss against the soft target: "ce", "sce" (cross-entropy + beta * reverse), or auto.'},
    )
    sat_sce_beta: float = field(
        default=0.3,
        metadata={"help": 'Weight of the reverse cross-entropy when sat_loss="sce".'},
    )
    sat_reweight: bool = field(
        default=True,
        metadata={"help": "Weigh examples by the confidence of their soft target (mean 1 per micro-batch)."},
    )
    sat_top_k: int | None = field(
        default=None,
        metadata={"help": "Keep the k largest entries of each soft target and the mass of the rest. Default: all."},
    )
    sat_target_dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32",
        metadata={"help": "Precision of the stored soft targets."},
    )
    sat_target_device: str = field(
        default=AUTO,
        metadata={"help": "Device of the stored soft targets, such as cpu; auto is that of the model."},
    )
    sat_on_label_change: Literal["refuse", "reset_rows"] = field(
        default="refuse",
        metadata={"help": "On resume with edited labels: refuse, or restart the edited rows one-hot."},
    )
    sat_num_samples: int | None = field(
        default=None,
        metadata={"help": "Number of different sample ids of a stream (ids are 0 to this number minus 1)."},
    )
    sample_id_column: str | None = field(
        default=None,
        metadata={"help": "Column that holds a unique id for every training example. Default: its position."},
    )
    trusted_column: str | None = field(
        default=None,
        metadata={"help": "Boolean column of the training set: rows that are true keep their label."},
    )

    def __post_init__(self):
        self.check_label_correction()
        # Next in line is TrainingArguments where this is mixed in, and `object` where it stands alone.
        parent = super()
        if hasattr(parent, "__post_init__"):
            parent.__post_init__()

    def check_label_correction(self) -> None:
        """Convert and check the flags above; called again before training, as attributes can be set later."""
        one_of("label_correction", self.label_correction, (*METHODS, "none"))
        self.check_peer_methods()
        one_of("sat_loss", self.sat_loss, (AUTO, "ce", "sce"))
        one_of("sat_on_label_change", self.sat_on_label_change, ("refuse", "reset_rows"))
        self.sat_momentum = number_or_auto("sat_momentum", self.sat_momentum, 0.0, 1.0, "a number in [0, 1)")
        self.sat_start_epoch = number_or_auto("sat_start_epoch", self.sat_start_epoch, 0.0, math.inf, "a number >= 0")
        self.sat_neighbors = count_or_auto("sat_neighbors", self.sat_neighbors)
        if not (is_a(self.sat_sce_beta, numbers.Real) and 0.0 <= self.sat_sce_beta < math.inf):
            raise refuse("sat_sce_beta", self.sat_sce_beta, "give a finite number >= 0.")
        if not isinstance(self.sat_reweight, bool):
            raise refuse("sat_reweight", self.sat_reweight, "give True or False.")
        one_of("sat_target_dtype", self.sat_target_dtype, ("float32", "bfloat16", "float16"))
        count_or_none("sat_num_samples", self.sat_num_samples, "the number of different sample ids")
        count_or_none("sat_top_k", self.sat_top_k, "how many entries to keep of each soft target")
        if self.sat_top_k is not None and self.label_correction == "elr":
            # Its running predictions begin at zero: what is missing from a sum of 1 is not the mass of the tail.
            raise refuse("sat_top_k", self.sat_top_k, "label_correction='elr' needs whole targets; leave it out.")
        device_or_auto("sat_target_device", self.sat_target_device)


def label_correction_settings(args: Any, default: str) -> LabelCorrectionArguments:
    """The label-correction flags of any training arguments; what a plain `TrainingArguments` lacks has its default.

    Args:
        args: a `TrainingArguments` of any kind.
        default: `label_correction` where `args` does not have it.
    """
    names = [f.name for f in dataclasses.fields(LabelCorrectionArguments)]
    found = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return LabelCorrectionArguments(**{"label_correction": default, **found})
