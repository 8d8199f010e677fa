"""The SAM gradient for any training loop, against float64 and a plain implementation of the paper.

Protects: the same dropout in both passes; BatchNorm statistics that move once.
"""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from perturbed import VARIANTS, same_bits, weights
from torch import nn

from hf_sat.methods import SharpnessAware, frozen_batch_norm_statistics, sam_gradient


def softmax_regression(seed=0, rows=16, columns=5, classes=3):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(columns, classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(rows, columns, generator=generator), torch.arange(rows) % classes


def closure_of(model, inputs, labels):
    def closure():
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_sam_gradient_against_float64(variant, seed):
    """Softmax regression, whose gradient is known: (p - y) x."""
    model, inputs, labels = softmax_regression(seed)
    x, y = inputs.double().numpy(), np.eye(3)[labels.numpy()]

    def loss_and_gradients(weight, bias):
        z = x @ weight.T + bias
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        slope = (p - y) / len(x)
        return -(y * np.log(p)).sum(axis=1).mean(), [slope.T @ x, slope.sum(axis=0)]

    w = [parameter.detach().double().numpy().copy() for parameter in model.parameters()]
    loss, g = loss_and_gradients(*w)
    t = [np.abs(w[0]) + 0.01, np.ones(3)] if variant == "asam" else [1.0, 1.0]
    norm = math.sqrt(sum(((scale * each) ** 2).sum() for scale, each in zip(t, g)))
    perturbed = [each + 0.8 * scale**2 * slope / norm for each, scale, slope in zip(w, t, g)]
    perturbed_loss, expected = loss_and_gradients(*perturbed)

    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 9.0)  # of the step before
    method = SharpnessAware(variant, rho=0.8)
    losses = sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), method)
    assert [each.item() for each in losses] == pytest.approx([loss, perturbed_loss], rel=1e-5)
    assert not any(each.requires_grad for each in losses)
    for parameter, value, gradient in zip(model.parameters(), w, expected):
        assert np.array_equal(parameter.detach().double().numpy(), value)
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_common_implementation_takes_the_same_steps(optimizer):
    """SAM as it is mostly written: e kept, added and subtracted around the base optimizer's step."""
    model, inputs, labels = softmax_regression()
    model = nn.Sequential(model, nn.Tanh(), nn.Linear(3, 3))
    other = copy.deepcopy(model)
    ours, theirs = optimizer(model.parameters(), lr=0.01), optimizer(other.parameters(), lr=0.01)
    for _ in range(10):
        sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), SharpnessAware(rho=0.05))
        ours.step()

        theirs.zero_grad()
        F.cross_entropy(other(inputs), labels).backward()
        length = torch.cat([parameter.grad.flatten() for parameter in other.parameters()]).norm() + 1e-12
        steps = [parameter.grad * (0.05 / length) for parameter in other.parameters()]
        with torch.no_grad():
            for parameter, step in zip(other.parameters(), steps):
                parameter.add_(step)
        theirs.zero_grad()
        F.cross_entropy(other(inputs), labels).backward()
        with torch.no_grad():
            for parameter, step in zip(other.parameters(), steps):
                parameter.sub_(step)
        theirs.step()
    for one, two in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_asam_does_not_see_how_layers_share_their_scale():
    """With eta 0 the perturbed function is the same for (a w1, w2 / a); SAM's is not."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(16, 5, dtype=torch.float64), torch.arange(16) % 3

    def losses(variant, a):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
        with torch.no_grad():
            model[0].weight.mul_(a), model[2].weight.div_(a)
        method = SharpnessAware(variant, rho=0.3, eta=0.0)
        found = sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), method)
        return [each.item() for each in found]

    for a in (8.0, 0.01):
        assert losses("asam", a) == pytest.approx(losses("asam", 1.0), rel=1e-6)
        assert losses("sam", a)[1] != pytest.approx(losses("sam", 1.0)[1], rel=1e-2)


class Net(nn.Module):
    """Dropout and both kinds of statistics; keeps the masks it has drawn."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.instance = nn.InstanceNorm1d(2, track_running_stats=True)
        self.last = nn.Linear(8, 3)
        self.masks = []

    def forward(self, inputs):
        hidden = self.norm(self.first(inputs))
        hidden = self.instance(hidden.view(-1, 2, 4)).reshape(-1, 8)
        self.masks.append(F.dropout(torch.ones_like(hidden), 0.5, training=self.training))
        return self.last(hidden * self.masks[-1])


def net():
    torch.manual_seed(0)
    return Net(), torch.randn(12, 6), torch.arange(12) % 3


def buffers(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rho_zero_is_the_plain_step(variant):
    model, inputs, labels = net()
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for each in (model, plain):
            each.last.weight[0, :4] = -0.0
    torch.manual_seed(5)
    F.cross_entropy(plain(inputs), labels).backward()
    random = torch.rand(3)
    torch.manual_seed(5)
    method = SharpnessAware(variant, rho=0.0)
    losses = sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), method, model)
    assert torch.equal(torch.rand(3), random)
    assert torch.equal(*losses)
    assert same_bits(weights(model.named_parameters()), weights(plain.named_parameters()))
    assert same_bits([p.grad for p in model.parameters()], [p.grad for p in plain.parameters()])
    assert same(buffers(model), buffers(plain))


def test_both_passes_draw_the_same_dropout():
    model, inputs, labels = net()
    losses = sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), SharpnessAware(rho=0.5), model)
    assert len(model.masks) == 2 and torch.equal(*model.masks)
    assert not torch.equal(*losses)
    sam_gradient(model.named_parameters(), closure_of(model, inputs, labels), SharpnessAware(rho=0.5), model)
    assert not torch.equal(model.masks[1], model.masks[2])


def test_an_error_in_the_second_pass_leaves_weights_statistics_and_random_states():
    model, inputs, labels = net()
    before, states, closure = weights(model.named_parameters()), [], closure_of(model, inputs, labels)

    def failing():
        loss = closure()
        states.append((buffers(model), torch.get_rng_state()))
        if len(states) == 2:
            raise RuntimeError("second pass")
        return loss

    with pytest.raises(RuntimeError, match="second pass"):
        sam_gradient(model.named_parameters(), failing, SharpnessAware(rho=0.5), model)
    assert same_bits(weights(model.named_parameters()), before)
    assert same(buffers(model), states[0][0]) and not same(buffers(model), states[1][0])
    assert torch.equal(torch.get_rng_state(), states[0][1])


def test_statistics_move_once():
    model, inputs, labels = net()
    start = buffers(model)
    closure, after = closure_of(model, inputs, labels), []

    def watched():
        loss = closure()
        after.append(buffers(model))
        return loss

    for step in range(1, 4):
        sam_gradient(model.named_parameters(), watched, SharpnessAware(rho=0.5), model)
        assert same(buffers(model), after[-2]) and not same(after[-2], after[-1])
        assert model.norm.num_batches_tracked.item() == step
    assert not same(buffers(model), start)
    assert model.norm.momentum == 0.1 and model.training


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: torch.compile(model, backend="eager")])
def test_frozen_statistics(wrap):
    model, inputs, labels = net()
    wrapped, start = wrap(model), buffers(model)
    held = dict(model.named_buffers())
    with frozen_batch_norm_statistics(wrapped), frozen_batch_norm_statistics(wrapped):
        loss = F.cross_entropy(wrapped(inputs), labels)
        # Normalised by the batch, not by the running statistics.
        hidden = model.norm(model.first(inputs))
        torch.testing.assert_close(hidden.mean(dim=0), torch.zeros(8), atol=1e-5, rtol=0)
    assert same(buffers(model), start)
    loss.backward()  # after the copy
    with pytest.raises(KeyError), frozen_batch_norm_statistics(wrapped):
        wrapped(inputs)
        model.norm.running_mean = model.norm.running_mean + 1  # replaced, as some modules do
        raise KeyError
    assert same(buffers(model), start)
    assert all(buffer is held[name] for name, buffer in model.named_buffers())
    wrapped(inputs)
    assert model.norm.num_batches_tracked.item() == 1 and not same(buffers(model), start)
