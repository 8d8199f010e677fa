"""The Trainer classes; nothing outside this folder knows `transformers.Trainer`."""

from transformers import Seq2SeqTrainer, Trainer

from .hidden_distillation import HiddenDistillationMixin
from .label_correction import LabelCorrectionMixin
from .renamed_weights import RenamedWeightsMixin
from .sharpness import SharpnessMixin


class SATMixin(SharpnessMixin, HiddenDistillationMixin, LabelCorrectionMixin, RenamedWeightsMixin):
    """Everything of hf_sat for any subclass of `transformers.Trainer`: `class Mine(SATMixin, MyTrainer): ...`.

    With all of it off, every method hands over to the class beneath, untouched; but for checkpoints whose weights have
    other names than the model's, which upstream loses (see [`RenamedWeightsMixin`]).
    """


class SATTrainer(SATMixin, Trainer):
    """`transformers.Trainer` that corrects labels while it trains (Huang et al. 2020).

    Takes what `Trainer` takes, and `teacher_model` (see [`DistillationMixin`]); `args` may be a [`SATConfig`] or any
    `TrainingArguments` (then every setting of ours has its default). After training, `label_report()` lists the labels
    held to be wrong.

    Raises:
        ValueError: by `train()`, before the first optimizer step, for what label correction cannot do; see
            `hf_sat.recipe`.

    Example:
        >>> from hf_sat import SATTrainer as Trainer
        >>> trainer = Trainer(model, args, train_dataset=train)                             # doctest: +SKIP
        >>> trainer.train()                                                                 # doctest: +SKIP
        >>> trainer.label_report().to_pandas().sort_values("label_quality").head()          # doctest: +SKIP
    """


class SATSeq2SeqTrainer(SATMixin, Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer` with the same; label correction is off unless it is asked for."""

    default_label_correction = "none"
