"""The pure functions: properties over random inputs, and independent float64 formulas."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sat import methods
from hf_sat.visits import Visits, first_occurrence

logit_matrices = st.integers(1, 6).flatmap(
    lambda rows: st.integers(2, 5).flatmap(
        lambda classes: st.lists(
            st.lists(st.floats(-80, 80, width=32), min_size=classes, max_size=classes), min_size=rows, max_size=rows
        )
    )
)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(logits: torch.Tensor) -> torch.Tensor:
    return torch.eye(logits.shape[1])[torch.arange(len(logits)) % logits.shape[1]]


@settings(deadline=None)
@given(logit_matrices, st.floats(0, 0.999))
def test_update_is_a_mixture_of_distributions(rows, momentum):
    logits = torch.tensor(rows, requires_grad=True)
    stored = one_hot(logits)
    updated = methods.update_soft_targets(stored, logits, momentum)
    expected = momentum * stored.double().numpy() + (1 - momentum) * softmax(np.array(rows))
    np.testing.assert_allclose(updated.numpy(), expected, atol=1e-6)
    assert not updated.requires_grad


@settings(deadline=None)
@given(logit_matrices, st.data())
def test_weights_have_mean_one_over_the_rows_that_count(rows, data):
    targets = torch.tensor(rows).softmax(dim=-1)
    counted = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    weights = methods.sample_weights(targets, counted)
    assert (weights[~counted] == 0).all() and torch.isfinite(weights).all()
    if counted.any():
        assert weights[counted].mean().item() == pytest.approx(1.0, abs=1e-5)
        confidence = targets.max(dim=1).values
        torch.testing.assert_close(weights[counted] * confidence[counted].mean(), confidence[counted])


@settings(deadline=None)
@given(logit_matrices, st.floats(0, 2))
def test_losses_and_gradients_against_float64(rows, beta):
    logits = torch.tensor(rows, requires_grad=True)
    targets = methods.update_soft_targets(one_hot(logits), logits, 0.7)
    p, t = softmax(np.array(rows)), targets.double().numpy()
    z = np.array(rows)
    log_p = z - z.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    cross = -(t * log_p).sum(axis=1)
    reverse = -(p * np.log(np.maximum(t, 1e-4))).sum(axis=1)
    loss = methods.symmetric_cross_entropy(logits, targets, beta)
    np.testing.assert_allclose(loss.detach().numpy(), cross + beta * reverse, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    log_t = np.log(np.maximum(t, 1e-4))
    expected = t.sum(axis=1, keepdims=True) * p - t - beta * p * (log_t - (p * log_t).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-3, atol=1e-4)


# The peers in the papers' own words: (method, loss of logits z, labels y, running target t).
def gce(z, y, t, q=0.7):
    return (1 - softmax(z)[np.arange(len(y)), y] ** q) / q


def sce(z, y, t, alpha=0.1, beta=1.0):
    p = softmax(z)[np.arange(len(y)), y]
    return alpha * -np.log(p) + beta * -np.log(1e-4) * (1 - p)  # the paper's A = log 0 is log 1e-4


def bootstrap(z, y, t, beta=0.95):
    p = softmax(z)
    return -((beta * np.eye(p.shape[1])[y] + (1 - beta) * p) * np.log(p)).sum(axis=1)


def elr(z, y, t, strength=3.0):
    p = softmax(z)
    return -np.log(p[np.arange(len(y)), y]) + strength * np.log(1 - (p * t).sum(axis=1))


PEERS = {
    "gce": (methods.GeneralizedCrossEntropy(), gce),
    "sce": (methods.SymmetricCrossEntropy(), sce),
    "bootstrap": (methods.SoftBootstrapping(), bootstrap),
    "elr": (methods.EarlyLearningRegularization(), elr),
}


@pytest.mark.parametrize("name", PEERS)
def test_peers_against_their_papers(name):
    """Values, and gradients by central differences, in float64."""
    method, formula = PEERS[name]
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    t = softmax(rng.normal(size=(7, 5))) * 0.9
    logits, targets = torch.tensor(z, requires_grad=True), torch.tensor(t)
    counted = torch.tensor([True] * 6 + [False])
    losses = method.losses(logits, targets, method.weights(targets, counted), torch.tensor(y))
    np.testing.assert_allclose(losses.detach().numpy(), formula(z, y, t) * counted.numpy(), atol=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for row in range(6):
        for column in range(5):
            step = np.zeros_like(z)
            step[row, column] = 1e-6
            slope = (formula(z + step, y, t) - formula(z - step, y, t))[row] / 2e-6
            assert gradient[row, column].item() == pytest.approx(slope, abs=1e-7)
    assert (gradient[6] == 0).all()


def test_running_prediction_of_elr():
    z = np.random.default_rng(0).normal(size=(4, 3))
    once = methods.update_running_prediction(torch.zeros(4, 3, dtype=torch.float64), torch.tensor(z), 0.7)
    np.testing.assert_allclose(once.numpy(), 0.3 * softmax(z), atol=1e-12)
    twice = methods.update_running_prediction(once, torch.tensor(-z), 0.7)
    np.testing.assert_allclose(twice.numpy(), 0.21 * softmax(z) + 0.3 * softmax(-z), atol=1e-12)


@pytest.mark.parametrize("name", PEERS)
def test_peers_stay_finite(name):
    method, _ = PEERS[name]
    logits = torch.tensor([[400.0, -400.0, 0.0], [-400.0, 400.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.eye(3)[[0, 1, 2]]
    labels = torch.tensor([1, 1, -100])
    losses = method.losses(logits, targets, method.weights(targets, labels >= 0), labels)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.isfinite(losses).all() and torch.isfinite(gradient).all() and losses[2] == 0


@pytest.mark.parametrize("loss", ["ce", "sce"])
def test_one_hot_targets_and_certain_predictions_stay_finite(loss):
    logits = torch.tensor([[400.0, -400.0, 0.0], [-400.0, 400.0, 0.0]], requires_grad=True)
    sat = methods.SelfAdaptiveTraining(loss=loss)
    targets = torch.eye(3)[[0, 0]]
    losses = sat.losses(logits, targets, sat.weights(targets))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.isfinite(losses).all() and torch.isfinite(gradient).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_first_occurrence(rows):
    assert first_occurrence(torch.tensor(rows)).tolist() == [rows.index(row) for row in rows]


@pytest.mark.parametrize("scale", [1.0, 10.0, 300.0])
def test_the_largest_probability_follows_from_what_is_kept_of_the_given_label(scale):
    """Also where the given label's has underflown."""
    logits, labels = scale * torch.randn(50, 7, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 7
    given = logits.gather(1, labels[:, None])[:, 0]
    margin = given - logits.scatter(1, labels[:, None], -torch.inf).max(dim=1).values
    rest = {f.name: torch.zeros(50, 1) for f in fields(Visits)}
    p_given = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    found = Visits(**{**rest, "p_given": p_given, "margin": margin}).p_predicted
    torch.testing.assert_close(found, logits.softmax(dim=1).max(dim=1).values, rtol=2e-3, atol=1e-6)
