"""The divergences of distillation and their gradients against formulas in numpy.

Protects: any shape and temperature, classes that are ruled out, every precision.
"""

import math

import numpy as np
import pytest
import torch
from distillation_runs import expected
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hf_sat.methods.distillation import LOSSES, Distillation, entropy, jensen_shannon_divergence, kl_divergence

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
