"""Resume of SAM at any step, to the bit, and checkpoints that go from and to the plain Trainer."""

import os
import random

import pytest
import torch
from drop_in_runs import files
from sharpness_runs import ASAM, BY_MICRO_BATCH, CORRECTING, NONE, SAM, THREE, TWO, losses_of, targets
from small import Steps, assert_same_tensors, bert, make_trainer, text_data, weights
from test_checkpoints import JustInTime
from transformers import Trainer

from hf_sat import SATTrainer

EACH_STEP = {"save_strategy": "steps", "save_steps": 1}
RESUMES = {
    "sam": {**CORRECTING, **SAM, **TWO},
    "asam, micro-batch": {**CORRECTING, **ASAM, **THREE, **BY_MICRO_BATCH},
    "automatic": {**SAM},
    "late, every other": {**CORRECTING, **SAM, "sam_start": 0.3, "sam_interval": 2},
    "no correction": {**NONE, **ASAM, **TWO},
    "bfloat16": {**CORRECTING, **SAM, **TWO, "bf16": True},
    "adafactor": {**CORRECTING, **SAM, "optim": "adafactor"},
}


@pytest.mark.parametrize("name", RESUMES)
def test_resume_at_any_step(tmp_path, name):
    """With dropout: weights, soft targets and logs to the bit."""
    settings = {**RESUMES[name], **EACH_STEP, "logging_steps": 1, "num_train_epochs": 2}
    whole = make_trainer(str(tmp_path), bert(), text_data(44), **settings)
    whole.train()
    assert whole.state.global_step >= 4
    for stop in random.Random(name).sample(range(1, whole.state.global_step), 2):
        resumed = make_trainer(str(tmp_path), bert(seed=1), text_data(44), **{**settings, "save_strategy": "no"})
        resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-{stop}")
        assert_same_tensors(weights(whole), weights(resumed))
        assert_same_tensors(targets(whole), targets(resumed))
        assert losses_of(resumed.state.log_history) == losses_of(whole.state.log_history)


def optimizer_of(checkpoint):
    return torch.load(os.path.join(checkpoint, "optimizer.pt"), weights_only=True)


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd"])
def test_a_checkpoint_is_that_of_the_plain_trainer(tmp_path, optim):
    """Same files, same keys in the optimizer, and at rho 0 the same bytes."""
    common = {"optim": optim, "save_strategy": "epoch", "num_train_epochs": 1, **TWO}
    plain = make_trainer(str(tmp_path / "plain"), trainer=Trainer, **common)
    plain.train()
    for rho in (0.0, 0.5):
        ours = make_trainer(str(tmp_path / str(rho)), **NONE, sam="sam", sam_rho=rho, **common)
        ours.train()
        one, other = (files(os.path.join(run.args.output_dir, "checkpoint-3")) for run in (plain, ours))
        assert one.keys() == other.keys()
        states = [optimizer_of(os.path.join(run.args.output_dir, "checkpoint-3")) for run in (plain, ours)]
        shapes = [
            {i: {key: getattr(value, "shape", 0) for key, value in s.items()} for i, s in state["state"].items()}
            for state in states
        ]
        assert shapes[0] == shapes[1] and states[0]["param_groups"] == states[1]["param_groups"]
        if rho == 0:
            assert [name for name in one if one[name] != other[name]] == ["trainer_state.json"]


def test_checkpoints_go_from_and_to_the_plain_trainer(tmp_path):
    """SAM switched on at resume is a run with a late start; switched off, it is the plain Trainer's."""
    common = {**EACH_STEP, "num_train_epochs": 2, **TWO}
    plain = make_trainer(str(tmp_path / "plain"), trainer=Trainer, **common)
    plain.train()
    for stop in (2, 3):
        checkpoint = f"{tmp_path}/plain/checkpoint-{stop}"
        switched = make_trainer(str(tmp_path / "on"), bert(seed=1), **NONE, **SAM, **common)
        switched.train(resume_from_checkpoint=checkpoint)
        late = make_trainer(str(tmp_path / "late"), **NONE, **SAM, **common, sam_start=stop / 6)
        late.train()
        assert_same_tensors(weights(switched), weights(late))
        ends = []
        for cls, settings in ((Trainer, {}), (SATTrainer, {**NONE, "sam": "sam", "sam_rho": 0.0})):
            back = make_trainer(str(tmp_path / "back"), bert(seed=1), trainer=cls, **settings, **common)
            back.train(resume_from_checkpoint=f"{tmp_path}/on/checkpoint-{stop + 1}")
            ends.append(weights(back))
        assert_same_tensors(*ends)
        assert not torch.equal(ends[0]["classifier.weight"], weights(plain)["classifier.weight"])


@pytest.mark.parametrize(
    "hook, kind",
    [
        ("on_step_begin", SAM),
        ("on_substep_end", SAM),
        ("on_substep_end", {**ASAM, **BY_MICRO_BATCH}),
        ("on_pre_optimizer_step", ASAM),
        ("on_step_end", {**SAM, **BY_MICRO_BATCH}),
    ],
)
def test_just_in_time_checkpoints(tmp_path, hook, kind):
    """Also in the middle of a step, and with dropout: what is saved is the unperturbed state as the step began."""

    def run(resume=None, callbacks=()):
        settings = {**CORRECTING, **TWO, **kind, "num_train_epochs": 2, "enable_jit_checkpoint": bool(callbacks)}
        trainer = make_trainer(str(tmp_path), bert(), text_data(44), callbacks=list(callbacks), **settings)
        for callback in callbacks:
            callback.trainer = trainer
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run()
    run(callbacks=[JustInTime(hook, 4)])
    resumed = run(resume=f"{tmp_path}/checkpoint-4")
    assert_same_tensors(weights(whole), weights(resumed))
    assert_same_tensors(targets(whole), targets(resumed))


def test_a_second_train_starts_anew(runs):
    """Stopped within a window, then trained again with other settings."""

    class Stop(Steps):
        def on_substep_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2 and args.sam_rho == 0.5

    trainer = make_trainer(runs, model_init=lambda: bert(), callbacks=[Stop()], **CORRECTING, **SAM, **TWO)
    trainer.train()
    assert trainer.state.global_step == 2
    trainer.args.sam_rho = 0.1
    trainer.train()
    alone = make_trainer(f"{runs}-alone", model_init=lambda: bert(), **CORRECTING, **{**SAM, "sam_rho": 0.1}, **TWO)
    alone.train()
    assert_same_tensors(weights(trainer), weights(alone))
    assert_same_tensors(targets(trainer), targets(alone))
    assert losses_of(trainer.state.log_history) == losses_of(alone.state.log_history)
