"""When the training of an audit may stop before its end: once correction hardly changes which labels look worst."""

import numpy as np
import pandas as pd
from transformers import TrainerCallback

from ..methods.label_quality import sigmoid
from ..trainer import SATTrainer

# Rank correlation of what speaks for the labels with what did an epoch before. (Of five epochs the fourth had .987 to
# .991 on the weak labels of AG News, where the fifth found nothing new; on TREC with wrong labels .954 to .985, and the
# fifth raised their average precision by .004 to .02.)
SETTLED = 0.985
# That correction has had by then.
LEAST_PASSES = 1.0


def order_agreement(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman's rank correlation of two scores of the same labels, (N,), over those that both have; NaN for none.

    Example:
        >>> import numpy as np
        >>> round(order_agreement(np.array([0.1, 0.2, 0.9, np.nan]), np.array([0.3, 0.2, 0.8, 0.1])), 2)
        0.5
    """
    known = ~(np.isnan(before) | np.isnan(after))
    return float(pd.Series(before[known]).rank().corr(pd.Series(after[known]).rank()))


def support(columns: dict[str, np.ndarray]) -> np.ndarray:
    """What speaks for each label of a report, (N,), 0 to 2.

    Not its quality, in which margins count more: they are means over all epochs, and settle by themselves.
    """
    return sigmoid(columns["area_under_margin"]) + columns["p_given"]


class StopWhenSettled(TrainerCallback):
    """Ends training after an epoch that has left the order of the labels as it was.

    Args:
        trainer: whose labels are judged; they must have been corrected for a pass.

    Example:
        >>> trainer.add_callback(StopWhenSettled(trainer))  # doctest: +SKIP
    """

    def __init__(self, trainer: SATTrainer):
        self.trainer = trainer
        self.before: np.ndarray | None = None
        self.onset: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.onset = (logs or {}).get("sat/onset_epoch", self.onset)

    def on_epoch_end(self, args, state, control, **kwargs):
        after = support(self.trainer.label_report().columns)
        corrected_for = 0.0 if self.onset is None else state.epoch - self.onset
        if self.before is not None and corrected_for >= LEAST_PASSES:
            control.should_training_stop |= order_agreement(self.before, after) >= SETTLED
        self.before = after
