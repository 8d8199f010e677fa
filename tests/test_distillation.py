"""Distillation of logits: the losses and their gradients, the step of a run, and what is refused.

Protects: each divergence and its gradient against formulas in numpy, at any shape and temperature and with classes
that are ruled out; an optimizer step of `SATTrainer(teacher_model=...)` against one written by hand in float64, at
accumulation 1, 2 and 4, for examples, images, tokens and pairs, alone and under SAT, SAM and LoRA; a teacher that is
frozen, asked once for a micro-batch, and no part of the optimizer; the logged means; the refusals.
"""

import copy
import math
import re
from functools import partial

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small import (
    CLASSES,
    Steps,
    arguments,
    assert_same_tensors,
    bert,
    bert_tokens,
    distilbert,
    image_data,
    make_trainer,
    pad,
    text_data,
    text_rows,
    token_data,
    vit,
    weights,
)
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_sat import SATConfig, SATMixin, SATSeq2SeqConfig, SATSeq2SeqTrainer, SATTrainer
from hf_sat.methods.distillation import LOSSES, Distillation, entropy, jensen_shannon_divergence, kl_divergence

# ---- the losses -----------------------------------------------------------------------------------------------------

few = settings(max_examples=60, deadline=None)
temperatures = st.floats(0.1, 20.0)


@st.composite
def logit_pairs(draw, largest=40.0, ruled_out=True):
    """Logits of student and teacher in float64, some classes of both ruled out alike (-inf)."""
    rows, classes = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    values = hnp.arrays(np.float64, (rows, classes), elements=st.floats(-largest, largest))
    student, teacher = draw(values), draw(values)
    out = draw(hnp.arrays(bool, (classes,))) if ruled_out else np.zeros(classes, bool)
    assume(not out.all())
    student[:, out], teacher[:, out] = -np.inf, -np.inf
    return student, teacher


def softened(logits, temperature):
    logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def expected(p, values):
    """`sum p v` where a class without mass adds nothing."""
    return np.where(p > 0, p * np.where(p > 0, values, 0.0), 0.0).sum(axis=-1)


def formulas(name, student, teacher, temperature):
    """Value and gradient with respect to the student's logits of each row, from the papers."""
    t = temperature
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        log_q, log_p = softened(student, t), softened(teacher, t)
        q, p = np.exp(log_q), np.exp(log_p)
        if name == "kl":
            return t**2 * expected(p, log_p - log_q), t * (q - p)
        if name == "reverse_kl":
            kl = expected(q, log_q - log_p)
            return t**2 * kl, t * np.where(q > 0, q * (np.where(q > 0, log_q - log_p, 0.0) - kl[:, None]), 0.0)
        if name == "js":
            log_m = np.log((p + q) / 2)
            value = (expected(p, log_p - log_m) + expected(q, log_q - log_m)) / 2
            ratio = np.where(q > 0, log_q - log_m, 0.0)
            return t**2 * value, t / 2 * q * (ratio - expected(q, ratio)[:, None])
        if name == "mse":
            return ((student - teacher) ** 2).mean(axis=-1), 2 * (student - teacher) / student.shape[1]
        label = teacher.argmax(axis=-1)
        log_q = softened(student, 1.0)
        return -log_q[np.arange(len(label)), label], np.exp(log_q) - np.eye(student.shape[1])[label]


def computed(name, student, teacher, temperature):
    logits = torch.tensor(student, requires_grad=True)
    values = LOSSES[name](logits, torch.tensor(teacher), temperature)
    return values, *torch.autograd.grad(values.sum(), logits)


@pytest.mark.parametrize("name", LOSSES)
@few
@given(pair=logit_pairs(), temperature=temperatures)
def test_values_and_gradients_are_the_formulas(name, pair, temperature):
    student, teacher = pair if name != "mse" else (np.maximum(each, -40.0) for each in pair)  # no mass without
    value, gradient = computed(name, student, teacher, temperature)
    expected_value, expected_gradient = formulas(name, student, teacher, temperature)
    assert value.shape == (len(student),) and value.dtype == torch.float64
    np.testing.assert_allclose(value.detach(), expected_value, atol=1e-8, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-8, rtol=1e-9)


@few
@given(pair=logit_pairs(), temperature=temperatures)
def test_divergences_are_divergences(pair, temperature):
    """Never below zero, zero where both say the same, Jensen-Shannon alike both ways and at most `T^2 log 2`."""
    student, teacher = map(torch.from_numpy, pair)
    for name in ("kl", "reverse_kl", "js"):
        assert (LOSSES[name](student, teacher, temperature) >= -1e-9).all(), name
        torch.testing.assert_close(
            LOSSES[name](teacher, teacher.clone(), temperature), student.new_zeros(len(student)), atol=1e-9, rtol=0.0
        )
    js = jensen_shannon_divergence(student, teacher, temperature)
    torch.testing.assert_close(js, jensen_shannon_divergence(teacher, student, temperature), atol=1e-9, rtol=1e-9)
    assert (js <= temperature**2 * math.log(2) + 1e-9).all()
    torch.testing.assert_close(
        LOSSES["reverse_kl"](student, teacher, temperature), kl_divergence(teacher, student, temperature)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
@few
@given(pair=logit_pairs(largest=3e4), temperature=st.floats(0.5, 8.0))
def test_large_logits_stay_finite_in_any_precision(name, dtype, pair, temperature):
    """Computed in float32 at least; a class that is ruled out has no gradient and spoils no other."""
    student, teacher = (torch.from_numpy(each).to(dtype) for each in pair)
    if name == "mse":
        student, teacher = student.clamp_min(-3e4), teacher.clamp_min(-3e4)
    student.requires_grad_()
    value = LOSSES[name](student, teacher, temperature)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all() and torch.isfinite(student.grad).all()
    assert (student.grad[torch.isinf(student)] == 0).all()


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "js", "hard"])
def test_only_one_of_the_two_rules_a_class_out(name):
    """The value may be huge where a distribution has no mass and the other has, but is never NaN."""
    ruled_out, open_ = torch.tensor([[1.0, -math.inf, 0.5]]), torch.tensor([[0.0, 3.0, 1.0]])
    for student, teacher in ((ruled_out, open_), (open_, ruled_out)):
        student = student.clone().requires_grad_()
        value = LOSSES[name](student, teacher, 2.0)
        value.sum().backward()
        assert not torch.isnan(value).any() and not torch.isnan(student.grad).any()
        assert (value >= 0).all()


@few
@given(pair=logit_pairs())
def test_entropy(pair):
    log_p = softened(pair[1], 1.0)
    np.testing.assert_allclose(entropy(torch.from_numpy(pair[1])), expected(np.exp(log_p), -log_p), atol=1e-9)


def test_no_gradient_goes_to_the_teacher():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    for name in LOSSES:
        LOSSES[name](student, teacher, 2.0).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_functional_form_mixes_row_by_row(loss, weight):
    student, teacher, task = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5)
    method = Distillation(weight, 3.0, loss)
    mixed = (1 - weight) * task + weight * LOSSES[loss](student, teacher, 3.0)
    torch.testing.assert_close(method.mixed(task, student, teacher), mixed)


# ---- models, data, and a step by hand -------------------------------------------------------------------------------

T5_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
BART_SIZES = {
    f"{side}_{name}": size
    for side in ("encoder", "decoder")
    for name, size in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
}


def t5(dropout=0.1, seed=0, vocab_size=40):
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, dropout_rate=dropout, **T5_SIZES))


def bart(dropout=0.1, seed=0, vocab_size=40):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "max_position_embeddings": 32, "dropout": dropout, **BART_SIZES}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab_size, **sizes))


def pair_data(n=24):
    """Sentences, and some of their words: targets of different lengths, padded with -100."""
    rows = text_rows(n)["input_ids"]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": [row[: 2 + i % 4] for i, row in enumerate(rows)]})


def images(items):
    """Images in double precision, as the student of these tests is."""
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]).double(),
        "labels": torch.stack([item["labels"] for item in items]),
    }


TASKS = {
    "bert": (bert, text_data, pad),
    "distilbert": (distilbert, text_data, pad),
    "vit": (vit, image_data, images),
    "tokens": (bert_tokens, token_data, pad),
    "t5": (t5, pair_data, pad),
    "bart": (bart, pair_data, pad),
}
PAIRS = ("t5", "bart")
STEP = {
    "optim": "sgd",
    "learning_rate": 0.3,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "train_sampling_strategy": "sequential",
    "num_train_epochs": 1,
    "logging_steps": 1,
    "label_correction": "none",
}


def sharpened(model):
    """With predictions that differ from row to row: fresh models say nearly the same of all, and nearly nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(
                    1.5 if isinstance(model, T5ForConditionalGeneration) else 25 if "classifier" in name else 10
                )
    return model


def teacher_for(task="bert", double=False):
    """Another model of the task, that has dropout, and is in training mode: it must not matter."""
    make, data, collate = TASKS[task]
    model = sharpened(make(seed=7)).eval()
    if task not in PAIRS:
        batch = {
            key: value.float() if value.is_floating_point() else value for key, value in collate(list(data())).items()
        }
        with torch.no_grad():
            model.classifier.bias -= model(**batch).logits.flatten(0, -2).mean(dim=0)
    return model.train().double() if double else model.train()


def taught(teacher, cls=SATTrainer, **settings):
    """`SATTrainer` with a teacher, for `make_trainer`."""
    return partial(cls, teacher_model=teacher, **settings)


def distil(folder, teacher, model=None, data=None, cls=SATTrainer, **settings):
    """A run with a teacher, trained."""
    trainer = make_trainer(folder, model, data, taught(teacher, cls), **{"kd_weight": 0.5, **settings})
    trainer.train()
    return trainer


def run_task(folder, task, k, model, teacher, data, **settings):
    """A run in float64 over eight examples a step, cut into `k` micro-batches."""
    cls, config = (SATSeq2SeqTrainer, SATSeq2SeqConfig) if task in PAIRS else (SATTrainer, SATConfig)
    settings = {**STEP, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k, **settings}
    args = arguments(folder, config, **settings)
    trainer = cls(model, args, train_dataset=data, data_collator=TASKS[task][2], teacher_model=teacher)
    trainer.train()
    return trainer


DISTANCES = {
    "kl": lambda z, zt, t: t**2 * _divergence(zt / t, z / t),
    "reverse_kl": lambda z, zt, t: t**2 * _divergence(z / t, zt / t),
    "js": lambda z, zt, t: t**2 * _halfway(z / t, zt / t),
    "mse": lambda z, zt, t: (z - zt).square().mean(dim=1),
    "hard": lambda z, zt, t: F.cross_entropy(z, zt.argmax(dim=1), reduction="none"),
}


def _divergence(one, other):
    return (one.softmax(1) * (one.log_softmax(1) - other.log_softmax(1))).sum(1)


def _halfway(one, other):
    middle = ((one.softmax(1) + other.softmax(1)) / 2).log()
    return (_divergence(one, middle) + _divergence(other, middle)) / 2


def window_loss(model, teacher, batch, weight, temperature, loss, target=None):
    """`(1 - w) CE + w distance`, a mean over the labels that count; and what the log is made of."""
    z = model(**batch).logits.flatten(0, -2)
    with torch.no_grad():
        zt = teacher(**batch).logits.flatten(0, -2)
    labels = batch["labels"].flatten()
    counted = labels != -100
    z, zt, labels = z[counted], zt[counted], labels[counted]
    target = F.one_hot(labels, z.shape[1]).double() if target is None else target(z.detach().softmax(1), labels)
    task = -(target * z.log_softmax(1)).sum(1)
    distances = DISTANCES[loss](z, zt, temperature)
    logs = {
        "loss": float(((1 - weight) * task + weight * distances).detach().mean()),
        "kd/loss": float(distances.detach().mean()),
        "kd/agreement": float((z.argmax(1) == zt.argmax(1)).double().mean()),
        "kd/teacher_entropy": float(-(zt.softmax(1) * zt.log_softmax(1)).sum(1).mean()),
    }
    return ((1 - weight) * task + weight * distances).mean(), logs


def by_hand(model, teacher, windows, kd=(0.4, 3.0, "kl"), target=None, rho=None):
    """Weights and logs after a step of SGD for each window, with SAM's ascent where there is a `rho`."""
    model, teacher, logs = copy.deepcopy(model).train(), copy.deepcopy(teacher).eval(), []
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for batch in windows:
        before, kept = [p.detach().clone() for p in free], {}

        def fixed(predicted, labels, kept=kept):
            """Resolved in the first pass, and the same in the second."""
            return kept.setdefault("target", target(predicted, labels))

        given = None if target is None else fixed
        loss, seen = window_loss(model, teacher, batch, *kd, given)
        logs.append(seen)
        gradient = torch.autograd.grad(loss, free)
        if rho is not None:
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
            with torch.no_grad():
                for parameter, g in zip(free, gradient):
                    parameter.add_(rho * g / norm)
            gradient = torch.autograd.grad(window_loss(model, teacher, batch, *kd, given)[0], free)
        with torch.no_grad():
            for parameter, start, g in zip(free, before, gradient):
                parameter.copy_(start - STEP["learning_rate"] * g)
    return {name: value.detach() for name, value in model.state_dict().items()}, logs


def windows_of(task, data, size=8):
    rows = list(data)
    return [TASKS[task][2](rows[i : i + size]) for i in range(0, len(rows), size)]


def assert_close(found, expected, task="bert"):
    # T5 takes its norms in float32, whatever the weights are in.
    tolerance = 1e-6 if task == "t5" else 1e-10
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


KD = {"kd_weight": 0.4, "kd_temperature": 3.0}
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


def blended(predicted, labels):
    """The soft target of a first visit at momentum 0.6."""
    return 0.6 * F.one_hot(labels, predicted.shape[1]).double() + 0.4 * predicted


CORRECTING = {"label_correction": "sat", "sat_start_epoch": 0, "sat_momentum": 0.6, "sat_reweight": False}
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


def adapted(model: nn.Module) -> nn.Module:
    """The model in float64, with the same adapters at each call."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig("SEQ_CLS", r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    torch.manual_seed(1)
    return peft.get_peft_model(model, lora).double()


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


class Counting(nn.Module):
    """A teacher that keeps count of its calls, and what they were like."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.calls = model, model.config, []

    def forward(self, input_ids, attention_mask=None):
        self.calls.append((len(input_ids), self.model.training, torch.is_grad_enabled()))
        return self.model(input_ids, attention_mask)


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


# ---- users' classes -------------------------------------------------------------------------------------------------


def penalty(model):
    return 0.01 * sum(parameter.square().sum() for parameter in model.parameters())


class Above(SATTrainer):
    """A user's subclass that adds to our loss."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss + penalty(model), outputs) if return_outputs else loss + penalty(model)


class Beneath(Trainer):
    """A user's Trainer that adds to upstream's loss."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss + penalty(model), outputs) if return_outputs else loss + penalty(model)


class Mixed(SATMixin, Beneath):
    pass


class Forgetting(SATTrainer):
    """A loss of a user's that does not hand on the number of items, as many do."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        return super().compute_loss(model, inputs, return_outputs=return_outputs)


@pytest.mark.parametrize("cls", [Above, Mixed])
def test_what_a_user_adds_to_the_loss_stays(runs, cls):
    data, model, teacher = text_data(8), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    reference = copy.deepcopy(model).train()
    loss, _ = window_loss(reference, copy.deepcopy(teacher).eval(), pad(list(data)), 0.4, 3.0, "kl")
    (loss + penalty(reference)).backward()
    expected = {name: p.detach() - STEP["learning_rate"] * p.grad for name, p in reference.named_parameters()}
    trainer = distil(runs, teacher, model, data, cls, **{**STEP, **KD})
    torch.testing.assert_close(dict(trainer.model.named_parameters()), expected, atol=1e-10, rtol=0.0)


@pytest.mark.parametrize("k", [2, 4])
def test_a_loss_that_forgets_the_number_of_items(runs, k):
    data, model, teacher = text_data(11), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    ends, _ = by_hand(model, teacher, windows_of("bert", data))
    sizes = {"per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    trainer = distil(runs, teacher, model, data, Forgetting, **{**STEP, **KD, **sizes})
    assert_close(weights(trainer), ends)


class Target(nn.Module):
    """A student that calls its labels "target"."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None, target=None):
        logits = self.model(input_ids, attention_mask).logits
        return {"logits": logits} if target is None else {"loss": F.cross_entropy(logits, target), "logits": logits}


def named_target(items):
    batch = pad(items)
    labels = batch.pop("labels")
    return {**batch, "target": labels}


@pytest.mark.parametrize("name", ["label", "target"])
@pytest.mark.parametrize("k", [1, 2])
def test_labels_by_another_name(runs, name, k):
    """A column "label" that the collator renames; labels that the model and the batch call otherwise."""
    data, model, teacher = text_data(11), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    ends, _ = by_hand(model, teacher, windows_of("bert", data))
    settings = {**STEP, **KD, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    if name == "label":
        trainer = distil(runs, teacher, model, data.rename_column("labels", "label"), **settings)
        return assert_close(weights(trainer), ends)
    settings |= {"label_names": ["target"], "remove_unused_columns": False}
    trainer = make_trainer(runs, Target(model), data, taught(teacher), named_target, **settings)
    trainer.train()
    assert_close(weights(trainer), {f"model.{key}": value for key, value in ends.items()})


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(text_data(32))


class Items(torch.utils.data.Dataset):
    """A torch data set whose items are dictionaries."""

    def __init__(self, data):
        self.rows = list(data)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return dict(self.rows[i])


KINDS = {
    "torch data set": lambda: Items(text_data(32)),
    "torch stream": Stream,
    "stream": lambda: text_data(32).to_iterable_dataset(),
}


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_data(tmp_path, kind, keeps):
    """A run over other kinds of data ends where one over a table does, with or without the removal of columns."""
    settings = {"train_sampling_strategy": "sequential", "max_steps": 4, "label_correction": "none"}
    table = distil(str(tmp_path / "table"), teacher_for(), bert(), text_data(32), **settings)
    settings["remove_unused_columns"] = not keeps
    other = distil(str(tmp_path / "other"), teacher_for(), bert(), KINDS[kind](), **settings)
    assert_same_tensors(weights(table), weights(other))


def test_averaging_of_tokens_changes_nothing_on_one_process(tmp_path):
    runs_ = [
        distil(
            str(tmp_path / str(average)),
            teacher_for("tokens"),
            bert_tokens(),
            token_data(),
            average_tokens_across_devices=average,
            gradient_accumulation_steps=2,
        )
        for average in (True, False)
    ]
    assert_same_tensors(*map(weights, runs_))


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


# ---- refusals -------------------------------------------------------------------------------------------------------


def refused(trainer, *parts):
    """`train()` raises, names all parts in order, and leaves the student alone."""
    before = weights(trainer)
    with pytest.raises(ValueError, match="(?s)" + ".*".join(parts)):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    assert trainer.state.global_step == 0


nan, inf = float("nan"), float("inf")
WRONG = [("kd_weight", value) for value in (-0.1, 1.1, nan, inf, "half", True, [0.5])]
WRONG += [("kd_temperature", value) for value in (0, -1.0, nan, inf, "hot", None, True)]
WRONG += [("kd_loss", value) for value in ("KL", "ce", None)]
WRONG += [("kd_teacher_dtype", "half"), ("kd_teacher_dtype", None), ("kd_cache_dtype", "int8")]
WRONG += [("kd_teacher_device", value) for value in ("gpu9", "", 3)]
WRONG += [("kd_cache_top_k", value) for value in (0, -1, 2.5, True)]
WRONG += [("kd_cache_per_epoch", "yes"), ("kd_cache_dir", 3), ("kd_cache_dir", "")]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later."""
    settings = {"kd_weight": 0.5}
    if setting in ("kd_cache_top_k", "kd_cache_per_epoch"):
        settings["kd_cache_dir"] = runs + "-cache"
    with pytest.raises(ValueError, match=f"{setting}={re.escape(repr(value))}"):
        SATConfig(output_dir=runs, **{**settings, setting: value})
    trainer = make_trainer(runs, trainer=taught(teacher_for()), **settings)
    setattr(trainer.args, setting, value)
    refused(trainer, f"{setting}={re.escape(repr(value))}")


@pytest.mark.parametrize("setting, value", [("kd_cache_top_k", 2), ("kd_cache_per_epoch", True)])
def test_settings_of_a_cache_that_is_not_there(runs, setting, value):
    with pytest.raises(ValueError, match=f"{setting}={value}.*kd_cache_dir"):
        SATConfig(output_dir=runs, kd_weight=0.5, **{setting: value})


def test_a_teacher_without_weight_and_the_reverse(runs):
    refused(make_trainer(runs, trainer=taught(teacher_for())), "teacher_model", "kd_weight=None", "set kd_weight")
    refused(make_trainer(runs, kd_weight=0.5), r"kd_weight=0\.5", "no teacher_model")
    refused(make_trainer(runs, kd_weight=0.0, label_correction="none"), r"kd_weight=0\.0", "no teacher_model")


def test_plain_training_arguments_have_no_weight(runs):
    args = arguments(runs, TrainingArguments)
    trainer = SATTrainer(bert(), args, train_dataset=text_data(), data_collator=pad, teacher_model=teacher_for())
    refused(trainer, "teacher_model", "kd_weight", "leave teacher_model")
    args.kd_weight = 0.5
    trainer.train()
    assert trainer.state.global_step == 18


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2))


HEADS = {
    "regression": (lambda: bert(classes=1), ["num_labels=1", "leave teacher_model"]),
    "regression by type": (lambda: bert(problem_type="regression"), ["problem_type='regression'"]),
    "multi-label": (lambda: bert(problem_type="multi_label_classification"), ["multi_label_classification"]),
    "causal": (gpt2, ["GPT2LMHeadModel", "causal", "leave teacher_model"]),
}


@pytest.mark.parametrize("correction", ["none", "sat"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_without_classes_beside_their_labels(runs, name, correction):
    make, parts = HEADS[name]
    trainer = make_trainer(runs, make(), trainer=taught(teacher_for()), kd_weight=0.5, label_correction=correction)
    refused(trainer, *(parts if correction == "none" else parts[:1]))


def test_a_loss_function_of_the_users(runs):
    own = taught(teacher_for(), compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs["loss"])
    trainer = make_trainer(runs, trainer=own, kd_weight=0.5, label_correction="none")
    refused(trainer, "compute_loss_func", "distillation")


def test_a_subclass_that_does_not_ask_for_our_loss(runs):
    class Own(SATTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    trainer = make_trainer(runs, trainer=taught(teacher_for(), Own), kd_weight=0.5, label_correction="none")
    refused(trainer, r"Own\.compute_loss", r"super\(\)\.compute_loss")
