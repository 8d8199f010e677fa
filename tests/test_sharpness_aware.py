"""The perturbation of SAM and ASAM against independent float64 formulas.

Protects: weights after it in every layout and precision; weights that come back bit for bit; no perturbation from a
norm that is 0 or not finite; no wait for the device; memory.
"""

import copy
import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from perturbed import VARIANTS, formula, same_bits, weights
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_sat.methods import SharpnessAware, ascent, perturb, perturbation_norm, sam_gradient

NAMES = ["layer.weight", "layer.bias", "cls_token", "norm.weight", "norm.bias"]


def parameters(shapes, seed=0, dtype=torch.float32, grad_scale=1.0):
    """Named parameters with gradients, both from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    named = []
    for i, shape in enumerate(shapes):
        parameter = nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        parameter.grad = (torch.randn(shape, generator=generator) * grad_scale).to(dtype)
        named.append((f"{i}.{NAMES[i % len(NAMES)]}", parameter))
    return named


def assert_follows_formula(named, variant, rho, eta=0.01, rtol=1e-6, atol=1e-6):
    norm, expected = formula(named, variant, rho, eta)
    before = weights(named)
    perturbation = SharpnessAware(variant, rho, eta).perturb(named)
    assert perturbation.norm.dtype == torch.float32 and perturbation.norm.shape == ()
    assert perturbation.norm.item() == pytest.approx(norm, rel=1e-6)
    for (_, parameter), value in zip(named, expected):
        np.testing.assert_allclose(parameter.detach().double().numpy(), value, rtol=rtol, atol=atol)
    perturbation.restore()
    assert same_bits(weights(named), before)


def in_place(parts):
    """What happens on a GPU."""
    return [], parts


# ---- the perturbation -----------------------------------------------------------------------------------------------


SHAPES = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=7).filter(
    lambda shapes: any(math.prod(shape) for shape in shapes)
)


@pytest.mark.parametrize("kernel", ["swap", "fused", "plain"])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=40)
@given(
    shapes=SHAPES,
    rho=st.floats(1e-4, 2.0),
    eta=st.floats(0.0, 1.0),
    loss_scale=st.sampled_from([1e-6, 1.0, 2.0**16, 2.0**30]),
    scratch=st.sampled_from([16, 100, 2**15]),
    seed=st.integers(0, 99),
)
def test_weights_against_float64(variant, kernel, shapes, rho, eta, loss_scale, scratch, seed):
    named = parameters(shapes, seed, grad_scale=loss_scale)
    fits = ascent._fits_fused_kernel if kernel == "fused" else lambda value, step: False
    swappable = ascent.swappable if kernel == "swap" else in_place
    patches = {"LEAST_SCRATCH": scratch, "LARGEST_SUM": scratch, "swappable": swappable, "_fits_fused_kernel": fits}
    with mock.patch.multiple(ascent, **patches):
        assert_follows_formula(named, variant, rho, eta, rtol=1e-5, atol=1e-6 * max(1.0, rho))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("grad_scale", [1.0, 2.0**11])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype, grad_scale, variant):
    # At 2^11 squares overflow float16, at 1 times a small T they underflow; the norm is measured in float32.
    named = parameters([(300, 7), (300,), (5,)], dtype=dtype, grad_scale=grad_scale)
    half_a_step = torch.finfo(dtype).eps / 2
    assert_follows_formula(named, variant, rho=3.0, rtol=max(1e-6, half_a_step * 1.01), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_in_another_precision(variant):
    named = parameters([(40, 7), (40,)], dtype=torch.bfloat16)
    for _, parameter in named:
        parameter.grad_dtype = None
        parameter.grad = parameter.grad.float() * 1e-3
    assert_follows_formula(named, variant, rho=3.0, rtol=2**-8 * 1.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_layout(variant):
    """Channels last, gradients laid out unlike their weight, and a weight with holes."""
    image = nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    image.grad = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    crossed = nn.Parameter(torch.randn(6, 4))
    crossed.grad = torch.randn(4, 6).t()
    memory = torch.randn(6, 10)
    holed = nn.Parameter(memory[:, ::2])
    holed.grad = torch.randn(6, 10)[:, ::2]
    beside = memory[:, 1::2].clone()
    named = [("image.weight", image), ("crossed.weight", crossed), ("holed.weight", holed)]
    for some in ([each] for each in named):
        assert_follows_formula(some, variant, rho=0.7, rtol=1e-5)
    assert_follows_formula(named, variant, rho=0.7, rtol=1e-5)
    assert torch.equal(memory[:, 1::2], beside)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sparse_gradients_are_dense_ones(variant):
    torch.manual_seed(0)
    named = [[("embedding.weight", nn.Parameter(torch.randn(50, 6))), ("bias", nn.Parameter(torch.randn(6)))]]
    named.append(copy.deepcopy(named[0]))
    ids = torch.tensor([3, 7, 7, 49, 3, 3])
    for (_, table), (_, bias) in named:
        sparse = table is named[0][0][1]
        (F.embedding(ids, table, sparse=sparse) + bias).pow(3).sum().backward()
    (_, table), _ = named[0]
    assert table.grad.is_sparse and not table.grad.is_coalesced()
    assert perturbation_norm(named[0], variant).item() == pytest.approx(perturbation_norm(named[1], variant).item())
    assert_follows_formula(named[0], variant, rho=0.5, rtol=1e-5)
    perturbation = perturb(named[0])
    assert sum(copied.numel() for _, group in perturbation.copies for copied in group) == 3 * 6
    assert [held.numel() for _, held in perturbation.swapped] == [6]


@pytest.mark.parametrize("scale", [2.0**16, 2.0**24])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_scale_does_not_matter(variant, scale):
    plain, scaled = parameters([(30, 20), (30,)]), parameters([(30, 20), (30,)], grad_scale=scale)
    perturb(plain, variant, 0.5), perturb(scaled, variant, 0.5)
    for ours, theirs in zip(weights(scaled), weights(plain)):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


POISONS = [math.inf, -math.inf, math.nan, "all zero", "one sparse"]


@pytest.mark.parametrize("kernel", ["swap", "fused", "plain"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "poison, dtype", [("overflow", torch.float32), *itertools.product(POISONS, [torch.float32, torch.float16])]
)
def test_no_perturbation_from_a_bad_norm(poison, variant, kernel, dtype):
    named = parameters([(40, 9), (40,), (3,)], dtype=dtype)
    named[2][1].data[0] = -0.0
    for _, parameter in named:
        if poison == "all zero":
            parameter.grad.zero_()
        elif poison == "overflow":
            parameter.grad.fill_(1e30)
    if poison == "one sparse":
        table = nn.Parameter(torch.randn(4, 2, dtype=dtype))
        rows = torch.full((1, 2), math.nan, dtype=dtype)
        table.grad = torch.sparse_coo_tensor([[1]], rows, (4, 2), check_invariants=False)
        named.append(("table.weight", table))
    elif isinstance(poison, float):
        named[0][1].grad[7, 3] = poison
    before = weights(named)
    fits = ascent._fits_fused_kernel if kernel == "fused" else lambda value, step: False
    swappable = ascent.swappable if kernel == "swap" else in_place
    with mock.patch.multiple(ascent, _fits_fused_kernel=fits, swappable=swappable):
        perturbation = perturb(named, variant, rho=0.1)
    assert same_bits(weights(named), before)
    perturbation.restore()
    assert same_bits(weights(named), before)


def test_gradients_are_left_as_they_are():
    for variant in VARIANTS:
        named = parameters([(30, 20), (30,)])
        before = [parameter.grad.clone() for _, parameter in named]
        perturbation_norm(named, variant), perturb(named, variant)
        assert same_bits([parameter.grad for _, parameter in named], before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_left_alone(variant):
    named = parameters([(4, 3), (4,), (5, 2), (2, 2)])
    frozen, without = named[0][1], named[1][1]
    frozen.requires_grad_(False)
    without.grad = None
    before, (norm, expected) = weights(named), formula(named[2:], variant, rho=0.3)
    tied = [*named, ("another.name.bias", named[2][1])]
    assert perturbation_norm(tied, variant).item() == pytest.approx(norm, rel=1e-6)
    perturbation = perturb(iter(tied), variant, rho=0.3)
    assert same_bits(weights(named[:2]), before[:2])
    np.testing.assert_allclose(named[2][1].detach().numpy(), expected[0], rtol=1e-5, atol=1e-6)
    assert sum(held.numel() for _, held in perturbation.swapped) == 10 + 4


def test_without_any_gradient():
    named = [("weight", nn.Parameter(torch.ones(3)))]
    assert perturbation_norm(named).item() == 0.0 and perturbation_norm([]).dtype == torch.float32
    perturb(named, rho=1.0).restore()
    assert torch.equal(named[0][1].data, torch.ones(3))


def test_a_norm_that_is_known_is_taken():
    named, half = parameters([(4, 3)]), parameters([(4, 3)])
    perturb(named, rho=0.2)
    perturb(half, rho=0.1, norm=perturbation_norm(half) / 2)
    torch.testing.assert_close(weights(half), weights(named), rtol=1e-6, atol=1e-6)


def test_large_tensors_are_measured_exactly():
    named = parameters([(2000, 2000)])
    for variant in VARIANTS:
        assert perturbation_norm(named, variant).item() == pytest.approx(formula(named, variant, 0.0)[0], rel=1e-6)


def test_restore_counts_once():
    named = parameters([(4, 3), (4,)])
    perturbation = perturb(named)
    perturbation.restore()
    with torch.no_grad():
        named[0][1].add_(1.0)
    trained = weights(named)
    perturbation.restore()
    assert same_bits(weights(named), trained)


@pytest.mark.parametrize("variant", VARIANTS)
def test_perturbed_weights_lie_where_the_gradients_lay(variant):
    named, others = (parameters([(4, 3), (4,), (4, 3), ()]) for _ in range(2))
    fresh, own = weights(named), [parameter.data_ptr() for _, parameter in named]
    spent = [parameter.grad.data_ptr() for _, parameter in named]
    perturbation = perturb(named, variant, rho=0.5, spend_gradients=True)
    perturb(others, variant, rho=0.5)
    assert same_bits(weights(named), weights(others)) and not any(perturbation.copies)
    assert [parameter.data_ptr() for _, parameter in named] == spent
    assert all(parameter.grad is None for _, parameter in named)
    assert all(parameter.grad is not None for _, parameter in others)
    spare = []
    perturbation.restore(spare), perturbation.restore(spare)
    assert [held.data_ptr() for held in spare] == spent
    assert same_bits(weights(named), fresh) and [parameter.data_ptr() for _, parameter in named] == own


def test_gradients_that_others_read_are_not_spent():
    """Views of a bucket, one that two parameters share, one laid out unlike its weight; and all, at a bad norm."""
    named = parameters([(4, 3), (4, 3), (2, 3), (2, 3), (3, 5)])
    bucket, shared = torch.randn(24), torch.randn(2, 3)
    named[0][1].grad, named[1][1].grad = bucket[:12].view(4, 3), bucket[12:].view(4, 3)
    named[2][1].grad = named[3][1].grad = shared
    named[4][1].grad = torch.randn(5, 3).t()
    found, before = [parameter.grad.clone() for _, parameter in named], weights(named)
    perturbation = perturb(named, rho=0.5, spend_gradients=True)
    assert same_bits([parameter.grad for _, parameter in named], found) and len(perturbation.swapped) == 5
    assert not any(torch.equal(*pair) for pair in zip(weights(named), before))
    perturbation.restore()
    assert same_bits(weights(named), before)
    perturb(named, norm=torch.tensor(math.nan), spend_gradients=True)
    assert same_bits([parameter.grad for _, parameter in named], found) and same_bits(weights(named), before)


def test_memory_that_others_read_is_perturbed_in_place():
    """Weights that lie in a common buffer, are tied without being one parameter, or are of another precision."""
    buffer = torch.randn(8)
    named = [(f"{i}.weight", nn.Parameter(torch.randn(4))) for i in range(3)]
    named.append(("3.weight", nn.Parameter(torch.randn(4, dtype=torch.bfloat16))))
    named[0][1].data = buffer[:4]
    named[1][1].data = named[2][1].data
    for _, parameter in named:
        parameter.grad = torch.randn_like(parameter)
    before, places = weights(named), [parameter.data_ptr() for _, parameter in named]
    perturbation = perturb(named, rho=0.5)
    assert [parameter.data_ptr() for _, parameter in named] == places and not perturbation.swapped
    assert torch.equal(buffer[:4], named[0][1]) and not any(torch.equal(*pair) for pair in zip(weights(named), before))
    perturbation.restore()
    assert same_bits(weights(named), before)


def test_weights_come_back_from_an_error_inside():
    named = parameters([(64, 64), (64, 64), (64,)])
    before, add, calls = weights(named), ascent._add, []

    def failing(*args):
        calls.append(add(*args))
        if len(calls) == 2:
            raise MemoryError

    patches = {"LEAST_SCRATCH": 64, "_add": failing, "swappable": in_place}
    with mock.patch.multiple(ascent, **patches), pytest.raises(MemoryError):
        perturb(named, "asam", rho=0.5)
    assert same_bits(weights(named), before)


@pytest.mark.parametrize("setting, value", [("variant", "SAM"), ("variant", None), ("rho", -1.0), ("rho", math.nan)])
def test_wrong_settings_are_refused_by_name(setting, value):
    named = {"variant": "sam", "rho": "sam_rho"}[setting]
    for refusing in (SharpnessAware, lambda **kwargs: perturb([], **kwargs)):
        with pytest.raises(ValueError, match=f"^{named}={value!r}: (give|choose)"):
            refusing(**{setting: value})
    for bad in (math.inf, True, "0.05", None):
        with pytest.raises(ValueError, match="sam_rho="):
            SharpnessAware(rho=bad)
    with pytest.raises(ValueError, match=r"eta=-0.1: give"):
        perturbation_norm([], "asam", eta=-0.1)


# ---- device, memory -------------------------------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for a value on the device."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(str(func).startswith(f"aten.{name}") for name in self.WAITING):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_host_never_waits(variant):
    named = parameters([(30, 20), (30,), (4, 4)])
    with NoWaiting(), mock.patch.object(ascent, "swappable", in_place):
        with pytest.raises(AssertionError, match="waits"):
            named[0][1].sum().item()
        perturb(named, variant, rho=0.1, norm=perturbation_norm(named, variant)).restore()
        perturb(named, variant, rho=0.1).restore()


def peak_bytes(function):
    """The most that was allocated at a time beyond what was there, by the allocator's own account.

    It does not see the end of what began before.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_beyond_the_plain_step(variant, dtype):
    """At most 1.02 times the weights, although one tensor holds most of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(12_000, 128), *[nn.Linear(128, 128) for _ in range(60)]).to(dtype)
    ids, size = torch.arange(4), sum(parameter.nbytes for parameter in model.parameters())

    def closure():
        loss = model(ids).square().mean()
        loss.backward()
        return loss

    plain = peak_bytes(closure)
    model.zero_grad()
    ours = peak_bytes(lambda: sam_gradient(model.named_parameters(), closure, SharpnessAware(variant)))
    assert plain >= size and 0.99 * size < ours - plain < 1.02 * size
