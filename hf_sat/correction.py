"""Label correction over one call of `train()`: prepare once, resolve once, loss pure, observe once, commit.

Nothing here knows the Trainer: steps and epochs come in as numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import Batch, flat_logits
from .confident_joint import ConfidentJoint, counted_visits
from .exchange import Exchange, InFlight
from .methods.label_correction import LabelCorrectionMethod
from .methods.schedule import Schedule
from .methods.self_adaptive import moved_targets
from .monitor import CorrectionMonitor
from .neighborhood import PASSES_BEFORE, RECENT, VOTES_FROM, Neighborhood
from .samples import IGNORED, UNKNOWN, Samples
from .soft_targets import SoftTargets
from .state import LabelState, check_fingerprint, fingerprint, read_state, save_state
from .visits import Visits, first_occurrence


@dataclass
class Window:
    """The optimizer step that visits belong to."""

    step: int = -1
    epoch: float = 0.0
    last_of_epoch: bool = False


class LabelCorrection:
    """The label state of a run and everything that reads or moves it.

    Args:
        method: how targets move and what the loss is.
        schedule: when correction is on, and its momentum.
        samples: the training examples.
        device: where the model, and the state but for the targets, lives.
        storage: (number of rows, number of classes) -> where the soft targets lie.
        neighbors: (number of rows, number of classes) -> how many neighbors tell of an example, 0 for none.
        doubts_neighbors: whether they are not asked where the model is unsure at the onset.
        feature_width: of the features by which neighbors are found, which batches then carry; None: by logits.
        num_classes: classes of the model where known; otherwise the first logits tell.
        label_smoothing: of the plain cross-entropy before the onset.
        reset_changed: whether rows whose label was edited between runs start anew, rather than being refused.
        distributed: whether other processes train on other examples.
        top_k, name: entries that `storage` keeps of a row, and the method's name, for the checkpoint's record.
    """

    def __init__(
        self,
        method: LabelCorrectionMethod,
        schedule: Schedule,
        samples: Samples,
        device: torch.device,
        storage: Callable[[int, int], SoftTargets],
        neighbors: Callable[[int, int], int] = lambda num_rows, num_classes: 0,
        doubts_neighbors: bool = False,
        feature_width: int | None = None,
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        reset_changed: bool = False,
        distributed: bool = False,
        top_k: int | None = None,
        name: str = "sat",
    ):
        self.method = method
        self.name = name
        self.schedule = schedule
        self.samples = samples
        self.device = device
        self.storage = storage
        self.neighbors = neighbors
        self.doubts_neighbors = doubts_neighbors
        self.feature_width = feature_width
        self.label_smoothing = label_smoothing
        self.reset_changed = reset_changed
        self.distributed = distributed
        self.top_k = top_k
        self.state: LabelState | None = None
        self.monitor: CorrectionMonitor | None = None
        self.joint: ConfidentJoint | None = None
        self.neighborhood: Neighborhood | None = None
        self.trusted = self._trusted_rows()
        self.window = Window()
        self.pending: list[Visits] = []
        self.exchange: Exchange | None = None
        self.in_flight: tuple[Window, InFlight] | None = None
        if num_classes is not None:
            self._allocate(num_classes)

    def _trusted_rows(self) -> Tensor | None:
        """Per state row, with the spare one, from the marks per example."""
        if self.samples.trusted is None:
            return None
        trusted = torch.from_numpy(self.samples.trusted)
        if self.samples.offsets is not None:
            trusted = trusted.repeat_interleave(torch.from_numpy(self.samples.offsets).diff())
        return F.pad(trusted.to(self.device), (0, 1))

    def _allocate(self, num_classes: int) -> None:
        storage = self.storage(self.samples.num_rows, num_classes)
        labels = None if self.samples.labels is None else torch.from_numpy(self.samples.labels)
        self.state = LabelState(storage, labels, self.device, empty=self.method.starts_empty)
        clean = None if self.samples.clean is None else torch.from_numpy(self.samples.clean)
        self.monitor = CorrectionMonitor(self.state, clean)
        k = self.neighbors(self.samples.num_rows, num_classes)
        visits = counted_visits(self.schedule.total_epochs, num_classes, has_neighbors=k > 0)
        self.joint = ConfidentJoint(num_classes, self.device, visits)
        size = (self.samples.num_rows, num_classes)
        self.neighborhood = Neighborhood(*size, k, self.device, self.feature_width) if k else None

    # ---- the step ---------------------------------------------------------------------------------------------------

    def begin_step(self, step: int, epoch: float, last_of_epoch: bool) -> None:
        """Open the window of optimizer step `step`; the same for all its micro-batches."""
        self.window = Window(step, epoch, last_of_epoch)
        decides = not self.schedule.onset_reached
        if decides:
            self.settle()  # the schedule decides by what all processes have seen
        self.schedule.begin_step(epoch)
        if self.correcting:
            self.method = self.method.at_onset(self.schedule.sce_beta)
        if decides and self.correcting and self._asks_neighbors(epoch):
            self.neighborhood.learn_noise(since=epoch - RECENT)

    def _asks_neighbors(self, epoch: float) -> bool:
        """Whether neighbors are to tell of an example from this onset on."""
        asks = self.schedule.trusts_neighbors or not self.doubts_neighbors
        return self.neighborhood is not None and epoch >= PASSES_BEFORE and asks

    @property
    def reads_features(self) -> bool:
        """Whether neighbors are found by the features that batches carry."""
        return self.neighborhood is not None and self.feature_width is not None

    @property
    def correcting(self) -> bool:
        return self.schedule.correcting

    def loss(self, batch: Batch, logits: Tensor) -> Tensor:
        """Sum of the losses of the counted positions, against the target that was resolved; changes nothing."""
        logits = flat_logits(logits, batch)
        if self.method.waits and not self.correcting:
            return F.cross_entropy(
                logits.to(torch.promote_types(logits.dtype, torch.float32)),
                batch.labels,
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
        losses = self.method.losses(logits, batch.target, batch.weights, batch.labels)
        return torch.where(batch.counted, losses, 0.0).sum()

    def _fit_classes(self, num_classes: int) -> None:
        if self.state is None:
            self._allocate(num_classes)
        elif self.state.num_classes != num_classes:
            raise ValueError(
                f"the model's logits have {num_classes} classes and the soft targets {self.state.num_classes}: set the "
                "model's num_labels to the width of its head; on resume, use the model of that run."
            )

    @torch.no_grad()
    def resolve(self, batch: Batch, logits: Tensor) -> None:
        """Fix the target of this visit by the first pass and queue it; later passes over the batch change neither."""
        if batch.target is not None:
            return
        self.settle()
        logits = flat_logits(logits, batch)
        self._fit_classes(logits.shape[-1])
        stored = self.state.stored_targets(batch.rows, batch.labels)
        finite = torch.isfinite(logits).all(dim=-1)
        target, votes = stored, self._votes(batch, logits)
        if self.correcting:
            target = self._moved(stored, batch, logits, votes)
            moves = finite if self.trusted is None else finite & ~self.trusted[batch.rows]
            target = torch.where(moves[:, None], target, stored)
        batch.target = target
        batch.weights = self.method.weights(target, batch.counted)
        self._queue(batch, logits, finite, votes)

    def _votes(self, batch: Batch, logits: Tensor) -> Tensor:
        """What the neighbors say, (M, C): from the second pass on, and where there are any; else (M, 0)."""
        if self.neighborhood is None:
            return logits.new_zeros(len(logits), 0, dtype=torch.float32)
        if self.window.epoch < VOTES_FROM:
            return torch.zeros_like(logits, dtype=torch.float32)
        return self.neighborhood.ask(batch.rows, self._positions(batch, logits))

    def _positions(self, batch: Batch, logits: Tensor) -> Tensor:
        """Where neighbors are looked for, (M, D); (M, 0) where there are none."""
        if self.neighborhood is None:
            return logits.new_zeros(len(logits), 0, dtype=torch.float32)
        return (logits if self.feature_width is None else batch.features).float()

    def _moved(self, stored: Tensor, batch: Batch, logits: Tensor, votes: Tensor) -> Tensor:
        """The soft target of this visit: towards the model's prediction, and towards what the neighbors tell."""
        momentum = self.schedule.current_momentum
        if self.neighborhood is None or not self.neighborhood.knows_noise:
            return self.method.resolve(stored, logits, momentum)
        return moved_targets(stored, self.neighborhood.estimate(votes, batch.labels, logits), momentum)

    def _queue(self, batch: Batch, logits: Tensor, finite: Tensor, votes: Tensor) -> None:
        given, wide = batch.labels.clamp_min(0)[:, None], logits.float()
        probabilities = wide.softmax(dim=-1)
        p_given = probabilities.gather(1, given)[:, 0]
        margin = wide.gather(1, given)[:, 0] - wide.scatter(1, given, -torch.inf).max(dim=-1).values
        self.pending.append(
            Visits(
                rows=batch.rows,
                labels=batch.labels,
                target=batch.target,
                predicted=logits.argmax(dim=-1),
                p_given=torch.where(finite, p_given, 0.0),
                margin=torch.where(finite, margin, 0.0),
                finite=finite,
                confident=self.joint.confident(probabilities, self.state.n_visits[batch.rows].long()),
                positions=self._positions(batch, logits),
                votes=votes,
            )
        )

    # ---- the commit -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def commit(self, steps_taken: int, skipped: bool | Tensor) -> None:
        """Write what belongs to an optimizer step that has been taken; call as often as you like.

        Args:
            steps_taken: optimizer steps begun and ended so far.
            skipped: whether the last of them left the weights as they were (overflow under fp16); on the device where
                the host does not know.
        """
        if not self.pending or steps_taken <= self.window.step:
            return
        visits, self.pending = Visits.joined(self.pending), []
        if skipped is True:
            return
        if isinstance(skipped, Tensor):
            visits.rows = torch.where(skipped, self.state.spare_row, visits.rows)
        self.settle()
        if not self.distributed:
            return self._write(visits, self.window)
        packed = visits.packed()
        self.exchange = self.exchange or Exchange(packed.shape[1])
        # Waited for when the state is next read, which is after the next forward pass.
        self.in_flight = self.window, self.exchange.start(packed)

    @torch.no_grad()
    def settle(self) -> None:
        """Write what all processes sent of the last committed step; each comes by here at the same points."""
        if self.in_flight is not None:
            (window, message), self.in_flight = self.in_flight, None
            self._write(Visits.unpacked(message.wait(), self.state.num_classes), window)

    def _write(self, visits: Visits, window: Window) -> None:
        state, spare = self.state, self.state.spare_row
        rows, first = visits.rows, first_occurrence(visits.rows)
        counted = rows != spare
        if self.distributed and window.last_of_epoch:
            # Several processes fill up the last batches of an epoch with rows of its beginning.
            counted = counted & (state.last_epoch[rows] != int(window.epoch))
        fresh = counted & visits.finite & (first == torch.arange(len(rows), device=rows.device))
        labels, given = visits.labels, state.given_labels[rows].long()
        known = given == labels
        self.monitor.count(rows, given, state.current_labels(rows), -(fresh & (given >= 0)).long())
        agreeing = visits.predicted == labels
        confidence = visits.target.max(dim=1).values
        self.monitor.see(rows, visits.predicted, counted, visits.finite, agreeing, confidence)
        # A first prediction counts as changed, whether the label was known before the run or shows itself only now.
        changed = fresh & ~(known & (state.last_prediction[rows] == visits.predicted))
        self.schedule.see(fresh, agreeing, changed, labels, state.num_classes, visits.p_predicted)
        self.joint.see(state.n_visits[rows].long(), labels, visits.confident, visits.p_given, fresh)
        if self.neighborhood is not None:
            self.neighborhood.remember(fresh, rows, labels, visits.positions, visits.votes, window.epoch)
        # Rows that are not fresh write to the spare row, so that each row has one writer.
        at = torch.where(fresh, rows, spare)
        state.targets.write(at, visits.target)
        self.monitor.count(rows, labels.clamp_min(0), state.targets.largest(rows), fresh.long())
        state.remember(
            at,
            rows,
            known,
            labels=labels,
            predicted=visits.predicted,
            p_given=visits.p_given,
            margin=visits.margin,
            epoch=int(window.epoch),
        )

    # ---- logs and checkpoints ---------------------------------------------------------------------------------------

    def logs(self) -> dict[str, float]:
        """Entries for the Trainer's log; empty before the first step."""
        self.settle()
        if self.monitor is None:
            return {}
        logs = {**self.monitor.read(self.correcting), **self.schedule.logs()}
        if self.neighborhood is not None and self.neighborhood.knows_noise:
            logs["sat/neighbor_noise_rate"] = self.neighborhood.noise_rate()
            logs["sat/neighbor_share"] = float(self.neighborhood.share)
        if self.correcting and getattr(self.method, "loss", None) == "sce":
            logs["sat/sce_beta"] = self.method.sce_beta
        weighs = self.correcting and getattr(self.method, "reweight", False)
        logs["sat/mean_weight"] = logs["sat/target_confidence"] if weighs else 1.0
        return logs

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.samples)

    def save(self, folder: str) -> None:
        """Write the state of all committed steps into a checkpoint."""
        classes = self.state and self.state.num_classes
        form = {"method": self.name, "num_classes": classes, "top_k": self.top_k, "neighbors": self._num_neighbors()}
        about = {"fingerprint": self._fingerprint, "form": form, "schedule": self.schedule.state_dict()}
        save_state(folder, self._tensors(), about)

    def _num_neighbors(self) -> int:
        return 0 if self.neighborhood is None else self.neighborhood.k

    def _tensors(self) -> dict[str, Tensor]:
        if self.state is None:  # before the first batch of a model that does not tell its classes
            return {}
        parts = (self.state, self.monitor, self.joint, *([self.neighborhood] if self.neighborhood else []))
        return {name: value for part in parts for name, value in part.tensors().items()}

    def load(self, folder: str) -> Tensor | None:
        """Go on from a checkpoint; returns the labels it knows, for the label check.

        Raises:
            ValueError: for a missing or truncated file, other data, other labels, other classes.
        """
        tensors, about = read_state(folder)
        check_fingerprint(folder, about["fingerprint"], self._fingerprint)
        self.schedule.load_state_dict(about["schedule"], self.device)
        if not tensors:
            return None
        self._allocate(about["form"]["num_classes"])
        saved, now = about["form"].get("neighbors", 0), self._num_neighbors()
        if saved != now:
            raise ValueError(
                f"the checkpoint in {folder} remembers {saved} neighbors of an example and this run has "
                f"sat_neighbors={now}: resume with sat_neighbors={saved}, or train anew."
            )
        current = self.state.given_labels.clone()
        self.state.load(tensors)
        self.joint.load(tensors)
        if self.neighborhood is not None:
            self.neighborhood.load(tensors)
        self._take_edits(current)
        self.monitor.load(tensors, self.state)
        return self.state.given_labels[:-1]

    def _take_edits(self, current: Tensor) -> None:
        """Rows whose label is not the one the checkpoint was written with."""
        saved = self.state.given_labels
        rows = torch.nonzero((current != UNKNOWN) & (saved != UNKNOWN) & (current != saved))[:, 0]
        if len(rows) == 0:
            return
        if not self.reset_changed:
            row = int(rows[0])
            raise ValueError(
                f"{len(rows)} labels differ from those of the checkpoint; the first is that of "
                f"{self.samples.name_row(row)}, {int(saved[row])} then and {int(current[row])} now. If they were "
                'edited on purpose set sat_on_label_change="reset_rows"; if rows were reordered name their ids with '
                "sample_id_column."
            )
        self.state.reset_rows(rows, current[rows])
        if self.neighborhood is not None:
            self.neighborhood.forget(rows)
