"""Distillation of hidden states: the step of a run, and what is refused. The distances: `test_hidden_losses.py`.

Protects: an optimizer step against one written by hand in float64, at accumulation 1, 2 and 4, for examples, images and
tokens, alone and under SAT, SAM, LoRA, gradient checkpointing and several teachers; a student of another width; the
forward passes of a run, and no word of it at weight 0; resumption under every row of the settings table; the refusals.
"""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distillation_runs import (
    CORRECTING,
    KD,
    PAIRS,
    STEP,
    TASKS,
    Counting,
    adapted,
    blended,
    distil,
    refused,
    run_task,
    sharpened,
    taught,
    teacher_for,
    window_loss,
    windows_of,
)
from distillation_runs import assert_close as assert_close_weights
from settings import SETTINGS
from small import Steps, assert_same_tensors, bert, bert_tokens, make_trainer, pad, text_data, token_data, weights
from torch import nn
from transformers import BertConfig, BertForMultipleChoice, BertForSequenceClassification, TrainerCallback

from hf_sat import SATConfig

# ---- steps by hand --------------------------------------------------------------------------------------------------

HIDDEN = {"kd_hidden_weight": 2.5, **KD}


def by_label(student, teacher, batch, loss, pairs):
    """Hand-written sum: examples one by one, their padding cut off, each as often as it has labels."""
    mask = batch.get("attention_mask", torch.ones(student[0].shape[:2]))
    labels = (batch["labels"] != -100).reshape(len(batch["labels"]), -1).sum(dim=1)
    total = 0.0
    for example, (row, times) in enumerate(zip(mask.bool(), labels)):
        for s, t in pairs:
            ours, theirs = student[s][example][row], teacher[t][example][row]
            total = total + times * DISTANCES[loss](ours, theirs) / len(pairs)
    return total / labels.sum()


def unit(states):
    return states / states.norm(dim=-1, keepdim=True)


DISTANCES = {
    "cosine": lambda s, t: 1 - (unit(s) * unit(t)).sum(dim=-1).mean(),
    "mse": lambda s, t: (s - t).square().mean(),
    "similarity": lambda s, t: (unit(s) @ unit(s).T - unit(t) @ unit(t).T).square().mean(),
}


def by_hand(model, teachers, windows, loss="cosine", pairs=((1, 1), (2, 2)), target=None, rho=None, logits_of=None):
    """Weights and logged distances after a step of SGD for each window; `logits_of` gives logits, or the first."""
    model, teachers = copy.deepcopy(model).train(), [copy.deepcopy(teacher).eval() for teacher in teachers]
    free, logged = [p for p in model.parameters() if p.requires_grad], []

    def loss_of(batch, given):
        task, _ = window_loss(model, copy.deepcopy(logits_of or teachers[0]).eval(), batch, 0.4, 3.0, "kl", given)
        ours = model(**batch, output_hidden_states=True).hidden_states
        with torch.no_grad():
            theirs = [teacher(**batch, output_hidden_states=True).hidden_states for teacher in teachers]
        hidden = sum(by_label(ours, each, batch, loss, pairs) for each in theirs) / len(theirs)
        return task + 2.5 * hidden, hidden

    for batch in windows:
        before, kept = [p.detach().clone() for p in free], {}
        given = target and (lambda predicted, labels, kept=kept: kept.setdefault("t", target(predicted, labels)))
        value, hidden = loss_of(batch, given)
        gradient = torch.autograd.grad(value, free)
        logged.append(float(hidden.detach()))
        if rho is not None:
            norm = sum(g.square().sum() for g in gradient).sqrt()
            with torch.no_grad():
                for parameter, g in zip(free, gradient):
                    parameter.add_(rho * g / norm)
            gradient = torch.autograd.grad(loss_of(batch, given)[0], free)
        with torch.no_grad():
            for parameter, start, g in zip(free, before, gradient):
                parameter.copy_(start - STEP["learning_rate"] * g)
    return {name: value.detach() for name, value in model.state_dict().items()}, logged


CASES = [(task, "cosine", k) for task in ("bert", "distilbert", "vit", "tokens") for k in (1, 2, 4)]
CASES += [(task, loss, k) for task in ("bert", "tokens") for loss in ("mse", "similarity") for k in (1, 4)]


@pytest.mark.parametrize("task, loss, k", CASES)
def test_steps_are_those_written_by_hand(runs, task, loss, k):
    """Two steps, the second over a short window, at any accumulation; the log has the hand's distances."""
    make, data, _ = TASKS[task]
    data, model, teacher = data(11), sharpened(make(dropout=0.0)).double(), teacher_for(task, double=True)
    ends, distances = by_hand(model, [teacher], windows_of(task, data), loss)
    trainer = run_task(runs, task, k, model, teacher, data, kd_hidden_loss=loss, **HIDDEN)
    assert_close_weights(weights(trainer), ends, task)
    found = [log["kd/hidden_loss"] for log in trainer.state.log_history if "loss" in log]
    assert found == pytest.approx(distances, rel=1e-5) and min(found) > 1e-3
    without = run_task(runs, task, k, sharpened(make(dropout=0.0)).double(), teacher, data, **KD)
    assert max((ends[name] - value).abs().max() for name, value in weights(without).items()) > 1e-4


COMPOSED = {
    "sat": (CORRECTING, {"target": blended}),
    "sam": ({"sam": "sam", "sam_rho": 0.3}, {"rho": 0.3}),
    "sat and sam": ({**CORRECTING, "sam": "sam", "sam_rho": 0.3}, {"target": blended, "rho": 0.3}),
    "layers": ({"kd_layer_map": "0:1,-1:1"}, {"pairs": ((0, 1), (2, 1))}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
}


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("task", ["bert", "tokens"])
@pytest.mark.parametrize("name", COMPOSED)
def test_composed(runs, name, task, k):
    """Both passes of SAM are drawn to the same hidden states; soft targets are kept in float32."""
    settings, hand = COMPOSED[name]
    make, data, _ = TASKS[task]
    data, model, teacher = data(11), sharpened(make(dropout=0.0)).double(), teacher_for(task, double=True)
    ends, _ = by_hand(model, [teacher], windows_of(task, data), **hand)
    trainer = run_task(runs, task, k, model, teacher, data, **HIDDEN, **settings)
    torch.testing.assert_close(weights(trainer), ends, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_with_adapters(runs, k):
    model, data, teacher = adapted(sharpened(bert(dropout=0.0))), text_data(11), teacher_for(double=True)
    ends, _ = by_hand(model, [teacher], windows_of("bert", data))
    assert_close_weights(weights(run_task(runs, "bert", k, model, teacher, data, **HIDDEN)), ends)


class Together(nn.Module):
    """Whose logits are the mean of several teachers'."""

    def __init__(self, teachers):
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, **batch):
        return SimpleNamespace(logits=sum(teacher(**batch).logits for teacher in self.teachers) / len(self.teachers))


def test_several_teachers_have_shares(runs):
    """Each by its weight, and with its own number of layers; their mean logits are in float32."""
    data, model = text_data(8), sharpened(bert(dropout=0.0)).double()
    teachers = [teacher_for(double=True), sharpened(bert(seed=5)).double()]
    ends, _ = by_hand(model, teachers, windows_of("bert", data), logits_of=Together(teachers))
    trainer = run_task(runs, "bert", 2, model, [teachers[0], (teachers[1], 1.0)], data, **HIDDEN)
    torch.testing.assert_close(weights(trainer), ends, atol=1e-5, rtol=1e-5)


def test_accumulation_in_single_precision(tmp_path):
    ends = []
    for k in (1, 2, 4):
        settings = {**HIDDEN, "kd_hidden_loss": "similarity"}
        run = run_task(str(tmp_path / str(k)), "tokens", k, bert_tokens(dropout=0.0), teacher_for("tokens"),
                       token_data(43), **settings)  # fmt: skip
        ends.append(weights(run))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-5, rtol=0.0)


def narrow(layers=1, width=8, seed=3):
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=32, num_labels=4, **sizes))


def test_a_student_of_another_width_and_depth_learns(runs):
    """By the similarity of positions; its layer is drawn to the teacher's last, and no weight is added to it."""
    student = narrow()
    names = list(student.state_dict())
    settings = {"kd_hidden_weight": 20.0, "kd_hidden_loss": "similarity", "label_correction": "none"}
    trainer = distil(runs, teacher_for(), student, num_train_epochs=6, learning_rate=1e-2, **settings)
    logged = [log["kd/hidden_loss"] for log in trainer.state.log_history if "loss" in log]
    assert np.mean(logged[-3:]) < 0.5 * np.mean(logged[:3])
    assert list(trainer.model.state_dict()) == names


def choices(items):
    """Each example as three sequences of different length."""
    batch = pad([{**item, "input_ids": item["input_ids"][: 3 + i]} for item in items for i in range(3)])
    ids, mask = (batch[name].reshape(len(items), 3, -1) for name in ("input_ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask, "labels": batch["labels"].reshape(-1, 3)[:, 0] % 3}


@pytest.mark.parametrize("k", [1, 2])
def test_all_choices_of_an_example_are_its_positions(runs, k):
    data, model, teacher = text_data(8), *(bert(head=BertForMultipleChoice, dropout=0.0, seed=i) for i in (0, 1))
    settings = {**STEP, **HIDDEN, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    batch, pairs = choices(list(data)), [(1, 1), (2, 2)]
    ours, theirs = (each.eval()(**batch, output_hidden_states=True).hidden_states for each in (model, teacher))
    examples = [[state.reshape(8, -1, 16) for state in each] for each in (ours, theirs)]
    flat = {"attention_mask": batch["attention_mask"].reshape(8, -1), "labels": batch["labels"]}
    trainer = make_trainer(runs, model, data, taught(teacher), choices, **settings)
    trainer.train()
    found = [log["kd/hidden_loss"] for log in trainer.state.log_history if "loss" in log]
    assert found == pytest.approx([float(by_label(*examples, flat, "cosine", pairs).detach())], rel=1e-5)


# ---- a run ----------------------------------------------------------------------------------------------------------


class Asked(Counting):
    """Keeps what it was asked for."""

    def forward(self, input_ids, attention_mask=None, output_hidden_states=None):
        self.calls.append(output_hidden_states)
        return self.model(input_ids, attention_mask, output_hidden_states=output_hidden_states)


@pytest.mark.parametrize("weight, asked", [(0.0, None), (1.0, True)])
def test_the_teacher_is_asked_once_and_evaluation_is_what_it_was(runs, weight, asked):
    """Hidden states are made in training alone, for both passes of SAM; at weight 0 nobody asks for them."""
    teacher, flags, seen = Asked(teacher_for()), [], []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.config.output_hidden_states)

    student = bert()
    student.register_forward_pre_hook(
        lambda model, args, given: flags.append((model.training, given.get("output_hidden_states"))), with_kwargs=True
    )
    trainer = distil(runs, teacher, student, sam="sam", kd_hidden_weight=weight, callbacks=[Look()])
    assert teacher.calls == [asked] * 18 and flags == [(True, asked)] * 36 and set(seen) == {False}
    flags.clear()
    predicted = trainer.predict(text_data(8)).predictions
    assert isinstance(predicted, np.ndarray) and predicted.shape == (8, 4) and flags == [(False, None)]
    assert ("kd/hidden_loss" in trainer.state.log_history[0]) == (weight > 0)
    assert trainer._batch.student_states is None  # no graph outlives its pass


def test_at_weight_zero_nothing_changes(tmp_path):
    """To the bit, whatever the other two settings say."""
    settings = {"kd_hidden_weight": 0, "kd_hidden_loss": "mse", "kd_layer_map": "1:2"}
    ends = [distil(str(tmp_path / str(len(each))), teacher_for(), bert(), **each) for each in ({}, settings)]
    assert_same_tensors(*map(weights, ends))


def test_layers_that_nothing_reads_are_let_go(runs):
    """From the second batch on, the first of which tells how many there are."""
    kept = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kept.append([state is not None for state in self.trainer._batch.teacher_states[0]])

    look = Look()
    settings = {"kd_weight": 0.0, "kd_hidden_weight": 1.0, "kd_layer_map": "1:-1"}
    look.trainer = make_trainer(runs, trainer=taught(teacher_for()), callbacks=[look], max_steps=3, **settings)
    look.trainer.train()
    assert kept == [[True] * 3] + 2 * [[False, False, True]]


@pytest.mark.parametrize("name", SETTINGS)
def test_composed_with_every_setting_and_resumed(tmp_path, name):
    """Stopped and resumed, it ends bit by bit where the whole run ends; there is no state of its own."""
    stop_at = [4, 3, 2, 5][list(SETTINGS).index(name) % 4]
    common = {**SETTINGS[name], "kd_hidden_weight": 3.0, "save_strategy": "steps", "save_steps": stop_at}
    whole = distil(str(tmp_path / "whole"), teacher_for(), bert(), **common)
    distil(str(tmp_path / "parts"), teacher_for(), bert(), callbacks=[Steps(stop_at)], **common)
    rest = make_trainer(str(tmp_path / "parts"), bert(), None, taught(teacher_for()), kd_weight=0.5, **common)
    rest.train(resume_from_checkpoint=True)
    assert whole.state.global_step == rest.state.global_step > stop_at
    assert_same_tensors(weights(whole), weights(rest))
    plain = {**common, "kd_hidden_weight": 0.0}
    other = distil(str(tmp_path / "plain"), teacher_for(), bert(), **plain)
    files = [sorted(path.name for path in tmp_path.glob(f"{run}/checkpoint-{stop_at}/*")) for run in ("whole", "plain")]
    assert files[0] == files[1]
    assert any(not torch.equal(value, weights(whole)[key]) for key, value in weights(other).items())


# ---- refusals -------------------------------------------------------------------------------------------------------

WRONG = [("kd_hidden_weight", value) for value in (-0.1, float("nan"), float("inf"), "much", True, None)]
WRONG += [("kd_hidden_loss", value) for value in ("cka", None)]
WRONG += [
    ("kd_layer_map", value) for value in ("", "1", "1-2", "1:2,", "1:2;2:4", "a:b", "1:2:3", "1.0:2", None, {1: 2})
]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later."""
    match = f"{setting}={re.escape(repr(value))}"
    with pytest.raises(ValueError, match=match):
        SATConfig(output_dir=runs, kd_weight=0.5, **{setting: value})
    trainer = make_trainer(runs, trainer=taught(teacher_for()), kd_weight=0.5)
    setattr(trainer.args, setting, value)
    refused(trainer, match)


@pytest.mark.parametrize("layer_map", ["3:1", "1:3", "1:1,-4:2", "0:-4"])
def test_layers_that_are_not_there(runs, layer_map):
    trainer = make_trainer(runs, trainer=taught(teacher_for()), kd_weight=0.5, kd_hidden_weight=1.0,
                           kd_layer_map=layer_map)  # fmt: skip
    refused(trainer, f"kd_layer_map='{layer_map}'", "no layer", r"0 \(embeddings\) to 2", "kd_hidden_weight=0")


class Tuples(nn.Module):
    """A student that hands on its inputs and drops what it is asked for."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids, attention_mask=None, labels=None, output_hidden_states=None):
        return {"logits": self.model(input_ids, attention_mask).logits}


OFF = "set kd_hidden_weight=0"
UNFIT = {
    "cosine of widths": (narrow, {}, ["kd_hidden_loss='cosine'", "equal width", "similarity", OFF]),
    "mse of widths": (narrow, {"kd_hidden_loss": "mse"}, ["kd_hidden_loss='mse'", "equal width", "similarity", OFF]),
    "no hidden states": (lambda: Tuples(bert()), {}, ["model Tuples returned no hidden_states", OFF]),
    "not to be asked": (lambda: Counting(bert()), {}, ["model Counting cannot be called with output_hidden", OFF]),
}


@pytest.mark.parametrize("name", UNFIT)
def test_students_whose_hidden_states_cannot_be_matched(runs, name):
    make, settings, parts = UNFIT[name]
    settings = {"kd_weight": 0.5, "kd_hidden_weight": 1.0, "label_correction": "none", **settings}
    refused(make_trainer(runs, make(), trainer=taught(teacher_for()), **settings), *parts)


def test_teachers_that_cannot_be_matched(runs):
    settings = {"kd_weight": 0.5, "kd_hidden_weight": 1.0}
    counting = make_trainer(runs, trainer=taught(Counting(teacher_for())), **settings)
    refused(counting, r"kd_hidden_weight=1\.0", "teacher_model Counting cannot be called", OFF)
    own = text_data().map(lambda row: {"teacher_input_ids": row["input_ids"]})
    refused(make_trainer(runs, data=own, trainer=taught(teacher_for()), **settings),
            r"kd_hidden_weight=1\.0", "teacher_input_ids", "set it to 0")  # fmt: skip


@pytest.mark.parametrize("task", PAIRS)
def test_encoder_decoders(runs, task):
    make, data, _ = TASKS[task]
    with pytest.raises(ValueError, match=r"kd_hidden_weight=1\.0 and model .*an encoder and a decoder.*" + OFF):
        run_task(runs, task, 1, make(), make(seed=7), data(), kd_weight=0.5, kd_hidden_weight=1.0)


def test_without_a_teacher_and_from_a_cache(runs, tmp_path):
    refused(make_trainer(runs, kd_hidden_weight=1.0), r"kd_hidden_weight=1\.0", "no teacher_model", "pass one")
    cached = {"kd_weight": 0.5, "kd_hidden_weight": 1.0, "kd_cache_dir": str(tmp_path / "cache")}
    trainer = make_trainer(runs, trainer=taught(teacher_for()), **cached)
    refused(trainer, r"kd_hidden_weight=1\.0", "kd_cache_dir=", "logits alone", "leave kd_cache_dir out")
    assert not (tmp_path / "cache").exists()


def test_a_mask_of_other_positions(runs):
    """As one of pairs of tokens: which of them are padding, it does not say."""

    def attended(items):
        batch = pad(items)
        mask = batch["attention_mask"].bool()
        return {**batch, "attention_mask": mask[:, None, :, None] & mask[:, None, None, :]}

    settings = {"kd_weight": 0.5, "kd_hidden_weight": 1.0, "label_correction": "none"}
    refused(make_trainer(runs, collator=attended, trainer=taught(teacher_for()), **settings), "attention_mask", OFF)
