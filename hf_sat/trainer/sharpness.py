"""SAM and ASAM in `transformers.Trainer`: a transform of the gradient inside `training_step`.

The stock loop unscales, clips and steps on what stands in `.grad` afterwards, with any optimizer.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.utils import is_sagemaker_mp_enabled, is_torch_xla_available

from ..batch import Batch
from ..config.sharpness import SharpnessArguments, sharpness_settings
from ..methods.sharpness_aware import SharpnessAware, frozen_batch_norm_statistics, perturbation_norm
from ..model_card import CardEntry, settings_of
from ..recipe import SharpnessSetup, refuse_sharpness, warn_of_low_precision
from ..rng import RngState, preserved_rng, rng_state
from .logged_means import LoggedMeans
from .model_card import ModelCardMixin


@dataclass
class Pass:
    """What it takes to run a micro-batch again: its inputs, random state, and what was prepared for it."""

    inputs: Mapping[str, Any]
    rng: RngState
    batch: Batch | None = None


class SharpnessMixin(ModelCardMixin):
    """Sharpness-aware minimization for any subclass of `transformers.Trainer`; untouched where `sam="none"`."""

    _sharpness: SharpnessArguments | None = None  # of the run under way
    _replaying: Pass | None = None
    _spare: list[Tensor]  # memory for the gradients of the second pass
    _window: list[Pass]
    _first_loss: Tensor | float
    _sharpness_means: LoggedMeans
    _sharpness_logs: dict[str, float]  # for the next log with a loss
    _is_called = False  # whether a user's `training_step` hands on to this one

    def _inner_training_loop(self, *args, **kwargs):
        settings = sharpness_settings(self.args)
        self._sharpness, self._replaying, self._sharpness_logs = None, None, {}
        self._sharpness_means = LoggedMeans("sam/sharpness", "sam/grad_norm")
        if settings.sam == "none":
            return super()._inner_training_loop(*args, **kwargs)
        refuse_sharpness(self._sharpness_setup(), settings)
        warn_of_low_precision(self.model, settings)
        self._sharpness, self._first_loss, self._is_called = settings, 0.0, False
        self._window, self._spare = [], []
        self._sam = SharpnessAware(settings.sam, settings.sam_radius)
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._sharpness, self._window, self._spare = None, [], []

    def _sharpness_setup(self) -> SharpnessSetup:
        kind = self.accelerator.distributed_type
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        return SharpnessSetup(
            optimizers=(str(getattr(self.args.optim, "value", self.args.optim)), type(self.optimizer).__name__),
            is_deepspeed=bool(self.is_deepspeed_enabled),
            is_fsdp=bool(self.is_fsdp_enabled or kind == DistributedType.FSDP),
            fsdp_version=getattr(plugin, "fsdp_version", 1),
            is_xla=bool(is_torch_xla_available() or self.is_fsdp_xla_enabled),
            is_model_parallel=is_sagemaker_mp_enabled() or kind == DistributedType.MEGATRON_LM,
        )

    # ---- the step ---------------------------------------------------------------------------------------------------

    def _perturbs(self) -> bool:
        """Whether the optimizer step under way is a SAM step; the same for its whole window."""
        settings, step = self._sharpness, self.state.global_step
        # 7 / 100 is 0.07, and 0.07 * 100 is more than 7.
        return step % settings.sam_interval == 0 and step / self.state.max_steps >= settings.sam_start

    def get_batch_samples(self, *args, **kwargs):
        # A step that a user's class gave up half way leaves nothing to the next.
        self._window, self._first_loss = [], 0.0
        return super().get_batch_samples(*args, **kwargs)

    def compute_loss(self, model, *args, **kwargs):
        if self._sharpness is not None and model.training and not self._is_called:
            raise ValueError(
                f"{type(self).__name__}.training_step does not call the SAT trainer's, so sam={self._sharpness.sam!r} "
                'would do nothing: call super().training_step(...) in it, or set sam="none".'
            )
        return super().compute_loss(model, *args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._is_called = True
        if self._sharpness is None or not self._perturbs():
            return super().training_step(model, inputs, num_items_in_batch)
        per_micro_batch = self._sharpness.sam_scope == "micro_batch"
        gradients = self._take_gradients() if per_micro_batch else {}
        current = Pass(copy.copy(inputs), rng_state())
        with self._synchronised(model, self._syncs_first_pass()):
            loss = super().training_step(model, inputs, num_items_in_batch)
        current.batch = getattr(self, "_batch", None)
        self._window.append(current)
        self._first_loss = self._first_loss + loss
        if per_micro_batch or self.accelerator.sync_gradients:
            self._second_pass(model, num_items_in_batch, gradients)
        return loss

    def _syncs_first_pass(self) -> bool:
        if self._sharpness.sam_sync == "local":
            return False
        return self._sharpness.sam_scope == "micro_batch" or self.accelerator.sync_gradients

    def _second_pass(self, model, num_items_in_batch, gradients: dict[str, Tensor]) -> None:
        """Replace the gradient of the window at the weights by that at the perturbed weights, added to `gradients`."""
        window, self._window = self._window, []
        first_loss, self._first_loss = self._first_loss, 0.0
        named = list(self.model.named_parameters())
        # Of the gradients, for the log; SAM measures it anyway.
        norm = perturbation_norm(named, "sam") if self._sharpness.sam == "asam" else None
        perturbation = self._sam.perturb(named, spend_gradients=True)
        try:
            for name, parameter in named:
                parameter.grad = gradients.get(name)
            self._spare.clear()
            with frozen_batch_norm_statistics(model):
                loss = self._replay(model, window, num_items_in_batch)
        finally:
            # Kept for the next second pass: on CPU fresh memory would take longer than all that is done with it.
            perturbation.restore(self._spare)
            self._replaying = None
        share = len(window) / self.current_gradient_accumulation_steps
        self._count(share, loss - first_loss, perturbation.norm if norm is None else norm)

    def _replay(self, model, window: list[Pass], num_items_in_batch) -> Tensor:
        """The sum of the losses of the window at the weights as they are; gradients add up."""
        total = 0.0
        for number, self._replaying in enumerate(window, start=1):
            syncs = self.accelerator.sync_gradients and number == len(window)
            with preserved_rng(self._replaying.rng), self._synchronised(model, syncs):
                # What stands beneath in the order of classes sees a step like any other.
                total = total + super().training_step(model, self._replaying.inputs, num_items_in_batch)
        return total

    @contextlib.contextmanager
    def _synchronised(self, model, syncs: bool) -> Iterator[None]:
        """Whether gradients are averaged over the processes in a backward pass within."""
        model = getattr(model, "_orig_mod", model)  # beneath what torch.compile made of it
        if syncs and hasattr(model, "set_requires_gradient_sync"):
            # Under FSDP2 there is no gradient before that. The loop undoes this where it put it off.
            model.set_requires_gradient_sync(True)
        if not isinstance(model, DistributedDataParallel):
            yield
            return
        found, model.require_backward_grad_sync = model.require_backward_grad_sync, syncs
        try:
            yield
        finally:
            model.require_backward_grad_sync = found

    def _take_gradients(self) -> dict[str, Tensor]:
        """The gradients that earlier micro-batches left, taken out of the parameters."""
        taken = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad()
        return taken

    # ---- what is seen of it -----------------------------------------------------------------------------------------

    def _count(self, share: float, sharpness: Tensor, norm: Tensor) -> None:
        """Add a perturbation's part of an optimizer step, whose parts make a sum, as those of its loss do."""
        scaler = getattr(self.accelerator, "scaler", None)
        scale = scaler._scale if scaler is not None and scaler._scale is not None else 1.0
        self._sharpness_means.add(torch.full_like(norm, share), sharpness, norm / scale)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        # Every process comes by here, which is not so of `log` in the hands of callbacks.
        if self._sharpness is not None and self.control.should_log:
            self._sharpness_logs = self._sharpness_means.read(self.args.world_size)
        if self._sharpness is not None and (self.control.should_evaluate or self.control.should_save):
            self._spare.clear()  # what training keeps at hand is not to lie beside the memory that these take
        return super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs, start_time=None):
        if self._sharpness is not None and self._sharpness_logs and "loss" in logs:
            logs, self._sharpness_logs = {**logs, **self._sharpness_logs}, {}
        return super().log(logs, start_time)

    def _card_entries(self) -> list[CardEntry]:
        settings = sharpness_settings(self.args)
        if settings.sam == "none" or self.state.global_step == 0:
            return super()._card_entries()
        last = next((log for log in reversed(self.state.log_history) if "sam/sharpness" in log), {})
        findings = {"last sharpness": f"{last['sam/sharpness']:.3g}"} if last else {}
        shown = {**settings_of(settings, ("sam_",)), "sam_rho": settings.sam_radius}
        return [CardEntry(settings.sam, shown, findings), *super()._card_entries()]
