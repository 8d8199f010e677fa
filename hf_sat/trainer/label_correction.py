"""Label correction in `transformers.Trainer`: where its hooks stand and what they hand on."""

from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import has_length

from ..audit import LabelReport, label_report
from ..batch import Batch, flat_logits
from ..config import label_correction_settings
from ..corrected_data import corrected_dataset
from ..correction import LabelCorrection
from ..head_inputs import HeadInputs
from ..model_card import CardEntry, found_by_report, settings_of
from ..noisy_evaluation import warn_of_noisy_evaluation
from ..recipe import build_label_correction, refuse_what_cannot_work
from ..rng import RngState, preserved_rng, rng_state
from ..state import check_form
from .step import StepMixin

NUMBER_OR_AUTO = ("sat_momentum", "sat_start_epoch", "sat_neighbors")


class LabelCorrectionMixin(StepMixin):
    """Label correction for any subclass of `transformers.Trainer`; untouched where `label_correction="none"`."""

    _correction: LabelCorrection | None = None  # of the run under way, or of the last one
    _corrects = False  # whether the run under way has one
    _rng_of_window: tuple[int, RngState | None] = (-1, None)
    _scale_of_window: Tensor | None = None
    _head: HeadInputs | None = None  # of the run under way, where neighbors are found by features
    _class_names: tuple[str, ...] = ()  # a search over settings leaves no model to ask after it

    # ---- a run ------------------------------------------------------------------------------------------------------

    def _inner_training_loop(self, *args, **kwargs):
        self._correction, self._rng_of_window = None, (-1, None)
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._corrects = False
            if self._head is not None:
                self._head.close()
            self._head = None

    def _hp_search_setup(self, trial):
        # Upstream casts what a search proposes to the type of what there is, and no number can become "auto".
        own = trial is not None and hasattr(self.args, "check_label_correction")
        for setting in NUMBER_OR_AUTO if own else ():
            setattr(self.args, setting, str(getattr(self.args, setting)))
        super()._hp_search_setup(trial)
        if own:
            self.args.check_label_correction()

    def _is_on(self) -> bool:
        return self._settings.label_correction != "none"

    def _has_own_loss(self) -> bool:
        return self._is_on() or super()._has_own_loss()

    def _knows_examples(self) -> bool:
        return self._is_on() or super()._knows_examples()

    def _refuse_what_cannot_work(self) -> None:
        if self._is_on():
            refuse_what_cannot_work(self._setup())
        super()._refuse_what_cannot_work()

    def set_initial_training_values(self, args, dataloader):
        values = super().set_initial_training_values(args, dataloader)
        if self._running and self._is_on():
            steps_per_epoch, batch_size, max_steps = values[1], values[4], values[6]
            if self._is_stream() and not has_length(self.train_dataset):
                steps_per_epoch = self._samples.num_examples / batch_size
            self._steps_per_epoch = steps_per_epoch
            if self._num_classes() == 2 and self._samples.offsets is None:
                self._head = HeadInputs(self.model, num_classes=2)
            self._correction = build_label_correction(
                self._settings,
                self._samples,
                total_epochs=max_steps / steps_per_epoch,
                num_classes=self._num_classes(),
                label_smoothing=self.args.label_smoothing_factor,
                device=self.args.device,
                distributed=self.args.world_size > 1,
                feature_width=self._head and self._head.width,
            )
            if self._head is not None and not self._correction.reads_features:
                self._head.close()
            self._class_names = self._names_of_classes()
            self._corrects = True
        return values

    def _end_run(self) -> None:
        super()._end_run()
        if self._corrects:
            self._commit()
            self._correction.settle()
            if self.args.load_best_model_at_end and self.is_world_process_zero():
                warn_of_noisy_evaluation(self.eval_dataset, self._label_key(), self.label_report().noise_rate)

    def _names_of_classes(self) -> tuple[str, ...]:
        names = getattr(getattr(self._base_model(), "config", None), "id2label", None) or {}
        return tuple(names[number] for number in sorted(names))

    # ---- the step ---------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._corrects:
            self._commit()
            at_end = self.accelerator.gradient_state.end_of_dataloader
            self._scale_of_window = self._loss_scale()
            self._correction.begin_step(self.state.global_step, self._epoch(), last_of_epoch=at_end)
        return batches, num_items_in_batch

    def _epoch(self) -> float:
        """Passes over the data so far. Upstream's count is of `max_steps` where a stream has no length."""
        if self._is_stream() and not has_length(self.train_dataset):
            return self.state.global_step / self._steps_per_epoch
        return self.state.epoch or 0.0

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._corrects:
            self._keep_rng_of_window()
        return super().training_step(model, inputs, num_items_in_batch)

    def _observe(self, batch: Batch, logits: Tensor) -> None:
        super()._observe(batch, logits)
        if self._corrects:
            if self._correction.reads_features and batch.target is None:
                batch.features = self._head.of(flat_logits(logits, batch))
            self._correction.resolve(batch, logits)

    def _task_loss(self, batch: Batch, logits: Tensor) -> Tensor:
        if not self._corrects:
            return super()._task_loss(batch, logits)
        return self._correction.loss(batch, logits)

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
        if self._corrects:
            self._commit()
        return super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs, start_time=None):
        if self._corrects and "loss" in logs:
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
        if self._corrects and checkpoint is not None:
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
        return label_report(
            correction.state,
            self._samples,
            correction.joint,
            given,
            class_names=self._class_names,
            log_history=self.state.log_history,
            onset=correction.schedule.onset if correction.schedule.onset_reached else None,
        )

    def corrected_dataset(self, policy: str = "relabel") -> Any:
        """The training set with its corrected labels, the given ones kept as `given_<label column>`.

        Args:
            policy: "relabel", "drop" or "soft"; see [`hf_sat.corrected_data.corrected_dataset`].

        Raises:
            ValueError: without a training run that corrected labels, or for a stream.
        """
        if self._is_stream():
            raise ValueError(
                "train_dataset is a stream: map it yourself with label_report().to_pandas(), which has the corrected "
                "label of every sample_id."
            )
        return corrected_dataset(self.train_dataset, self.label_report(), self._label_key(), policy)

    def _card_entries(self) -> list[CardEntry]:
        if self._correction is None or self._correction.state is None:
            return super()._card_entries()
        method = self._settings.label_correction
        settings = settings_of(self._settings, ("sat_" if method == "sat" else f"{method}_", "sample_", "trusted_"))
        findings = {**self._correction.schedule.findings(), **found_by_report(self.label_report())}
        return [CardEntry(method, settings, findings), *super()._card_entries()]

    def _finished_correction(self) -> LabelCorrection:
        if self._correction is None or self._correction.state is None:
            raise ValueError('there is no label correction to report: call train() first, with label_correction="sat".')
        if self._running and self.args.world_size == 1:
            self._commit()  # asked by a callback, right after a step
        return self._correction
