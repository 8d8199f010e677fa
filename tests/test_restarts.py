"""Runs that start again: with smaller batches, in a search, from a checkpoint made on a signal."""

import numpy as np
import pytest
from everywhere_runs import ON, saved
from small import CLASSES, assert_same_tensors, bert, make_trainer, text_data, weights
from test_step import Recording, replay
from transformers import TrainerCallback

# ---- runs that start again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at, momentum", [(0, "auto"), (3, 0.5), (8, "auto")])
def test_a_smaller_batch_after_running_out_of_memory_starts_anew(runs, at, momentum):
    class Full(Recording):
        full = True

        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, inputs, num_items_in_batch)
            if self.full and self.state.global_step == at:
                self.full, self.passes = False, []
                raise RuntimeError("CUDA out of memory.")
            return loss

    settings, data = {"sat_start_epoch": 0.5, "sat_momentum": momentum}, text_data(44)
    trainer = make_trainer(
        runs, data=data, trainer=Full, auto_find_batch_size=True, gradient_accumulation_steps=2, logging_steps=1,
        save_strategy="epoch", **settings,
    )  # fmt: skip
    trainer.train()
    assert not trainer.full and {len(recorded[2]) for recorded in trainer.passes} >= {7}
    logs = [log for log in trainer.state.log_history if "loss" in log]
    used = {log["sat/momentum"] for log in logs if "sat/momentum" in log}
    assert len(used) == 1 and "sat/momentum" not in logs[0]
    settings = {**settings, "sat_momentum": used.pop()}
    targets, _ = replay(trainer.passes, np.eye(CLASSES)[data["labels"]], lambda example, k: example, settings)
    np.testing.assert_allclose(saved(trainer)["soft_targets"].numpy(), targets, atol=2e-6)
    assert (trainer.label_report().to_pandas()["n_visits"] == 3).all()
    assert logs[-1]["sat/corrected"] == (targets.argmax(1) != np.array(data["labels"])).sum()


def test_a_search_over_settings_of_ours(tmp_path):
    """Each trial is the run that its settings would be alone, and the state is of the last."""
    pytest.importorskip("optuna")
    tried = [("0.2", 0), ("0.8", 1), ("auto", 0.5)]
    seen = []

    class Objective(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            seen.append([log for log in state.log_history if "loss" in log])

    def space(trial):
        momentum, start = tried[trial.number]
        return {"sat_momentum": momentum, "sat_start_epoch": str(start)}

    common = {"model_init": lambda: bert(), "eval_dataset": text_data(8), "eval_strategy": "epoch"}
    trainer = make_trainer(str(tmp_path / "search"), callbacks=[Objective()], **common)
    best = trainer.hyperparameter_search(space, n_trials=len(tried), direction="minimize", backend="optuna")
    assert best.run_id in {"0", "1", "2"}
    for number, (momentum, start) in enumerate(tried):
        alone = make_trainer(str(tmp_path / "alone"), **common, sat_momentum=momentum, sat_start_epoch=start)
        alone.train()
        logs = [log for log in alone.state.log_history if "loss" in log]
        assert seen[number] == logs
    assert trainer.label_report().to_pandas().equals(alone.label_report().to_pandas())


# ---- checkpoints on a signal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hook",
    [
        "on_step_begin",  # where a request comes in; the checkpoint is made at the next hook that looks for one
        "on_substep_end",
        "on_optimizer_step",
    ],
)
def test_checkpoints_on_a_signal_resume(tmp_path, hook):
    class Signal(TrainerCallback):
        def request(self, args, state, control, **kwargs):
            if state.global_step == 4 and not control.should_training_stop:
                self.manager.is_checkpoint_requested = True

    def make(folder, callbacks):
        settings = {"gradient_accumulation_steps": 2, "enable_jit_checkpoint": bool(callbacks)}
        trainer = make_trainer(folder, callbacks=callbacks, **ON, **settings)
        for callback in callbacks:
            setattr(callback, hook, callback.request)
            trainers = trainer.callback_handler.callbacks
            callback.manager = next(c.jit_manager for c in trainers if hasattr(c, "jit_manager"))
            # Upstream's comes first in the list: ask before it looks.
            trainers.sort(key=lambda c: c is not callback)
        return trainer

    whole = make(str(tmp_path), [])
    whole.train()
    stopped = make(str(tmp_path), [Signal()])
    stopped.train()
    resumed = make(str(tmp_path), [])
    resumed.train(resume_from_checkpoint=True)
    assert stopped.state.global_step < whole.state.global_step
    assert_same_tensors(weights(whole), weights(resumed))
    assert whole.label_report().to_pandas().equals(resumed.label_report().to_pandas())
