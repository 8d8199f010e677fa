"""Label correction in `transformers.Trainer`: where its hooks stand and what they hand on."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import datasets
import torch
from accelerate.utils import gather
from torch import Tensor
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length, unwrap_peft_model

from ..audit import LabelReport, corrected_dataset, label_report
from ..batch import Batch, SharedLabels
from ..config import LabelCorrectionArguments, label_correction_settings
from ..correction import LabelCorrection
from ..recipe import Setup, build_label_correction, logits_of, refuse_labels, refuse_what_cannot_work
from ..rng import RngState, preserved_rng, rng_state
from ..sample_ids import (
    EXAMPLE_KEY,
    LabelCheck,
    NumberedCollator,
    NumberedDataset,
    NumberedStream,
    SeededByEpoch,
    Unnumbered,
    set_epoch_of_samplers,
)
from ..samples import IGNORED, Samples, given_labels, read_samples
from ..state import check_form


class LabelCorrectionMixin:
    """Label correction for any subclass of `transformers.Trainer`.

    With `label_correction="none"` every method below hands over to the class beneath, untouched.
    """

    default_label_correction = "sat"

    _correction: LabelCorrection | None = None  # of the run under way, or of the last one
    _running = False
    _settings: LabelCorrectionArguments
    _samples: Samples
    _label_check: LabelCheck
    _items_in_window: Tensor | int | None = None
    _examples: Tensor | None = None
    _batch: Batch | None = None
    _replaying: Any = None  # the pass that is run again, with its `batch`
    _rng_of_window: tuple[int, RngState | None] = (-1, None)
    _scale_of_window: Tensor | None = None

    # ---- a run ------------------------------------------------------------------------------------------------------

    def _inner_training_loop(self, *args, **kwargs):
        # Not `train`: auto_find_batch_size starts this loop again, and then everything of ours starts anew too.
        self._correction, self._running, self._examples = None, False, None
        self._rng_of_window = (-1, None)
        self._settings = label_correction_settings(self.args, self.default_label_correction)
        if self._settings.label_correction == "none" or self.train_dataset is None:
            return super()._inner_training_loop(*args, **kwargs)
        refuse_what_cannot_work(self._setup())
        self._running = True
        # Upstream scales what this returns rightly for any accumulation and number of processes, and a user's own
        # `compute_loss`, above or beneath, keeps what it adds.
        self.compute_loss_func = self._corrected_loss
        with contextlib.ExitStack() as self._numbering:
            self._numbering.enter_context(self._numbered_data())
            try:
                output = super()._inner_training_loop(*args, **kwargs)
                self._commit()
                self._correction.settle()
                return output
            finally:
                self._running = False
                self.compute_loss_func = None

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

    def set_initial_training_values(self, args, dataloader):
        values = super().set_initial_training_values(args, dataloader)
        if self._running:
            self._numbering.close()  # the loader is made
            steps_per_epoch, batch_size, max_steps = values[1], values[4], values[6]
            if self._is_stream() and not has_length(self.train_dataset):
                steps_per_epoch = self._samples.num_examples / batch_size
            self._steps_per_epoch = steps_per_epoch
            self._correction = build_label_correction(
                self._settings,
                self._samples,
                total_epochs=max_steps / steps_per_epoch,
                num_classes=self._num_classes(),
                label_smoothing=self.args.label_smoothing_factor,
                device=self.args.device,
                distributed=self.args.world_size > 1,
            )
        return values

    def _is_stream(self) -> bool:
        return isinstance(self.train_dataset, torch.utils.data.IterableDataset)

    # ---- data: numbers beside the examples --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _numbered_data(self) -> Iterator[None]:
        """While the loader is made, data set and collator are ours around the user's.

        Swapped rather than passed on, so that a loader that a user's subclass makes of the two carries the numbers too.
        """
        dataset, collator = self.train_dataset, self.data_collator
        loaded, collate = self._without_unused_columns(dataset, collator)
        settings, label_key = self._settings, self._label_key()
        self._samples = read_samples(
            dataset,
            loaded,
            collate,
            label_key,
            id_column=settings.sample_id_column,
            trusted_column=settings.trusted_column,
            num_samples=settings.sat_num_samples,
        )
        refuse_labels(self._setup(), self._samples)
        self._label_check = LabelCheck(
            self._samples, self._num_classes(), refuse_changes=settings.sat_on_label_change == "refuse"
        )
        self._fill_unknown = partial(given_labels, self._samples, loaded, collate, label_key)
        if self._is_stream():
            self.train_dataset = NumberedStream(loaded, settings.sample_id_column, settings.sat_num_samples)
        else:
            self.train_dataset = NumberedDataset(loaded, self._samples.example_of)
        self.data_collator = NumberedCollator(collate, label_key, self._label_check)
        try:
            yield
        finally:
            self.train_dataset, self.data_collator = dataset, collator

    def _without_unused_columns(self, dataset: Any, collator: Callable) -> tuple[Any, Callable]:
        """The data set and collator as upstream would load them, before ours go around.

        A transform set on the data set may read columns the model does not know: there they are removed from what it
        returns, not from what it is given.
        """
        if isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
            return self._remove_unused_columns(dataset, description="training"), collator
        return dataset, self._get_collator_with_removed_columns(collator, description="training")

    def _label_key(self) -> str:
        return self.label_names[0] if self.label_names else "labels"

    def _get_train_sampler(self, train_dataset=None):
        # Samplers look into the items (for their lengths): show them the user's.
        if isinstance(train_dataset, NumberedDataset):
            train_dataset = train_dataset.dataset
        sampler = super()._get_train_sampler(train_dataset)
        if self._running and isinstance(sampler, LengthGroupedSampler) and sampler.generator is None:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return SeededByEpoch(sampler, seed)
        return sampler

    def _run_epoch(self, *args, **kwargs):
        if self._running:
            # Upstream does not reach a sampler under the wrappers of a resumed loader.
            set_epoch_of_samplers(kwargs["train_dataloader"], kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial):
        trained = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial
        )
        unsized = self._running and self._is_stream() and not has_length(self.train_dataset)
        if checkpoint is None or not unsized or self.args.ignore_data_skip:
            return trained
        # Upstream would skip the batches of all passes in the first one. `epoch` counts passes in whole numbers and, in
        # the rest, batches as shares of all steps.
        saved = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        passes = int(saved.epoch)
        return passes, round((saved.epoch - passes) * saved.max_steps * self.args.gradient_accumulation_steps)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self._running:
            # Callbacks may iterate over it and hand its batches to the model.
            self.callback_handler.train_dataloader = Unnumbered(train_dataloader)
        return prepared

    # ---- the step ---------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._running:
            self._commit()
            self._items_in_window = num_items_in_batch
            if num_items_in_batch is None:
                self._items_in_window = self._count_items(batches, device)
            at_end = self.accelerator.gradient_state.end_of_dataloader
            self._scale_of_window = self._loss_scale()
            self._correction.begin_step(self.state.global_step, self._epoch(), last_of_epoch=at_end)
        return batches, num_items_in_batch

    def _count_items(self, batches: list[Mapping], device: torch.device) -> Tensor | int:
        """Labels in the window; upstream counts those it finds under the name "labels" alone."""
        items = sum(batch[self._label_key()].ne(IGNORED).sum() for batch in batches)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = gather(torch.as_tensor(items, device=device)).sum()
        return items

    def _epoch(self) -> float:
        """Passes over the data so far. Upstream's count is of `max_steps` where a stream has no length."""
        if self._is_stream() and not has_length(self.train_dataset):
            return self.state.global_step / self._steps_per_epoch
        return self.state.epoch or 0.0

    def training_step(self, model, inputs, num_items_in_batch=None):
        if not self._running:
            return super().training_step(model, inputs, num_items_in_batch)
        self._keep_rng_of_window()
        queued = len(self._correction.pending)
        loss = super().training_step(model, self._without_examples(inputs), num_items_in_batch)
        if len(self._correction.pending) == queued and self._replaying is None:
            raise ValueError(
                f"{type(self).__name__}.compute_loss does not call the SAT trainer's, so label correction sees no "
                'predictions: take the loss from super().compute_loss(...), or set label_correction="none".'
            )
        return loss

    def _without_examples(self, inputs: Mapping) -> Mapping:
        """The batch as the user knows it; the example numbers are kept aside for its loss."""
        if EXAMPLE_KEY not in inputs:
            return inputs
        inputs = copy.copy(inputs)
        self._examples = inputs.pop(EXAMPLE_KEY)
        return inputs

    def compute_loss(self, model, inputs, *args, **kwargs):
        if not self._running:
            return super().compute_loss(model, inputs, *args, **kwargs)
        # Not `is_in_train`: that stays true while the Trainer evaluates in the middle of training.
        if not model.training:
            with self._upstream_loss():
                return super().compute_loss(model, inputs, *args, **kwargs)
        inputs = SharedLabels(self._without_examples(inputs))
        # A second pass over the same batch reads the targets that the first one resolved.
        self._batch = self._prepare_batch(inputs) if self._replaying is None else self._replaying.batch
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        except IndexError:
            self._blame_labels(model, inputs)
            raise

    @contextlib.contextmanager
    def _upstream_loss(self) -> Iterator[None]:
        self.compute_loss_func = None
        try:
            yield
        finally:
            self.compute_loss_func = self._corrected_loss

    def _prepare_batch(self, inputs: Mapping) -> Batch:
        if self._examples is None:
            raise ValueError(
                "a training batch carries no example numbers: make the loader of self.train_dataset with "
                'self.data_collator, as label correction adds them there, or set label_correction="none".'
            )
        labels = inputs[self._label_key()]
        return self._correction.prepare(inputs, self._examples.to(labels.device), labels)

    def _corrected_loss(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None):
        """The micro-batch's share of the window's mean loss; what upstream calls `compute_loss_func`."""
        logits = logits_of(outputs, type(self.model).__name__)
        self._label_check.learn_classes(logits.shape[-1])
        self._correction.resolve(self._batch, logits)
        loss = self._correction.loss(self._batch, logits)
        if num_items_in_batch is not None:
            return loss / num_items_in_batch
        # Not counted by upstream, or not handed on by a user's `compute_loss`; then upstream omits its factor, too.
        over_processes = self.args.average_tokens_across_devices
        return loss * (self.accelerator.num_processes if over_processes else 1) / self._items_in_window

    def _blame_labels(self, model: torch.nn.Module, inputs: Mapping) -> None:
        """A model's own loss has failed before the check knew its classes: say which label is to blame, if one is."""
        if self._label_check.num_classes is None:
            labels = inputs[self._label_key()]
            with torch.no_grad():
                outputs = model(**{**inputs, self._label_key(): torch.zeros_like(labels)})
            self._label_check.learn_classes(logits_of(outputs, type(self.model).__name__).shape[-1])
            self._label_check(self._examples.cpu().numpy(), labels)

    # ---- after the step ---------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Write the predictions of a taken step; every process comes by here at the same points."""
        if self._correction is not None:
            self._correction.commit(self.state.global_step, self._was_skipped())

    def _loss_scale(self) -> Tensor | None:
        """The scale of the loss under fp16, on its device."""
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is None or not scaler.is_enabled():
            return None
        # It is made at the first backward pass.
        return torch.tensor(scaler._init_scale) if scaler._scale is None else scaler._scale.clone()

    def _was_skipped(self) -> bool | Tensor:
        """Whether the last step left the weights as they were; a tensor where only the device knows.

        A fused optimizer skips on the device, which accelerate does not see; but the scale falls, then and only then.
        """
        now = self._loss_scale()
        if now is None or self._scale_of_window is None or self.accelerator.optimizer_step_was_skipped:
            return self.accelerator.optimizer_step_was_skipped
        return now < self._scale_of_window.to(now.device)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if self._running:
            self._commit()
        return super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs, start_time=None):
        if self._running and "loss" in logs:
            logs = {**logs, **self._correction.logs()}
        return super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self._correction is not None:
            # A just-in-time checkpoint may come before the commit of the step just taken.
            self._commit()
            self._correction.settle()
            if self.args.should_save:
                self._correction.save(output_dir)

    def _keep_rng_of_window(self) -> None:
        """A just-in-time checkpoint may fall in the middle of a step, which a resumed run begins anew."""
        if self.args.enable_jit_checkpoint and self._rng_of_window[0] != self.state.global_step:
            self._rng_of_window = (self.state.global_step, rng_state())

    def _save_rng_state(self, output_dir):
        step, at_its_begin = self._rng_of_window
        if step != self.state.global_step:
            return super()._save_rng_state(output_dir)
        with preserved_rng(at_its_begin):
            return super()._save_rng_state(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # Before upstream loads weights, which would fail first on a model of other classes, and less clearly.
        settings = label_correction_settings(self.args, self.default_label_correction)
        if settings.label_correction != "none":
            check_form(resume_from_checkpoint, settings.label_correction, self._num_classes(), settings.sat_top_k)
        return super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._running and checkpoint is not None:
            known = self._correction.load(checkpoint)
            if known is not None:
                self._label_check.known.copy_(known)

    # ---- after training ---------------------------------------------------------------------------------------------

    def label_report(self) -> LabelReport:
        """Which labels of the training set the last run holds to be wrong.

        Raises:
            ValueError: without a training run that corrected labels.
        """
        correction = self._finished_correction()
        given = self._fill_unknown(correction.state.given_labels[:-1].long().cpu().numpy())
        return label_report(correction.state, self._samples, given, correction.schedule.onset_reached)

    def corrected_dataset(self) -> Any:
        """The training set with its corrected labels, the given ones kept as `given_<label column>`.

        Raises:
            ValueError: without a training run that corrected labels, or for a stream.
        """
        if self._is_stream():
            raise ValueError(
                "train_dataset is a stream: map it yourself with label_report().to_pandas(), which has the corrected "
                "label of every sample_id."
            )
        return corrected_dataset(self.train_dataset, self.label_report(), self._label_key())

    def _finished_correction(self) -> LabelCorrection:
        if self._correction is None or self._correction.state is None:
            raise ValueError('there is no label correction to report: call train() first, with label_correction="sat".')
        if self._running and self.args.world_size == 1:
            self._commit()  # asked by a callback, right after a step
        return self._correction
