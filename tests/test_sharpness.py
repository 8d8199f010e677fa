"""SAM and ASAM inside the Trainer, against a loop written by hand and against the same runs without them.

Protects: weights, soft targets and logs in every mode; which steps have two passes; rho 0 to the bit.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drop_in_runs import history
from hand_loop import DEFAULTS, IN_ORDER, Net, by_hand
from sharpness_runs import (
    ADAM,
    ASAM,
    BY_MICRO_BATCH,
    CORRECTING,
    NONE,
    SAM,
    SHORT_WINDOW,
    THREE,
    TWO,
    Watched,
    assert_as_by_hand,
    losses_of,
    replayed,
    targets,
    task_run,
)
from small import CLASSES, assert_same_tensors, make_trainer, text_data, weights
from torch import nn

from hf_sat import SATTrainer

# ---- against the loop by hand ---------------------------------------------------------------------------------------


REPLAYS = {
    "sam": SAM,
    "sam, accumulating": {**SAM, **TWO},
    "sam, three": {**SAM, **THREE, **ADAM},
    "sam, micro-batch": {**SAM, **TWO, **BY_MICRO_BATCH},
    "sam, micro-batch, three": {**SAM, **THREE, **BY_MICRO_BATCH, **ADAM},
    "sam, short window": {**SAM, **SHORT_WINDOW, **BY_MICRO_BATCH},
    "sam, adam": {**SAM, **ADAM},
    "sam, clipped": {**SAM, **TWO, "max_grad_norm": 0.05},
    "sam, not clipped": {**SAM, **TWO, "max_grad_norm": 0.0},
    "sam, unweighted": {**SAM, **THREE, "sat_reweight": False},
    "asam": ASAM,
    "asam, accumulating": {**ASAM, **TWO, **ADAM},
    "asam, three": {**ASAM, **THREE},
    "asam, micro-batch": {**ASAM, **TWO, **BY_MICRO_BATCH},
    "asam, short window": {**ASAM, **SHORT_WINDOW},
    "corrected late": {**SAM, **TWO, "sat_start_epoch": 1},
    "local, alone": {**SAM, **TWO, "sam_sync": "local"},
    "every third": {**SAM, **TWO, **BY_MICRO_BATCH, "sam_interval": 3},
    "late": {**ASAM, "sam_start": 0.5},
    "late, every other": {**SAM, "sam_start": 0.25, "sam_interval": 2},
    "never": {**SAM, "sam_start": 1.0},
    "off": {"sam": "none", **TWO},
    **{
        f"no correction, {name}": {**row, **NONE}
        for name, row in {
            "sam": SAM,
            "sam, three": {**SAM, **THREE},
            "sam, micro-batch": {**SAM, **SHORT_WINDOW, **BY_MICRO_BATCH},
            "asam": {**ASAM, **TWO, **ADAM},
        }.items()
    },
}


@pytest.mark.parametrize("name", REPLAYS)
def test_a_run_is_the_loop_by_hand(runs, name):
    """Weights, soft targets, and in the logs the clean loss, sharpness, and the norms of both gradients."""
    run, hand = replayed(runs, REPLAYS[name])
    assert_as_by_hand(run, hand)
    plain = by_hand(Net(), text_data(44), **{**REPLAYS[name], "sam": "none"})
    moved = max(float((hand.weights[key] - plain.weights[key]).abs().max()) for key in plain.weights)
    assert (moved > 1e-3) == (name not in ("off", "never")), "the run does not tell SAM from none"


class Routed(Net):
    """Another head takes over where a gate is open: in one pass a parameter has a gradient, in the other none."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.other = nn.Linear(8, CLASSES)
        self.unused = nn.Parameter(torch.ones(3))

    closed_at = 0.69

    def forward(self, input_ids, attention_mask=None, labels=None):
        features = self.features(input_ids)
        head = self.head if self.temperature.detach() > self.closed_at else self.other
        logits = head(features) / self.temperature
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_parameters_without_a_gradient_in_one_pass(runs, settings):
    run, hand = replayed(runs, settings, trainer=Watched, net=Routed())
    assert_as_by_hand(run, hand)
    assert torch.equal(run.model.unused.detach(), torch.ones(3).double())
    routes = [[seen["temperature"].item() > Routed.closed_at for seen in passes] for passes in run.seen[0]]
    assert all(routes[0]) and not any(routes[1]), "both passes took the same way"


def test_logs_are_means_over_the_steps_since_the_last(runs):
    settings, data = {**SAM, **TWO, "sam_interval": 2}, text_data(44)
    in_order = {**IN_ORDER, "logging_steps": 3}
    run = make_trainer(runs, copy.deepcopy(Net()).double(), data, **{**DEFAULTS, **settings}, **in_order)
    run.train()
    hand = by_hand(Net(), data, **settings)
    for number, log in enumerate(losses_of(run.state.log_history)):
        steps = hand.logs[3 * number : 3 * number + 3]
        for key in ("loss", "sam/sharpness", "sam/grad_norm"):
            values = [step[key] for step in steps if key in step]
            assert log[key] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-5)


def test_a_log_of_the_users_own_neither_fails_nor_repeats_values(runs):
    class Talking(SATTrainer):
        def compute_loss(self, *args, **kwargs):
            self.log({"loss": 0.0, "mine": 1.0})
            return super().compute_loss(*args, **kwargs)

    trainer = make_trainer(runs, Net(), text_data(32), Talking, logging_steps=2, num_train_epochs=1, **SAM)
    trainer.train()
    logs = losses_of(trainer.state.log_history)
    assert [{"sam/sharpness", "sam/grad_norm"} <= log.keys() for log in logs] == ["mine" not in log for log in logs]


# ---- when a step has two passes -------------------------------------------------------------------------------------


PASSES = {
    "always": (SAM, lambda step: True),
    "none": ({"sam": "none"}, lambda step: False),
    "every third": ({**SAM, "sam_interval": 3}, lambda step: step % 3 == 0),
    "from a half": ({**SAM, "sam_start": 0.5}, lambda step: step >= 5),
    "from a third": ({**ASAM, "sam_start": 3 / 9}, lambda step: step >= 3),
    "late, every other": ({**SAM, "sam_start": 0.4, "sam_interval": 2}, lambda step: step in (4, 6, 8)),
    "never": ({**SAM, "sam_start": 1.0}, lambda step: False),
    "longer than the run": ({**SAM, "sam_interval": 100}, lambda step: step == 0),
}


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("name", PASSES)
def test_which_steps_have_a_second_pass(runs, name, scope):
    settings, perturbs = PASSES[name]
    trainer = make_trainer(runs, Net(), trainer=Watched, sam_scope=scope, **TWO, **settings)
    trainer.train()
    counts = {step: tuple(map(len, passes)) for step, passes in trainer.seen.items()}
    assert counts == {step: (2, 2 if perturbs(step) else 0) for step in range(9)}
    if scope == "step":  # both passes are over the whole window, not one micro-batch after another
        for first, second in trainer.seen.values():
            assert all(torch.equal(a, b) for one in first for a, b in zip(one.values(), first[0].values()))
            assert all(torch.equal(a, b) for one in second for a, b in zip(one.values(), second[0].values()))


@pytest.mark.parametrize("start, max_steps, first", [(0.07, 100, 7), (0.57, 100, 57), (0.85, 20, 17), (0.3, 11, 4)])
def test_the_share_of_training_is_not_off_by_a_rounding(runs, start, max_steps, first):
    trainer = make_trainer(runs, Net(), sam="sam", sam_start=start)
    trainer._sharpness = trainer.args
    trainer.state.max_steps = max_steps
    begun = []
    for trainer.state.global_step in range(max_steps):
        begun += [trainer.state.global_step] if trainer._perturbs() else []
    assert begun == list(range(first, max_steps))


# ---- rho 0 ----------------------------------------------------------------------------------------------------------


NO_RADIUS = {
    "correcting": CORRECTING,
    "none": NONE,
    "none, smoothed": {**NONE, "label_smoothing_factor": 0.1},
    "automatic": {},
    "accumulating": {**CORRECTING, **TWO},
    "none, accumulating": {**NONE, **SHORT_WINDOW},
    "elr": {"label_correction": "elr", **TWO},
    "sce": {"label_correction": "sce", **TWO},
    "bfloat16": {**CORRECTING, **TWO, "bf16": True},
    "noisy embeddings": {**CORRECTING, **TWO, "neftune_noise_alpha": 5.0},
    "fused": {**CORRECTING, **TWO, "optim": "adamw_torch_fused"},
    "adafactor": {**CORRECTING, **TWO, "optim": "adafactor"},
    "sgd": {**CORRECTING, "optim": "sgd", "learning_rate": 0.1},
    "evaluating": {**CORRECTING, **TWO, "eval_strategy": "steps", "eval_steps": 2},
}
KINDS = {
    "sam": {"sam": "sam"},
    "asam, micro-batch": {"sam": "asam", **BY_MICRO_BATCH},
    "every other": {"sam": "sam", "sam_interval": 2},
}
CASES = [("bert", name, kind) for name in NO_RADIUS for kind in list(KINDS)[:2]]
CASES += [("bert", "accumulating", kind) for kind in ("sam, micro-batch", "asam", "every other")]
CASES += [(task, name, kind) for task in ("conv", "lora") for name in ("accumulating", "none") for kind in KINDS]
KINDS |= {"sam, micro-batch": {"sam": "sam", **BY_MICRO_BATCH}, "asam": {"sam": "asam"}}


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """The runs without SAM, each made once."""
    made = {}

    def get(task, name):
        if (task, name) not in made:
            made[task, name] = task_run(str(tmp_path_factory.mktemp("without")), task, NO_RADIUS[name])
        return made[task, name]

    return get


@pytest.mark.parametrize("task, name, kind", CASES)
def test_no_radius_is_the_run_without_to_the_bit(runs, without, task, name, kind):
    """With dropout: the same masks in both passes, and the random states afterwards as if there were one."""
    plain, ours = without(task, name), task_run(runs, task, {**NO_RADIUS[name], **KINDS[kind], "sam_rho": 0.0})
    assert_same_tensors(weights(plain), weights(ours))
    assert_same_tensors(targets(plain), targets(ours))
    logs = history(ours)
    assert [{k: v for k, v in log.items() if not k.startswith("sam/")} for log in logs] == history(plain)
    assert {log["sam/sharpness"] for log in logs if "sam/sharpness" in log} == {0.0}
    if kind == "sam":
        # With one gradient, that of the first pass is the one the loop clips, but for logs over several steps.
        assert all(log["sam/grad_norm"] > 0 for log in losses_of(logs))
    for one, other in zip(plain.end_of_rng, ours.end_of_rng):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
