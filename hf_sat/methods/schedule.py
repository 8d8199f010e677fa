"""When correction starts and how fast it goes, where the settings say "auto".

Fine-tuning is short: at the paper's momentum 0.9 a label that the model contradicts flips after seven visits, which
three to ten epochs do not have. So the momentum follows from the visits that are left and from how far predictions and
labels agree, and the onset from the predictions that training makes anyway: no validation set, no extra forward pass.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import AUTO
from .predictions import (
    CONFIDENCES,
    Period,
    flickering,
    has_learned,
    has_settled,
    is_steady,
    lead_of_labels,
    shares_right,
    sureness,
)

PAPER_MOMENTUM = 0.9
# From this share on that flickers the model learns from scratch, as the paper's do, 60 of 200 epochs before any label
# moves, and is right far less often than it seems: the paper's constants, where there is time for them. (A small ResNet
# on 4,000 pictures of CIFAR, 40 % symmetric noise, 40 epochs, from the twelfth on: with 0.69 45.0, with 0.9 53.6, plain
# 54.5; without augmentation, where labels are learned by heart, with 0.9 38.0, plain 32.3. .47 flickers there, on TREC
# nothing.)
FROM_SCRATCH = 0.4
PAPER_START = 0.3
LEAST_MOMENTUM = 0.2
# The least where one visit is left: the model has not yet learned all that the given labels tell. (TREC in 3 epochs,
# 40 % symmetric noise, accuracy with 0.23, 0.33, 0.37, 0.4 and 0.5: 76.8, 77.7, 78.4, 79.1 and 80.0, plain 80.2; pair
# noise 78.5, 79.3, -, 78.9 and 78.9, plain 73.4.) More would leave labels as they are that are contradicted at 0.8.
LAST_VISIT_MOMENTUM = 0.37
# Weight of the reverse cross-entropy where predictions flicker. (MobileNetV2 on 1,500 pictures of CIFAR with 40 %
# symmetric noise, one seed: 38.4 without, with 0.3, 1, 2 and 10 41.9, 46.0, 45.7 and 45.8. On a long tail of classes
# more than 1 gained nothing and cost the rare ones. Where predictions do not flicker it did harm: TREC in 3 epochs 78.4
# without and 73.2 with 0.3; on clean labels with 2 TREC's fine classes 77.7 and 68.1, SST-2 83.9 and 82.2.)
SCE_BETA = 1.0
# With more classes than these it is less, as a bounded loss learns many classes slowly: the symmetric loss's authors
# give it 10 times the weight of the cross-entropy on CIFAR-10 and a sixtieth on CIFAR-100. (Not measured here.)
SCE_CLASSES = 10
# At 0.9 a label that is contradicted with probability 3/4 flips after ten visits. From three times as many on targets
# do their part, and the weight is this share. (The ResNet above, in 40 epochs, with 0, 0.3 and 1: without
# augmentation 38.0, 42.3 and 45.6, with it 53.6, 52.6 and 51.2, a class swallowed; a ViT on digits in 60 epochs, 88.1,
# 93.2 and 91.5.)
SCE_VISITS = (10.0, 30.0)
SCE_OF_MANY_VISITS = 0.3
# Counts are read this often: few enough to be steady and cheap, enough for runs of three epochs.
PERIODS_PER_EPOCH = 2
# A label that is contradicted at each visit takes at least this share of the visits left to flip.
SLOWEST_SHARE = 0.1
# Of longer runs a share of what is beyond so many epochs is waited for, as of models from scratch. Wrong labels
# are learned by heart no later in 20 epochs than in ten. (TREC, 40 % symmetric noise, one seed, plain training at its
# best after two: from epoch 4.5 on, where predictions had settled, no label was contradicted any more, and it ended at
# 66.8; from 2.5 on at 82.8. A ViT on digits in 60 epochs, from 10 on 93.2, from 8 on 91.3.)
FINE_TUNING = 20.0
# Labels that are right so much more often than predictions are not to be replaced by these. (At the onset of
# MobileNetV2 on 1,500 pictures of CIFAR .32 with 10 % of the labels wrong, where .75 ended one and three points below
# plain training and 0.9 a half; .23 to .30 with 40 %, where both were level with it. On 10,000 pictures .15, where 0.9
# lost five of eight points gained. TREC and SST-2: .13 with 20 %, -.13 to .07 with 40 and 60 %.)
LEAD = 0.17
# Where the share of labels that look right has grown by more than this since the first pass, it is because they are
# known by heart, unless predictions flicker, as of a model that has yet to learn. (TREC, 40 % symmetric noise: from .59
# to .75 in two passes and a half, with three times the learning rate from .60 to .91, where 0.9 ended at 64.0, plain at
# 58.4, and 0.37 at 72.8. Clean labels of TREC and SST-2: from .99 or more to 1.)
BY_HEART = 0.2
# A model whose mean confidence is this part of its agreement with the given labels, or more, is sure of what it
# knows. The less, the more is kept of the labels, as much as stands here from `UNSURE` down. (TREC, 1,500 questions,
# 10 epochs, 40 % symmetric noise, one seed, held-out accuracy at the last, plain and with about .2, .5, .8 and .9: 50
# fine classes, at .68, 69.7, 62.9, -, 70.1, 70.0; the largest 16 of them, at .80, 77.8, 78.2, -, 81.1, 79.4; six
# classes with half the learning rate, at .81, 80.8, 80.8, 83.1, 83.1; six with 60 % noise, at .86, 41.9, 64.8, -,
# 51.6.)
SURE = 0.86
UNSURE_MOMENTUM = 0.8
# Below it neighbors are not asked either, as examples lie where the model has hardly learned to put them. (Six classes
# with a fifth of the learning rate, at .64: with them 74.9, without 76.9, by 0.9 without 78.1, plain 78.5.)
UNSURE = 0.78
# Labels that are nearly all right are hardly moved then: on 1,500 clean pictures of CIFAR at 96 pixels (one seed) the
# paper's 0.9 ended at 78.9 on held-out ones and 0.988, as estimated, at 79.8.
MOST_MOMENTUM = 0.99
# Visits, agreeing and changed; then visits and agreeing ones by confidence, and visits to each class.
NUM_TALLIES = 3


def auto_momentum(
    visits_left: float,
    agreement: float,
    flicker: float = 0.0,
    lead: float = 0.0,
    right: float = 0.0,
    sure: float = 1.0,
) -> float:
    """Momentum with which labels are kept as far as they can be trusted, and corrected before the run ends.

    How far predictions and given labels agree in the epoch before the onset says how far the labels can be trusted; the
    target keeps the square of that share, 0.2 at least. (On TREC with 40 to 60 % noise momenta of 0.2 ended up to three
    points above the share itself; on clean labels 0.7 ended a point above 0.2.) It keeps more where a single prediction
    is not to be trusted: the paper's 0.9 where 0.4 of the predictions flicker from visit to visit, in proportion where
    fewer do, and as much as lets a contradicted label take a tenth of the visits left to flip, 0.9 over a hundred
    visits. It keeps up to 0.8 where the model is less sure than it is right by the given labels, as with many classes:
    targets that follow such predictions are flat, and it would learn little more.

    The upper bound: a label that the model contradicts at each visit with probability 3/4 or more must flip within two
    thirds of the visits left. After `n` such visits the target's mass on the given label is below the other's when `a^n
    < 1/3`, so `a <= (1/3)^(1/n)` with `n = max(1, visits_left * 2 / 3)`; and never above the paper's 0.9.

    Below two visits the least rises, to 0.37 at one: a label that is contradicted with probability 0.8 then flips.

    Where labels are right more often than predictions by more than 0.17, it is the paper's 0.9, or the share of them
    that are right if that is more, and in a short run few labels flip: the model has yet to learn from them.

    Args:
        visits_left: visits of each example from the onset to the end of training.
        agreement: share of the predictions that were the given label, in [0, 1].
        flicker: share of the predictions that change from visit to visit without the model learning much, in [0, 1].
        lead: share of the given labels that are right, less that of the predictions, as far as it can be told.
        right: that share of the given labels; it counts where the lead does.
        sure: mean confidence of the predictions, as a part of the agreement.

    Example:
        >>> [round(auto_momentum(left, agreement=0.5), 3) for left in (2, 6, 200)]
        [0.25, 0.25, 0.9]
        >>> [round(auto_momentum(left, agreement=0.97), 3) for left in (1, 2, 6, 200)]
        [0.37, 0.439, 0.76, 0.9]
        >>> [auto_momentum(6, agreement=0.7, lead=0.2, right=right) for right in (0.6, 0.98)]
        [0.9, 0.98]
    """
    if lead > LEAD:
        return max(PAPER_MOMENTUM, min(right, MOST_MOMENTUM))
    visits_to_flip = max(1.0, visits_left * 2.0 / 3.0)
    slow = (1.0 / 3.0) ** (1.0 / (SLOWEST_SHARE * visits_left)) if visits_left > 0 else 0.0
    unsure = float(np.interp(sure, (UNSURE, SURE), (UNSURE_MOMENTUM, LEAST_MOMENTUM)))
    trust = max(agreement**2, PAPER_MOMENTUM * flicker / FROM_SCRATCH, slow, unsure)
    least = LEAST_MOMENTUM + _nearness_of_last(visits_left) * (LAST_VISIT_MOMENTUM - LEAST_MOMENTUM)
    return max(least, min(trust, PAPER_MOMENTUM, (1.0 / 3.0) ** (1.0 / visits_to_flip)))


def auto_sce_beta(visits_left: float, flicker: float, num_classes: int) -> float:
    """Weight of the reverse cross-entropy against the soft targets, in the symmetric loss of SAT's authors.

    Where predictions flicker [`auto_momentum`] keeps soft targets close to the given labels, wrong ones among them. The
    symmetric loss pulls less where the model is sure of another class: its weight there is 1, with more than ten
    classes 10 over their number. It is less where more than ten visits are left, in which labels flip, and 0.3 of that
    from 30 on. It is 0 at the last visit, and where predictions do not flicker, as it would make a model that corrects
    labels by its predictions surer of these.

    Args:
        visits_left, flicker: as for [`auto_momentum`].
        num_classes: C.

    Example:
        >>> auto_sce_beta(6, flicker=0.0, num_classes=10)
        0.0
        >>> [auto_sce_beta(left, flicker=0.5, num_classes=10) for left in (1, 6, 20, 200)]
        [0.0, 1.0, 0.65, 0.3]
    """
    if flicker == 0.0:
        return 0.0
    few = float(np.interp(visits_left, SCE_VISITS, (1.0, SCE_OF_MANY_VISITS)))
    return SCE_BETA * few * min(1.0, SCE_CLASSES / num_classes) * (1.0 - _nearness_of_last(visits_left))


def _nearness_of_last(visits_left: float) -> float:
    """1 where one visit is left, 0 from two on."""
    return min(1.0, max(0.0, 2.0 - visits_left))


def latest_start(total_epochs: float, num_classes: int = 3) -> float:
    """Epoch at which correction starts if no onset has been seen, but predictions are steady.

    After two passes, in which a pretrained model learns what is common and hardly anything by heart; a short run leaves
    its last pass for correction, but the first is always plain. Longer runs wait no longer, up to 28 epochs: those are
    for models that learn from scratch, and it is a quarter of the epochs beyond 20. With two classes, which are learned
    and learned by heart sooner, after one pass and a half, or 0.15 in place of a quarter. (SUBJ with 40 % symmetric
    noise in 10 epochs, onset at 1.5 instead of 2: 77.1 instead of 73.7, with neighbors 80.3 instead of 74.1; SST-2
    without neighbors 66.7.)

    Example:
        >>> [latest_start(total) for total in (1, 2, 3, 10, 28, 100)]
        [1.0, 1.0, 2.0, 2.0, 2.0, 20.0]
        >>> [latest_start(total, num_classes=2) for total in (1, 2, 3, 10, 28, 100)]
        [1.0, 1.0, 1.5, 1.5, 1.5, 12.0]
    """
    passes, share = (1.5, 0.15) if num_classes == 2 else (2.0, 0.25)
    return max(1.0, min(passes, total_epochs - 1.0), share * (total_epochs - FINE_TUNING))


def last_resort(total_epochs: float, num_classes: int = 3) -> float:
    """Epoch at which correction starts though predictions are not steady: half of the run, or where it would anyway.

    Example:
        >>> [last_resort(total) for total in (1, 3, 4, 8, 100)]
        [1.0, 2.0, 2.0, 4.0, 50.0]
    """
    return max(latest_start(total_epochs, num_classes), total_epochs / 2.0)


@dataclass
class Schedule:
    """Onset and momentum of one run: the numbers that were set, or those that "auto" finds.

    An automatic onset is the first half epoch at which the model has learned something, its predictions are steady, and
    they have settled or `latest_start` has come, though where 0.4 of them flicker not before 0.3 of the run; or
    where `last_resort` has.

    Args:
        start_epoch: number or "auto".
        momentum: number or "auto".
        total_epochs: passes over the data in the whole run.
    """

    start_epoch: float | str
    momentum: float | str
    total_epochs: float
    onset: float | None = None
    current_momentum: float | None = None
    sce_beta: float = 0.0
    trusts_neighbors: bool = True
    correcting: bool = False
    periods: list[Period] = field(default_factory=list)
    counts: Tensor | None = None

    def __post_init__(self):
        if self.start_epoch != AUTO:
            self.onset = self.start_epoch

    def begin_step(self, epoch: float) -> None:
        """Decide for the optimizer step that begins at `epoch`, alike for all its micro-batches."""
        if not self.onset_reached:
            self._read_counts(epoch)
            if self.onset is None and self._is_time(epoch):
                self.onset = epoch
        self.correcting = self.onset is not None and epoch >= self.onset
        if self.correcting and not self.onset_reached:
            self._decide_by_predictions(epoch)

    @property
    def onset_reached(self) -> bool:
        """Whether any step has been corrected."""
        return self.current_momentum is not None

    @property
    def _classes(self) -> int:
        """As the visits told; 2 before the first."""
        return 2 if self.counts is None else len(self.counts) - NUM_TALLIES - 2 * CONFIDENCES

    def _read_counts(self, epoch: float) -> None:
        """Close a period; the one time in half an epoch that the host waits for the device."""
        if self.counts is not None and epoch * PERIODS_PER_EPOCH >= len(self.periods) + 1:
            visits, agreeing, changed, *rest = self.counts.tolist()
            histograms, of_class = rest[: 2 * CONFIDENCES], rest[2 * CONFIDENCES :]
            by_confidence = [histograms[:CONFIDENCES], histograms[CONFIDENCES:]]
            self.periods.append(Period(visits, agreeing, changed, max(of_class), by_confidence))
            self.counts.zero_()

    def _last_epochs(self) -> tuple[Period | None, Period | None]:
        """Counts of the epoch before the last and of the last, as far as there are any."""
        n = PERIODS_PER_EPOCH
        parts = (self.periods[-2 * n : -n], self.periods[-n:])
        return tuple(Period.sum(part) if len(part) == n else None for part in parts)

    def _flicker(self) -> float:
        """Share of the predictions that flickers; none before there are two epochs to compare."""
        before, last = self._last_epochs()
        return flickering(before, last) if before is not None else 0.0

    def _is_time(self, epoch: float) -> bool:
        before, last = self._last_epochs()
        if last is None or not has_learned(last):
            return False
        classes = self._classes
        # All of the first epoch's predictions are new, so the first comparison is of the third with the second.
        settled = len(self.periods) >= 3 * PERIODS_PER_EPOCH and has_settled(before, last)
        in_time = settled or epoch >= latest_start(self.total_epochs, classes)
        if self._flicker() >= FROM_SCRATCH:
            in_time = in_time and epoch >= PAPER_START * self.total_epochs
        with_predecessor = Period.sum(self.periods[PERIODS_PER_EPOCH:][-PERIODS_PER_EPOCH:])
        return (in_time and is_steady(with_predecessor)) or epoch >= last_resort(self.total_epochs, classes)

    def _decide_by_predictions(self, epoch: float) -> None:
        """Momentum, weight of the reverse cross-entropy, and whether neighbors count, as the predictions suggest."""
        seen = Period.sum(self.periods) if self.periods else None
        flicker, last = self._flicker(), self._last_epochs()[1] or seen
        agreement = last.agreeing / max(last.visits, 1) if last else 1.0
        lead, right = self._lead(last, flicker) if last else (0.0, 0.0)
        sure = sureness(last) if last else 1.0
        left = self.total_epochs - epoch
        automatic = auto_momentum(left, agreement, flicker, lead, right, sure)
        self.current_momentum = automatic if self.momentum == AUTO else self.momentum
        self.sce_beta = auto_sce_beta(left, flicker, self._classes)
        self.trusts_neighbors = sure >= UNSURE

    def _lead(self, last: Period, flicker: float) -> tuple[float, float]:
        """Lead of the labels, and the share that is right; none where calm predictions know them by heart.

        In the first pass none had been seen before, so what looks right far more often since was learned by heart.
        """
        right, first_pass = shares_right(last)[0], self.periods[:PERIODS_PER_EPOCH]
        grown = right - shares_right(first_pass[-1])[0]
        by_heart = flicker == 0.0 and len(first_pass) == PERIODS_PER_EPOCH and grown > BY_HEART
        return 0.0 if by_heart else lead_of_labels(last), right

    def see(
        self,
        fresh: Tensor,
        agreeing: Tensor,
        changed: Tensor,
        labels: Tensor,
        num_classes: int,
        confidence: Tensor,
    ) -> None:
        """Add the visits of a committed step, (M,) each; counted on the device.

        Args:
            fresh: which count.
            agreeing, changed: whether the prediction is the given label, and another than at the visit before, if any.
            labels: given labels.
            confidence: largest predicted probability.
        """
        if self.onset_reached:
            return
        if self.counts is None:
            size = NUM_TALLIES + 2 * CONFIDENCES + num_classes
            self.counts = torch.zeros(size, dtype=torch.int64, device=labels.device)
        self.counts[:NUM_TALLIES] += torch.stack([fresh.sum(), (fresh & agreeing).sum(), changed.sum()])
        place = (confidence.clamp(0.0, 1.0) * CONFIDENCES).long().clamp_max(CONFIDENCES - 1)
        self.counts.index_add_(0, NUM_TALLIES + place, fresh.long())
        self.counts.index_add_(0, NUM_TALLIES + CONFIDENCES + place, (fresh & agreeing).long())
        self.counts.index_add_(0, NUM_TALLIES + 2 * CONFIDENCES + labels.clamp_min(0), fresh.long())

    def logs(self) -> dict[str, float]:
        """Onset and momentum, once they are in force."""
        if not self.correcting:
            return {}
        return {"sat/onset_epoch": self.onset, "sat/momentum": self.current_momentum}

    def findings(self) -> dict[str, str]:
        """What "auto" came to, in words."""
        if not self.onset_reached:
            return {}
        return {"onset (epoch)": f"{self.onset:g}", "momentum in force": f"{self.current_momentum:.3g}"}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to decide as this one would."""
        return {
            "onset": self.onset,
            "momentum": self.current_momentum,
            "sce_beta": self.sce_beta,
            "periods": [list(vars(period).values()) for period in self.periods],
            "counts": None if self.counts is None else self.counts.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up what `state_dict` gave. Numbers that are set now win over those of the checkpoint."""
        self.periods = [Period(*period) for period in state["periods"]]
        self.sce_beta = state["sce_beta"]
        self.counts = None if state["counts"] is None else torch.tensor(state["counts"], device=device)
        if self.start_epoch == AUTO:
            self.onset = state["onset"]
        if self.momentum == AUTO or state["momentum"] is None:
            self.current_momentum = state["momentum"]
        else:
            self.current_momentum = self.momentum
