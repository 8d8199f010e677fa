"""Distillation in `transformers.Trainer`: a teacher's logits travel in the batch, live or from a cache."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import torch
from accelerate.utils import gather
from torch import Tensor

from ..batch import Batch, flat_logits
from ..config import AUTO, distillation_settings
from ..methods.distillation import Distillation, entropy
from ..model_card import CardEntry, settings_of
from ..recipe import refuse_distillation
from ..rng import preserved_rng
from ..teacher import load_teachers, pad_token_id, refuse_other_inputs, refuse_unknown_columns
from ..teacher_cache import TeacherCache
from ..teacher_columns import TEACHER_KEY, TeacherCollator, WithoutTeacherColumns, teacher_column_names
from .cached_teacher import CachedTeacherMixin
from .logged_means import LoggedMeans


class DistillationMixin(CachedTeacherMixin):
    """Distillation for any subclass of `transformers.Trainer`; untouched without a teacher.

    Args:
        teacher_model: a model, the name of one (a folder or a Hub id), or a list of those or of (model, weight) pairs.
            It is frozen, and neither wrapped, saved nor given to the optimizer.
        teacher_processing_class: the teacher's own tokenizer, which pads its columns (`teacher_input_ids`, ...); see
            `hf_sat.teacher_columns`.
    """

    _cache: TeacherCache | None = None
    _distillation: Distillation | None = None
    _kd_means: LoggedMeans
    _kd_logs: dict[str, float]
    _own_columns: Sequence[str] = ()  # of the training data, for a teacher
    _broken_teacher: Tensor | None = None  # whether it said something that is no number, since the last look

    def __init__(self, *args, teacher_model: Any = None, teacher_processing_class: Any = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher_model = teacher_model
        self.teacher_processing_class = teacher_processing_class

    # ---- a run ------------------------------------------------------------------------------------------------------

    def _inner_training_loop(self, *args, **kwargs):
        self._kd_settings = distillation_settings(self.args)
        self._teachers, self._cache, self._distillation = None, None, None
        self._kd_logs, self._broken_teacher = {}, None
        self._kd_means = LoggedMeans(*self._kd_measures())
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._teachers, self._cache, self._teacher_inputs = None, None, None

    def _has_teacher(self) -> bool:
        # A weight without a teacher is refused below.
        weights = self._kd_settings.kd_weight is not None or self._kd_settings.kd_hidden_weight > 0
        return self.teacher_model is not None or weights

    def _has_own_loss(self) -> bool:
        return self._has_teacher() or super()._has_own_loss()

    def _knows_examples(self) -> bool:
        cached = self._has_teacher() and self._kd_settings.kd_cache_dir is not None
        return cached or super()._knows_examples()

    def _refuse_what_cannot_work(self) -> None:
        if self._has_teacher():
            has_teacher = self.teacher_model is not None
            refuse_distillation(self._setup(), self._kd_settings, has_teacher, self._is_stream())
        super()._refuse_what_cannot_work()

    # ---- the run's teacher ------------------------------------------------------------------------------------------

    def _change_data(self, until_loaded: contextlib.ExitStack) -> None:
        if self._has_teacher():
            # First, so that it lies beneath the numbers.
            until_loaded.enter_context(self._teacher_columns())
        super()._change_data(until_loaded)

    @contextlib.contextmanager
    def _teacher_columns(self) -> Iterator[None]:
        """While the loader is made, columns of a teacher are kept, and collated apart."""
        with preserved_rng():
            self._own_columns = names = teacher_column_names(self.train_dataset)
        found = self.train_dataset, self.data_collator, self._signature_columns
        if names:
            self._set_signature_columns_if_needed()
            self._signature_columns = [*self._signature_columns, *names]
            pad_id = pad_token_id(self.teacher_model)
            self.data_collator = TeacherCollator(self.data_collator, self.teacher_processing_class, pad_id)
        elif self._is_bare_stream():
            self.train_dataset = WithoutTeacherColumns(self.train_dataset)
        try:
            yield
        finally:
            self.train_dataset, self.data_collator, self._signature_columns = found

    def _is_bare_stream(self) -> bool:
        """Whether nobody can tell its columns before it is read."""
        return self._is_stream() and not isinstance(self.train_dataset, datasets.IterableDataset)

    def _prepare_run(self) -> None:
        super()._prepare_run()
        if not self._has_teacher():
            return
        settings, student = self._kd_settings, self._base_model()
        self._distillation = Distillation(settings.kd_weight, settings.kd_temperature, settings.kd_loss)
        with preserved_rng():
            self._teachers = load_teachers(self.teacher_model, student, settings.kd_teacher_dtype)
        refuse_unknown_columns(self._teachers, self._own_columns)
        if not self._own_columns:
            refuse_other_inputs(self._teachers, student, self._is_bare_stream())
        homes = self._teachers.devices()
        self._teachers.to([self._device_for(home) for home in homes])
        if settings.kd_cache_dir is not None:
            self._cache = self._filled_cache()
            # One that was given as a model is the user's; it goes back to where it was.
            self._teachers.to(homes)
            self._teachers = None

    def _device_for(self, home: torch.device) -> torch.device:
        """Where a teacher works: on an accelerator it was put on by someone who knows."""
        wanted = self._kd_settings.kd_teacher_device
        if wanted != AUTO:
            return torch.device(wanted)
        return self.args.device if home.type == "cpu" else home

    # ---- the step ---------------------------------------------------------------------------------------------------

    def _without_examples(self, inputs: Mapping) -> Mapping:
        inputs = super()._without_examples(inputs)
        if TEACHER_KEY not in inputs:
            return inputs
        inputs = copy.copy(inputs)
        self._teacher_inputs = inputs.pop(TEACHER_KEY)
        return inputs

    def _prepare_batch(self, inputs: Mapping) -> Batch:
        batch = super()._prepare_batch(inputs)
        if self._cache is not None:
            epoch = int(self.state.epoch or 0) if self._kd_settings.kd_cache_per_epoch else 0
            batch.teacher_logits = self._cache.read(epoch, batch.rows, batch.labels.device)
        elif self._teachers is not None:
            batch.teacher_logits = flat_logits(self._ask_teachers(batch), batch)
        return batch

    def _observe(self, batch: Batch, logits: Tensor) -> None:
        super()._observe(batch, logits)
        theirs, ours = batch.teacher_logits, flat_logits(logits, batch)
        if theirs is not None and theirs.shape[-1] != ours.shape[-1]:
            raise ValueError(
                f"teacher_model: its logits have {theirs.shape[-1]} classes and those of {type(self.model).__name__} "
                f"{ours.shape[-1]}: a teacher needs the student's classes."
            )

    def _loss_parts(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        parts = super()._loss_parts(batch, logits)
        if self._distillation is None:
            return parts
        losses = self._distillation.losses(flat_logits(logits, batch), batch.teacher_logits)
        return {**parts, "kd": torch.where(batch.counted, losses, 0.0).sum()}

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        total = super()._total(parts)
        if self._distillation is None:
            return total
        weight = self._distillation.weight
        return (1 - weight) * total + weight * parts["kd"]

    # ---- the log ----------------------------------------------------------------------------------------------------

    def _kd_measures(self) -> list[str]:
        """Names in the log of what `_measured` gives."""
        return ["kd/loss", "kd/agreement", "kd/teacher_entropy"]

    def _measured(self, batch: Batch, logits: Tensor, parts: dict[str, Tensor]) -> list[Tensor]:
        """Sums over the labels of a batch that count."""
        agrees = flat_logits(logits, batch).argmax(dim=-1) == batch.teacher_logits.argmax(dim=-1)
        uncertain = torch.where(batch.counted, entropy(batch.teacher_logits), 0.0)
        self._watch_teacher(uncertain)
        return [parts["kd"], (agrees & batch.counted).sum(), uncertain.sum()]

    @torch.no_grad()
    def _record(self, batch: Batch, logits: Tensor, parts: dict[str, Tensor]) -> None:
        super()._record(batch, logits, parts)
        if self._distillation is not None:
            self._kd_means.add(batch.counted.sum(), *self._measured(batch, logits, parts))

    def _watch_teacher(self, uncertain: Tensor) -> None:
        """Entropies are no numbers where logits are none; looked at in the first batch and before each log, as a look
        waits for the device.
        """
        broken, is_first = ~torch.isfinite(uncertain).all(), self._broken_teacher is None
        self._broken_teacher = broken if is_first else self._broken_teacher | broken
        if is_first:
            self._refuse_broken_teacher()

    def _refuse_broken_teacher(self) -> None:
        """On all processes together, so that none waits for another."""
        broken = self._broken_teacher
        if broken is not None and self.args.world_size > 1:
            broken = gather(broken[None]).any()
        if broken is not None and broken:
            raise ValueError(
                f"teacher_model: its logits are NaN or infinite, seen up to step {max(1, self.state.global_step)}: "
                'load it in float32 or bfloat16 (kd_teacher_dtype="float32"), look for such values in its weights and '
                "in the inputs, or leave teacher_model and kd_weight out."
            )

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        # Every process comes by here, which is not so of `log` in the hands of callbacks.
        if self._distillation is not None and self.control.should_log:
            self._refuse_broken_teacher()
            self._kd_logs = self._kd_means.read(self.args.world_size)
        return super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs, start_time=None):
        if self._distillation is not None and self._kd_logs and "loss" in logs:
            logs, self._kd_logs = {**logs, **self._kd_logs}, {}
        return super().log(logs, start_time)

    def _kd_settings_in_use(self) -> list[str]:
        """Names of those that a model card shows."""
        return ["kd_weight", "kd_temperature", "kd_loss"]

    def _card_entries(self) -> list[CardEntry]:
        if self._distillation is None:
            return super()._card_entries()
        settings = settings_of(self._kd_settings, tuple(self._kd_settings_in_use()))
        last = next((log for log in reversed(self.state.log_history) if "kd/agreement" in log), {})
        findings = {"last agreement with the teacher": f"{last['kd/agreement']:.1%}"} if last else {}
        return [CardEntry("kd", settings, findings), *super()._card_entries()]
