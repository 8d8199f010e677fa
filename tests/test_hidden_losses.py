"""The distances between hidden states, and which layers are matched.

Protects: each distance and its gradient against formulas in numpy, padding left out, in half precision too, and
computed in single; the widths that may differ; the maps of layers.
"""

import numpy as np
import pytest
import torch

from hf_sat.methods.hidden_distillation import HIDDEN_LOSSES, HiddenDistillation, layer_pairs

# ---- the distances --------------------------------------------------------------------------------------------------


def cosines(a, b):
    return (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


FORMULAS = {
    "cosine": lambda s, t: 1 - np.diag(cosines(s, t)).mean(),
    "mse": lambda s, t: ((s - t) ** 2).mean(),
    "similarity": lambda s, t: ((cosines(s, s) - cosines(t, t)) ** 2).mean(),
}


def states(seed, width, examples=3, positions=5, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(examples, positions, width))


COUNTED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]]).bool()
WIDTHS = [("cosine", 4, 4), ("mse", 4, 4), ("similarity", 4, 4), ("similarity", 4, 7), ("similarity", 9, 2)]


@pytest.mark.parametrize("loss, ours, theirs", WIDTHS)
def test_distances_are_the_formulas(loss, ours, theirs):
    """Of the positions that count alone; and the gradient is that of finite differences."""
    student, teacher = torch.tensor(states(0, ours), requires_grad=True), torch.tensor(states(1, theirs))
    found = HIDDEN_LOSSES[loss](student, teacher, COUNTED)
    rows = zip(student.detach().numpy(), teacher.numpy(), COUNTED.numpy())
    np.testing.assert_allclose(found.detach(), [FORMULAS[loss](s[c], t[c]) for s, t, c in rows], atol=1e-12)
    assert torch.autograd.gradcheck(lambda s: HIDDEN_LOSSES[loss](s, teacher, COUNTED), student)
    gradient = torch.autograd.grad(found.sum(), student)[0]
    assert not gradient[~COUNTED].any() and gradient[COUNTED].any(dim=-1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", HIDDEN_LOSSES)
def test_half_precision_is_computed_in_single(loss, dtype):
    student, teacher = (torch.tensor(states(seed, 4, scale=50.0)).to(dtype) for seed in (0, 1))
    found = HIDDEN_LOSSES[loss](student, teacher, COUNTED)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, HIDDEN_LOSSES[loss](student.float(), teacher.float(), COUNTED))


@pytest.mark.parametrize("loss", HIDDEN_LOSSES)
def test_zero_at_the_teachers_and_without_positions(loss):
    student, teacher = (torch.tensor(states(0, 4), requires_grad=True) for _ in range(2))
    everywhere = torch.ones(3, 5, dtype=torch.bool)
    assert HIDDEN_LOSSES[loss](student, teacher, everywhere).abs().max() < 1e-12
    nowhere = HIDDEN_LOSSES[loss](student, torch.tensor(states(1, 4), requires_grad=True), ~everywhere)
    nowhere.sum().backward()
    assert not nowhere.any() and teacher.grad is None and not student.grad.any()


def test_cosine_is_half_of_patient_kd():
    student, teacher = torch.tensor(states(0, 6)), torch.tensor(states(1, 6))
    unit = [each / each.norm(dim=-1, keepdim=True) for each in (student, teacher)]
    patient = (unit[0] - unit[1]).square().sum(dim=-1).mean(dim=1)
    found = HIDDEN_LOSSES["cosine"](student, teacher, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(2 * found, patient)


@pytest.mark.parametrize(
    "layer_map, layers, pairs",
    [
        ("auto", (3, 6), [(1, 2), (2, 4), (3, 6)]),
        ("auto", (6, 12), [(i, 2 * i) for i in range(1, 7)]),
        ("auto", (4, 6), [(1, 2), (2, 3), (3, 5), (4, 6)]),
        ("auto", (1, 12), [(1, 12)]),
        ("auto", (4, 2), [(1, 1), (2, 1), (3, 2), (4, 2)]),
        ("1:2,3:6", (3, 6), [(1, 2), (3, 6)]),
        (" 0:0 , -1:-1,-4:-7", (3, 6), [(0, 0), (3, 6), (0, 0)]),
    ],
)
def test_which_layers_are_matched(layer_map, layers, pairs):
    assert layer_pairs(layer_map, *layers) == pairs


def test_the_functional_form_is_a_mean_over_layers():
    student, teacher = ([torch.tensor(states(seed + i, 4)) for i in range(3)] for seed in (0, 10))
    found = HiddenDistillation(1.0, "mse", "0:2,2:1").losses(student, [None, *teacher[1:]], COUNTED)
    by_layer = [HIDDEN_LOSSES["mse"](student[s], teacher[t], COUNTED) for s, t in ((0, 2), (2, 1))]
    torch.testing.assert_close(found, (by_layer[0] + by_layer[1]) / 2)


def test_layers_may_have_positions_of_their_own_number_where_all_count():
    """As stages of a Swin have; a mask of tokens belongs to one number of them."""
    student, teacher = ([torch.tensor(states(seed, 4, positions=p)) for p in (8, 8, 2)] for seed in (0, 1))
    method = HiddenDistillation(1.0, "mse")
    halves = [((student[i] - teacher[i]) ** 2).mean(dim=(1, 2)) for i in (1, 2)]
    torch.testing.assert_close(method.losses(student, teacher), (halves[0] + halves[1]) / 2)
    with pytest.raises(ValueError, match=r"2:2 .*mask has \(3, 8\).*kd_layer_map, or set kd_hidden_weight=0"):
        method.losses(student, teacher, torch.ones(3, 8, dtype=torch.bool))


@pytest.mark.parametrize(
    "ours, theirs, parts",
    [
        ((3, 5, 4), (3, 6, 4), "does not read the student's tokens or patches"),
        ((3, 4, 2, 2), (3, 4, 2, 2), r"not \(examples, positions, width\)"),
        ((3, 5, 4), (3, 5, 8), 'needs an equal width; set kd_hidden_loss="similarity"'),
    ],
)
def test_shapes_that_cannot_be_matched(ours, theirs, parts):
    student, teacher = [torch.zeros(ours)] * 2, [torch.zeros(theirs)] * 3
    with pytest.raises(ValueError, match=rf"kd_hidden_loss='cosine'.*1:2 .*{parts}.*set kd_hidden_weight=0"):
        HiddenDistillation().losses(student, teacher)
