"""Counts of what label correction does, kept on the device and read only when the Trainer logs."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging

from .samples import IGNORED
from .soft_targets import pieces
from .state import LabelState

logger = logging.get_logger(__name__)

# Sums since the last log, in this order.
INTERVAL = ("visits", "agreeing", "confidence", "nonfinite", "clean_agreeing")
# A class is being swallowed when it keeps less than this share of the rows that were given to it.
SWALLOWED_SHARE = 0.2
SWALLOWED_FROM = 10


class CorrectionMonitor:
    """Running counts over all rows, and sums over the visits since the last log.

    Args:
        state: the rows; read once, here.
        clean: clean label of each row where known, (R,) int64, for precision and recall of the corrections.
    """

    def __init__(self, state: LabelState, clean: Tensor | None):
        device = state.given_labels.device
        self.given = torch.zeros(state.num_classes, dtype=torch.int64, device=device)
        self.corrected = torch.zeros_like(self.given)
        self.assigned = torch.zeros_like(self.given)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.wrong = torch.zeros_like(self.right)
        self.interval = torch.zeros(len(INTERVAL), dtype=torch.float32, device=device)
        # One more for the spare row, which is never counted.
        self.clean = None if clean is None else F.pad(clean.to(device), (0, 1), value=IGNORED)
        self.swallowed: set[int] = set()
        self._recount(state)

    def _recount(self, state: LabelState) -> None:
        for counter in (self.given, self.corrected, self.assigned, self.right, self.wrong):
            counter.zero_()
        # The only pass over all rows, when they are new or were loaded.
        for rows in pieces(state.targets, self.given.device):
            given = state.given_labels[rows].long()
            self.count(rows, given, state.current_labels(rows), (given >= 0).long())

    def count(self, rows: Tensor, given: Tensor, current: Tensor, sign: Tensor) -> None:
        """Add (sign 1) or take away (-1) rows with these given and current labels; sign 0 leaves a row out."""
        corrected = sign * (current != given)
        given = given.clamp_min(0)
        self.given.index_add_(0, given, sign)
        self.assigned.index_add_(0, current, sign)
        self.corrected.index_add_(0, given, corrected)
        if self.clean is not None:
            clean = self.clean[rows]
            self.right += (corrected * (current == clean)).sum()
            self.wrong += (sign * (given != clean)).sum()

    def see(
        self,
        rows: Tensor,
        predicted: Tensor,
        counted: Tensor,
        finite: Tensor,
        agreeing: Tensor,
        confidence: Tensor,
    ) -> None:
        """Add visits, (M,) each, to the interval."""
        valid = counted & finite
        clean_agreeing = torch.zeros_like(valid) if self.clean is None else valid & (self.clean[rows] == predicted)
        sums = (valid, valid & agreeing, valid * confidence, counted & ~finite, clean_agreeing)
        self.interval += torch.stack([part.sum(dtype=torch.float32) for part in sums])

    def read(self, correcting: bool) -> dict[str, float]:
        """The log entries, and a new interval. The one place where the host waits for the device."""
        given, corrected, assigned = (c.tolist() for c in (self.given, self.corrected, self.assigned))
        right, wrong, interval = self.right.item(), self.wrong.item(), dict(zip(INTERVAL, self.interval.tolist()))
        self.interval.zero_()
        visits = max(interval["visits"], 1.0)
        logs = {
            "sat/corrected": sum(corrected) / max(sum(given), 1),
            "sat/corrected_worst_class": max(c / max(g, 1) for c, g in zip(corrected, given)),
            "sat/agreement": interval["agreeing"] / visits,
            "sat/target_confidence": interval["confidence"] / visits,
        }
        if self.clean is not None:
            logs["sat/clean_agreement"] = interval["clean_agreeing"] / visits
        if self.clean is not None and sum(corrected):
            logs["sat/precision"] = right / sum(corrected)
        if wrong:
            logs["sat/recall"] = right / wrong
        if interval["nonfinite"]:
            logs["sat/nonfinite_rows"] = interval["nonfinite"]
        if correcting:
            self._warn_of_swallowed(given, assigned)
        return logs

    def _warn_of_swallowed(self, given: list[int], assigned: list[int]) -> None:
        for label, (had, has) in enumerate(zip(given, assigned, strict=True)):
            if label not in self.swallowed and had >= SWALLOWED_FROM and has < SWALLOWED_SHARE * had:
                self.swallowed.add(label)
                logger.warning(
                    f"Class {label} is being swallowed: {had} examples were given this label, {has} are left with it "
                    "after correction. Mark rows you trust (trusted_column), start later (sat_start_epoch), or keep "
                    "more of the given labels (a larger sat_momentum)."
                )

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs beyond the rows."""
        return {"monitor.interval": self.interval}

    def load(self, tensors: dict[str, Tensor], state: LabelState) -> None:
        self.interval.copy_(tensors["monitor.interval"])
        self._recount(state)
