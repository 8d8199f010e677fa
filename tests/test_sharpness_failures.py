"""SAM where something goes wrong on the way: overflow, memory that runs out, interrupts, steps that are given up.

Protects: weights that come back, steps that leave no trace, a trainer that works afterwards.
"""

import numpy as np
import pytest
import torch
from drop_in_runs import history
from hand_loop import Net
from sharpness_runs import (
    ASAM,
    BY_MICRO_BATCH,
    CORRECTING,
    SAM,
    TWO,
    Overflowing,
    Watched,
    Watching,
    beneath,
    losses_of,
    scaled,
    targets,
)
from small import assert_same_tensors, make_trainer, text_data, weights
from transformers import Trainer

from hf_sat import SATMixin


@pytest.mark.parametrize("kind", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_loss_scale_changes_nothing(tmp_path, kind):
    runs = [make_trainer(str(tmp_path / str(i)), Net(), **CORRECTING, **kind) for i in range(2)]
    scaled(runs[1], 2.0**12).train()
    runs[0].train()
    for one, other in ((weights(runs[0]), weights(runs[1])), (targets(runs[0]), targets(runs[1]))):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-6)
    for one, other in zip(*(losses_of(history(run)) for run in runs), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("sam, overflow", [("none", 5), ("sam", 7)])
def test_a_skipped_step_commits_nothing(tmp_path, optim, sam, overflow):
    """A fused optimizer skips on the device, where accelerate does not see it."""
    trainer = make_trainer(
        str(tmp_path),
        Overflowing([overflow]),
        text_data(64),
        num_train_epochs=1,
        gradient_accumulation_steps=2,
        sat_start_epoch=0,
        sat_momentum=0.5,
        optim=optim,
        sam=sam,
    )
    scaled(trainer, 16.0).train()
    # Four steps of two micro-batches of eight; one of them overflows, under SAM in its second pass.
    assert trainer.label_report().columns["n_visits"].sum() == 48


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("where", ["first", "second"])
@pytest.mark.parametrize("sam", ["sam", "asam"])
def test_a_step_that_overflows_is_skipped_and_leaves_no_trace(runs, sam, where, scope):
    """Step 1, passes 4 to 7, overflows in its second micro-batch, at the weights or only where they are perturbed."""
    first = 5 if scope == "step" else 6
    model = Overflowing([7] if where == "second" else [first, 7])
    settings = {**CORRECTING, "sat_start_epoch": 0, **TWO, "sam": sam, "sam_scope": scope, "logging_steps": 1}
    settings["optim"] = "adamw_torch"  # upstream does not see that a fused optimizer was made to skip a step
    trainer = scaled(make_trainer(runs, model, text_data(64), Watched, num_train_epochs=1, **settings), 2.0**4)
    trainer.train()
    starts = [trainer.seen[step][0][0] for step in range(4)]
    assert_same_tensors(starts[1], starts[2])
    assert not torch.equal(starts[2]["net.head.weight"], starts[3]["net.head.weight"])
    assert trainer.accelerator.scaler.get_scale() == 2.0**3
    assert trainer.label_report().to_pandas()["n_visits"].sum() == 64 - 16
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    logs = losses_of(trainer.state.log_history)
    assert all(np.isfinite(log[key]) for log in logs for key in log if key.startswith("sam/"))
    # Of a step with a perturbation for each micro-batch, one was well.
    logged = [{"sam/sharpness", "sam/grad_norm"} <= log.keys() for log in logs]
    assert logged == [True, scope == "micro_batch", True, True]
    if where == "first":  # nothing was perturbed by a norm that is not finite
        first, second = trainer.seen[1]
        assert_same_tensors(first[-1], second[-1])


class Full:
    """Beneath the mixin: runs out of memory once, in a second pass, its backward pass done."""

    at, failed = 0, False

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not self.failed and self._replaying is not None and self.state.global_step == self.at:
            self.failed = True
            self.perturbed = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            raise RuntimeError("CUDA out of memory.")
        return loss


class Starts:
    """Keeps the weights whenever the loop begins."""

    def _inner_training_loop(self, *args, **kwargs):
        starts = self.__dict__.setdefault("starts", [])
        starts.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return super()._inner_training_loop(*args, **kwargs)


@pytest.mark.parametrize("at, settings", [(0, {**ASAM, **TWO}), (0, {**SAM, **TWO, **BY_MICRO_BATCH}), (3, SAM)])
def test_running_out_of_memory_in_the_second_pass_leaves_the_weights(tmp_path, at, settings):
    cls = type("Restarting", (SATMixin, Starts, Watching, Full, Trainer), {"at": at})
    common = {**CORRECTING, **settings, "train_sampling_strategy": "sequential"}
    trainer = make_trainer(str(tmp_path / "full"), Net(), trainer=cls, auto_find_batch_size=True, **common)
    trainer.train()
    assert trainer.failed and len(trainer.starts) == 2
    # After the failure at step 0 nothing but the batch is smaller.
    begun = [dict(zip(trainer.starts[0], start.values())) for start in trainer.starts]
    if at == 0:
        assert_same_tensors(*begun)
        alone = make_trainer(str(tmp_path / "alone"), Net(), per_device_train_batch_size=7, **common)
        alone.train()
        assert_same_tensors(weights(trainer), weights(alone))
        assert_same_tensors(targets(trainer), targets(alone))
    else:
        whole = make_trainer(str(tmp_path / "whole"), Net(), trainer=Watched, **common)
        whole.train()
        assert_same_tensors(begun[1], whole.seen[at][0][0])
    assert any(not torch.equal(trainer.perturbed[name], value) for name, value in begun[1].items())


def test_an_interrupted_second_pass_leaves_the_weights_and_a_trainer_that_works(runs):
    class Interrupted(Full):
        def training_step(self, *args, **kwargs):
            try:
                return super().training_step(*args, **kwargs)
            except RuntimeError:
                raise KeyboardInterrupt from None

    trainer = make_trainer(runs, Net(), trainer=beneath(Interrupted), **CORRECTING, **SAM)
    before = weights(trainer)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    trainer.args.sam = "none"
    trainer.train()
    alone = make_trainer(runs, Net(), **CORRECTING)
    alone.train()
    assert trainer.state.global_step == alone.state.global_step
    assert not any(key.startswith("sam/") for log in trainer.state.log_history for key in log)


@pytest.mark.parametrize("where", ["first", "second"])
def test_a_step_that_a_users_class_gives_up_leaves_nothing_to_the_next(runs, where):
    """One that passes over a batch which does not fit in memory: neither its window comes back, nor its targets."""

    class Failing:
        failed = False

        def training_step(self, *args, **kwargs):
            passes = self.__dict__.get("seen", {}).get(1, ([], []))
            # In both cases one pass of two has gone well.
            if not self.failed and len(passes[where == "second"]) == 1 and self.state.global_step == 1:
                self.failed = True
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(*args, **kwargs)

    class Forgiving(type("Beneath", (SATMixin, Failing, Watching, Trainer), {})):
        def training_step(self, *args, **kwargs):
            try:
                return super().training_step(*args, **kwargs)
            except RuntimeError:
                return torch.tensor(0.0)

    trainer = make_trainer(runs, Net(), trainer=Forgiving, **CORRECTING, **SAM, **TWO)
    trainer.train()
    counts = {step: tuple(map(len, passes)) for step, passes in trainer.seen.items()}
    assert counts.pop(1) == ((1, 0) if where == "first" else (2, 1))
    assert counts == {step: (2, 2) for step in range(9) if step != 1}
    visits = trainer.label_report().to_pandas()["n_visits"]
    assert visits.sum() == (136 if where == "first" else 144) and visits.max() == 3
