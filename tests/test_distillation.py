"""The step of a distilled run against one written by hand, and the teacher's part in it.

Protects: an optimizer step of `SATTrainer(teacher_model=...)` in float64, at accumulation 1, 2 and 4, for examples,
images, tokens and pairs, alone and under SAT, SAM and LoRA; a teacher that is frozen, asked once for a micro-batch, and
no part of the optimizer; the logged means.
"""

import pytest
import torch
import torch.nn.functional as F
from distillation_runs import (
    CORRECTING,
    KD,
    STEP,
    TASKS,
    Counting,
    adapted,
    assert_close,
    blended,
    by_hand,
    distil,
    run_task,
    sharpened,
    teacher_for,
    window_loss,
    windows_of,
)
from small import (
    CLASSES,
    Steps,
    assert_same_tensors,
    bert,
    bert_tokens,
    make_trainer,
    pad,
    text_data,
    token_data,
    weights,
)
from transformers import TrainerCallback

from hf_sat.methods.distillation import LOSSES

# ---- models, data, and a step by hand -------------------------------------------------------------------------------


CASES = [("bert", loss, k) for loss in LOSSES for k in (1, 4)] + [("bert", "kl", 2)]
CASES += [(task, "kl", k) for task in TASKS if task != "bert" for k in (1, 2, 4)] + [("tokens", "js", 2)]


@pytest.mark.parametrize("task, loss, k", CASES)
def test_steps_are_those_written_by_hand(runs, task, loss, k):
    """Two steps, the second over a short window; the logs are the means of the hand's numbers."""
    make, data, _ = TASKS[task]
    data, model, teacher = data(11), sharpened(make(dropout=0.0)).double(), teacher_for(task, double=True)
    ends, logs = by_hand(model, teacher, windows_of(task, data), (0.4, 3.0, loss))
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = run_task(runs, task, k, model, teacher, data, kd_loss=loss, **KD)
    assert trainer.state.global_step == 2
    assert_close(weights(trainer), ends, task)
    assert max((ends[name] - begin[name]).abs().max() for name in ends) > 1e-3
    logged = [log for log in trainer.state.log_history if "loss" in log]
    for found, hand in zip(logged, logs, strict=True):
        assert {name: found[name] for name in hand} == pytest.approx(hand, rel=1e-5, abs=1e-6)


COMPOSED = {
    "sat": (CORRECTING, {"target": blended}),
    "sam": ({"sam": "sam", "sam_rho": 0.3}, {"rho": 0.3}),
    "sat and sam": ({**CORRECTING, "sam": "sam", "sam_rho": 0.3}, {"target": blended, "rho": 0.3}),
}


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("task", ["bert", "tokens", "t5"])
@pytest.mark.parametrize("name", COMPOSED)
def test_with_correction_and_sam(runs, name, task, k):
    """The task's target is the corrected one; both passes of SAM learn from the same logits of the teacher."""
    settings, hand = COMPOSED[name]
    make, data, _ = TASKS[task]
    data, model, teacher = data(11), sharpened(make(dropout=0.0)).double(), teacher_for(task, double=True)
    windows = windows_of(task, data)
    ends, _ = by_hand(model, teacher, windows, **hand)
    plain, _ = by_hand(model, teacher, windows)
    trainer = run_task(runs, task, k, model, teacher, data, **KD, **settings)
    # Soft targets are kept in float32.
    torch.testing.assert_close(weights(trainer), ends, atol=1e-6, rtol=1e-6)
    assert max((ends[key] - plain[key]).abs().max() for key in ends) > 1e-4  # which is not the step without


@pytest.mark.parametrize("k", [1, 2, 4])
def test_with_adapters(runs, k):
    model, data, teacher = adapted(sharpened(bert(dropout=0.0))), text_data(11), teacher_for(double=True)
    ends, _ = by_hand(model, teacher, windows_of("bert", data))
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = run_task(runs, "bert", k, model, teacher, data, **KD)
    assert_close(weights(trainer), ends)
    moved = {name for name in ends if not torch.equal(ends[name], begin[name])}
    assert moved and all("lora" in name or "classifier" in name for name in moved)


def test_accumulation_in_single_precision(tmp_path):
    """The same global batch, in the precision that people use, to rounding."""
    ends = []
    for k in (1, 2, 4):
        trainer = run_task(str(tmp_path / str(k)), "bert", k, bert(dropout=0.0), teacher_for(), text_data(43), **KD)
        ends.append(weights(trainer))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-5, rtol=0.0)


# ---- the teacher's part ---------------------------------------------------------------------------------------------


SAMS = {
    "none": {},
    "sam": {"sam": "sam"},
    "asam, micro-batch": {"sam": "asam", "sam_scope": "micro_batch"},
    "sam, every other": {"sam": "sam", "sam_interval": 2},
}


@pytest.mark.parametrize("correction", ["none", "sat"])
@pytest.mark.parametrize("name", SAMS)
def test_the_teacher_is_asked_once_for_a_micro_batch(runs, name, correction):
    teacher = Counting(teacher_for())
    trainer = distil(
        runs,
        teacher,
        data=text_data(44),
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        label_correction=correction,
        eval_dataset=text_data(8),
        eval_strategy="epoch",
        **SAMS[name],
    )
    assert trainer.state.global_step == 6
    assert teacher.calls == [(size, False, False) for _ in range(2) for size in (8, 8, 8, 8, 8, 4)]


def test_the_teacher_is_frozen_and_stays_as_it_was(runs):
    """No weight moves, none is in the optimizer, no gradient is kept, and the student is what is trained."""
    teacher = teacher_for()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer = distil(runs, teacher, bert(), sam="sam")
    assert_same_tensors(before, dict(teacher.state_dict()))
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    theirs = {id(parameter) for parameter in teacher.parameters()}
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert held and not theirs & {id(parameter) for parameter in held}
    assert len(held) == len(list(trainer.model.parameters()))


@pytest.mark.parametrize("correction", ["sat", "none"])
def test_a_teacher_without_weight_changes_nothing(tmp_path, correction):
    """To the bit: the student's dropout and the order of the data are what they are without a teacher."""
    settings = {"label_correction": correction, "sat_start_epoch": 0.5, "sat_momentum": 0.5}
    if correction == "none":
        # Upstream's own loss is right for one micro-batch; ours is that to rounding.
        settings |= {"learning_rate": 1e-3}
    alone = make_trainer(str(tmp_path / "alone"), bert(), **settings)
    alone.train()
    taught_ = distil(str(tmp_path / "taught"), teacher_for(), bert(), kd_weight=0.0, **settings)
    if correction == "sat":
        assert_same_tensors(weights(alone), weights(taught_))
        assert alone.label_report().to_pandas().equals(taught_.label_report().to_pandas())
    else:
        torch.testing.assert_close(weights(alone), weights(taught_), atol=1e-5, rtol=0.0)
    logs = [[{k: v for k, v in log.items() if "kd/" not in k} for log in run.state.log_history if "loss" in log]
            for run in (alone, taught_)]  # fmt: skip
    assert [log["step"] for log in logs[0]] == [log["step"] for log in logs[1]]
    assert logs[0] == logs[1] if correction == "sat" else logs[0][0].keys() == logs[1][0].keys()


def test_all_weight_on_the_teacher_leaves_the_labels_out(tmp_path):
    """Runs on true and on reversed labels end alike."""
    other = text_data().map(lambda row: {"labels": CLASSES - 1 - row["labels"]})
    settings = {"kd_weight": 1.0, "label_correction": "none"}
    ends = [weights(distil(str(tmp_path / str(len(data))), teacher_for(), bert(), data, **settings))
            for data in (text_data(), other)]  # fmt: skip
    assert_same_tensors(*ends)


def test_label_smoothing_is_of_the_task_alone(runs):
    data, model, teacher = text_data(8), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    smoothed = lambda _, labels: 0.8 * F.one_hot(labels, CLASSES).double() + 0.2 / CLASSES  # noqa: E731
    ends, _ = by_hand(model, teacher, windows_of("bert", data), target=smoothed)
    assert_close(weights(run_task(runs, "bert", 2, model, teacher, data, label_smoothing_factor=0.2, **KD)), ends)


def test_evaluation_uses_upstreams_loss(runs):
    """In the middle of training and after it: the mean cross-entropy, with no teacher in it."""
    teacher, seen = Counting(teacher_for()), []
    data = text_data(16, seed=1)

    class Look(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
            with torch.no_grad():
                batch = pad(list(data))
                seen.append((metrics["eval_loss"], float(model.eval()(**batch).loss), len(teacher.calls)))

    trainer = distil(
        runs,
        teacher,
        label_correction="none",
        eval_dataset=data,
        eval_strategy="epoch",
        per_device_eval_batch_size=4,
        callbacks=[Look()],
    )
    trainer.evaluate()
    assert len(seen) == 4 and [calls for *_, calls in seen] == [6, 12, 18, 18]
    for loss, hand, _ in seen:
        assert loss == pytest.approx(hand, rel=1e-5)


def test_two_runs_of_one_trainer_are_alike(runs):
    """What the first run kept of its teacher is not in the second; the weights go on, the logs are the run's own."""
    trainer = distil(runs, teacher_for(), bert(dropout=0.0), label_correction="none", learning_rate=0.0)
    first = [log["kd/loss"] for log in trainer.state.log_history if "loss" in log]
    trainer.train()
    assert [log["kd/loss"] for log in trainer.state.log_history if "loss" in log] == pytest.approx(first)
    assert trainer._teachers is None
    trainer.teacher_model, trainer.args.kd_weight = None, None
    trainer.train()
    assert not [key for log in trainer.state.log_history for key in log if "kd/" in key]


# ---- the log --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
def test_logs_are_means_since_the_last_one(runs, k):
    """Over three steps, of different numbers of labels: each label counts alike."""
    data, teacher = token_data(44), teacher_for("tokens")
    steps = Steps()
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": k, "learning_rate": 0.0}
    settings |= {"logging_steps": 3, "kd_loss": "js"}
    model = bert_tokens(dropout=0.0)
    trainer = distil(runs, teacher, model, data, callbacks=[steps], **{**STEP, **KD, **settings})
    logged = [log for log in steps.logs if "loss" in log]
    windows = windows_of("tokens", data, 12 * k)
    assert [log["step"] for log in trainer.state.log_history if "loss" in log] == ([3, 6, 9] if k == 1 else [3, 6])
    for log, batch in zip(logged, windows):
        _, hand = window_loss(model, teacher, batch, 0.4, 3.0, "js")
        del hand["loss"]  # upstream's is a mean over steps
        assert {name: log[name] for name in hand} == pytest.approx(hand, rel=1e-5)


def test_a_run_without_a_teacher_logs_nothing_of_it(runs):
    trainer = make_trainer(runs, label_correction="sat")
    trainer.train()
    assert trainer.state.log_history and not [key for log in trainer.state.log_history for key in log if "kd" in key]
