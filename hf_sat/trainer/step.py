"""A step with a loss of ours in `transformers.Trainer`: prepare once, loss pure, observe once.

The methods stand above this one in the order of classes and add their part to the functions below.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather
from torch import Tensor
from transformers.trainer_utils import unwrap_peft_model

from ..batch import Batch, SharedLabels, flat_logits, state_rows
from ..config import label_correction_settings
from ..recipe import Setup, logits_of
from ..samples import IGNORED
from .model_card import ModelCardMixin
from .numbered_data import NumberedDataMixin


class StepMixin(NumberedDataMixin, ModelCardMixin):
    """The loss of a training step for any subclass of `transformers.Trainer`; untouched while no method has one."""

    default_label_correction = "sat"

    _running = False  # whether the loss of the run under way is ours
    _items_in_window: Tensor | int | None = None
    _batch: Batch | None = None
    _replaying: Any = None  # the pass that is run again, with its `batch`
    _is_asked = False  # whether a user's `compute_loss` asks for our loss

    # ---- what methods add to ----------------------------------------------------------------------------------------

    def _has_own_loss(self) -> bool:
        """Whether a method of the coming run has a part in the loss."""
        return False

    def _knows_examples(self) -> bool:
        """Whether one of them keeps something of each example."""
        return False

    def _refuse_what_cannot_work(self) -> None:
        """Raise `ValueError` before anything runs."""

    def _change_data(self, until_loaded: contextlib.ExitStack) -> None:
        """Put what is ours around data set and collator, until the loader is made of them."""
        if self._knows_examples():
            until_loaded.enter_context(self._numbered_data())

    def _prepare_run(self) -> None:
        """Make what the run needs; the training data are ours already."""

    def _end_run(self) -> None:
        """Write what is due after the last step."""

    def _prepare_batch(self, inputs: Mapping) -> Batch:
        """Look up once what all passes over this micro-batch need."""
        labels, rows = inputs[self._label_key()], None
        counted = labels.flatten() != IGNORED
        if self._numbered:
            if self._examples is None:
                raise ValueError(
                    "a training batch carries no example numbers: make the loader of self.train_dataset with "
                    'self.data_collator, as label correction adds them there, or set label_correction="none".'
                )
            examples = self._examples.to(labels.device)
            rows = state_rows(examples, labels, self._offsets, self._samples.num_rows, self._positions)
            counted = rows != self._samples.num_rows
        return Batch(inputs=inputs, labels=labels.flatten().long(), rows=rows, counted=counted)

    def _model_inputs(self, inputs: SharedLabels) -> SharedLabels:
        """What the model is called with in training."""
        return inputs

    def _observe(self, batch: Batch, logits: Tensor) -> None:
        """Take in the predictions of the first pass over a batch; later passes change nothing."""

    def _loss_parts(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Each part of the loss, as a sum over the counted positions; changes nothing."""
        return {"task": self._task_loss(batch, logits)}

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        """The parts together."""
        return parts["task"]

    def _record(self, batch: Batch, logits: Tensor, parts: dict[str, Tensor]) -> None:
        """Keep what is logged of the first pass."""

    def _task_loss(self, batch: Batch, logits: Tensor) -> Tensor:
        """Sum of the losses of the counted positions against their targets."""
        return F.cross_entropy(
            flat_logits(logits, batch).to(torch.promote_types(logits.dtype, torch.float32)),
            batch.labels,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.args.label_smoothing_factor,
        )

    # ---- a run ------------------------------------------------------------------------------------------------------

    def _inner_training_loop(self, *args, **kwargs):
        # Not `train`: auto_find_batch_size starts this loop again, and then everything of ours starts anew too.
        self._running, self._numbered, self._examples = False, False, None
        self._settings = label_correction_settings(self.args, self.default_label_correction)
        if self.train_dataset is None or not self._has_own_loss():
            return super()._inner_training_loop(*args, **kwargs)
        self._refuse_what_cannot_work()
        self._running = True
        # Upstream scales what this returns rightly for any accumulation and number of processes, and a user's own
        # `compute_loss`, above or beneath, keeps what it adds.
        self.compute_loss_func = self._own_loss
        with contextlib.ExitStack() as self._until_loaded:
            try:
                self._change_data(self._until_loaded)
                self._prepare_run()
                output = super()._inner_training_loop(*args, **kwargs)
                self._end_run()
                return output
            finally:
                self._running = self._numbered = False
                self.compute_loss_func = None

    def set_initial_training_values(self, args, dataloader):
        if self._running:
            self._until_loaded.close()  # the loader is made
        return super().set_initial_training_values(args, dataloader)

    def _setup(self) -> Setup:
        model = self._base_model()
        parallel = (self.get_tp_size(), self.get_cp_size(), self.get_sp_size())
        return Setup(
            model_class=type(model).__name__,
            problem_type=getattr(getattr(model, "config", None), "problem_type", None),
            num_classes=self._num_classes(),
            has_compute_loss_func=self.compute_loss_func is not None,
            num_gpus_in_process=self.args.n_gpu,
            is_deepspeed=self.is_deepspeed_enabled,
            is_fsdp=bool(self.is_fsdp_enabled or self.is_fsdp_xla_enabled),
            num_processes=self.args.world_size,
            num_launched=int(os.environ.get("WORLD_SIZE", self.args.world_size)),
            model_parallel_size=max(*parallel, 2 * getattr(self, "is_distributed_loading_by_transformers", False)),
        )

    def _base_model(self) -> torch.nn.Module:
        return unwrap_peft_model(self.accelerator.unwrap_model(self.model))

    def _num_classes(self) -> int | None:
        """Classes of a head that says so; a bare config may be of another model than the head on top of it."""
        return getattr(self._base_model(), "num_labels", None) or None

    # ---- the step ---------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._running:
            self._items_in_window = num_items_in_batch
            if num_items_in_batch is None:
                self._items_in_window = self._count_items(batches, device)
        return batches, num_items_in_batch

    def _count_items(self, batches: list[Mapping], device: torch.device) -> Tensor | int:
        """Labels in the window; upstream counts those it finds under the name "labels" alone."""
        items = sum(batch[self._label_key()].ne(IGNORED).sum() for batch in batches)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = gather(torch.as_tensor(items, device=device)).sum()
        return items

    def training_step(self, model, inputs, num_items_in_batch=None):
        if not self._running:
            return super().training_step(model, inputs, num_items_in_batch)
        self._is_asked = False
        loss = super().training_step(model, self._without_examples(inputs), num_items_in_batch)
        if not self._is_asked:
            raise ValueError(
                f"{type(self).__name__}.compute_loss does not call the SAT trainer's, so label correction sees no "
                'predictions: take the loss from super().compute_loss(...), or set label_correction="none" (and leave '
                "teacher_model out)."
            )
        return loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if not self._running:
            return super().compute_loss(model, inputs, *args, **kwargs)
        # Not `is_in_train`: that stays true while the Trainer evaluates in the middle of training.
        if not model.training:
            with self._upstream_loss():
                return super().compute_loss(model, inputs, *args, **kwargs)
        inputs = SharedLabels(self._without_examples(inputs))
        # A second pass over the same batch reads what was prepared for the first one.
        self._batch = self._prepare_batch(inputs) if self._replaying is None else self._replaying.batch
        try:
            return super().compute_loss(model, self._model_inputs(inputs), *args, **kwargs)
        except IndexError:
            self._blame_labels(model, inputs)
            raise

    @contextlib.contextmanager
    def _upstream_loss(self) -> Iterator[None]:
        self.compute_loss_func = None
        try:
            yield
        finally:
            self.compute_loss_func = self._own_loss

    def _own_loss(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None):
        """The micro-batch's share of the window's mean loss; what upstream calls `compute_loss_func`."""
        self._is_asked = True
        logits = logits_of(outputs, type(self.model).__name__)
        if self._numbered:
            self._label_check.learn_classes(logits.shape[-1])
        self._observe(self._batch, logits)
        parts = self._loss_parts(self._batch, logits)
        if self._replaying is None:
            self._record(self._batch, logits, parts)
        loss = self._total(parts)
        if num_items_in_batch is not None:
            return loss / num_items_in_batch
        # Not counted by upstream, or not handed on by a user's `compute_loss`; then upstream omits its factor, too.
        over_processes = self.args.average_tokens_across_devices
        return loss * (self.accelerator.num_processes if over_processes else 1) / self._items_in_window

    def _blame_labels(self, model: torch.nn.Module, inputs: Mapping) -> None:
        """A model's own loss has failed before the check knew its classes: say which label is to blame, if one is."""
        if self._numbered and self._label_check.num_classes is None:
            labels = inputs[self._label_key()]
            with torch.no_grad():
                outputs = model(**{**inputs, self._label_key(): torch.zeros_like(labels)})
            self._label_check.learn_classes(logits_of(outputs, type(self.model).__name__).shape[-1])
            self._label_check(self._examples.cpu().numpy(), labels)
