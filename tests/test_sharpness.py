"""SAM and ASAM inside the Trainer, against a loop written by hand and against the same runs without them.

Protects: weights, soft targets and logs in every mode; rho 0 to the bit; resume and checkpoints that the plain Trainer
reads; both passes alike in dropout and targets, the second at perturbed weights in every precision; BatchNorm
statistics; weights that come back after failures; users' own losses and steps; refusals.
"""

import copy
import os
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hand_loop import DEFAULTS, IN_ORDER, Net, by_hand, length
from small import (
    CLASSES,
    Steps,
    arguments,
    assert_same_tensors,
    bert,
    make_trainer,
    pad,
    text_data,
    weights,
)
from test_checkpoints import JustInTime
from test_drop_in import accuracy, files, history, lora, optimizers, own_loss, own_step
from test_everywhere import pad_to_ten, run_pairs, t5
from test_refusals import refused
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_sat import SATConfig, SATMixin, SATSeq2SeqConfig, SATSeq2SeqTrainer, SATTrainer, recipe

SAM, ASAM = {"sam": "sam", "sam_rho": 0.5}, {"sam": "asam", "sam_rho": 2.0}
BY_MICRO_BATCH = {"sam_scope": "micro_batch"}
NONE = {"label_correction": "none"}
TWO, THREE = {"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 3}
SHORT_WINDOW = {"gradient_accumulation_steps": 4}  # of the six batches of an epoch
ADAM = {"optim": "adamw_torch", "learning_rate": 0.02}
CORRECTING = {"sat_momentum": 0.6, "sat_start_epoch": 0.5}


def targets(trainer) -> dict[str, torch.Tensor]:
    return {} if trainer._correction is None else trainer._correction.state.tensors()


def losses_of(logs: list[dict]) -> list[dict]:
    return [log for log in logs if "loss" in log]


class Watching:
    """Under the mixin: keeps the weights that each pass of a run sees, by optimizer step, first passes and second."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        second = self._replaying is not None
        seen = self.__dict__.setdefault("seen", {}).setdefault(self.state.global_step, ([], []))
        seen[second].append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return super().training_step(model, inputs, num_items_in_batch)


def beneath(*classes: type) -> type:
    """The SAT trainer with the classes between it and upstream's."""
    return type("Beneath", (SATMixin, *classes, Trainer), {})


Watched = beneath(Watching)

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
LEAST = {"grad_norm", "loss"}


def replayed(folder: str, settings: dict, trainer: type = SATTrainer, net: nn.Module | None = None, data=None, **own):
    """A run of the Trainer in float64 and in order, beside what the loop by hand ends with."""
    net = net or Net()
    settings, data = {**DEFAULTS, **settings}, data or text_data(44)
    penalty = own.pop("penalty", 0.0)
    run = make_trainer(folder, copy.deepcopy(net).double(), data, trainer, **settings, **IN_ORDER, **own)
    run.train()
    return run, by_hand(net, data, penalty=penalty, **settings)


def assert_as_by_hand(run, hand, atol=2e-6, logs=True):
    torch.testing.assert_close(weights(run), hand.weights, atol=atol, rtol=0.0)
    if run._correction is not None:
        found = targets(run)["soft_targets"].double()
        torch.testing.assert_close(found, hand.targets, atol=atol, rtol=0.0)
    ours = losses_of(run.state.log_history)
    assert len(ours) == len(hand.logs) == run.state.global_step
    for mine, expected in zip(ours, hand.logs if logs else []):
        assert {key for key in mine if key.startswith("sam/")} == expected.keys() - LEAST
        assert {key: mine[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


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


class ConvNet(nn.Module):
    """BatchNorm twice, once with cumulative statistics, and dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6, momentum=None)
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, pixel_values, labels=None):
        features = torch.dropout(self.features(pixel_values).mean((2, 3)), 0.1, self.training)
        logits = self.head(features)
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


def images(n=44):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    pixels = torch.randn(n, 3, 8, 8, generator=generator) + labels[:, None, None, None]
    return [{"pixel_values": pixel, "labels": int(label)} for pixel, label in zip(pixels, labels)]


TASKS = {
    "bert": (bert, lambda: text_data(44), pad),
    "conv": (ConvNet, images, None),
    "lora": (lora, lambda: text_data(44), pad),
}
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


def task_run(folder, task, settings):
    make, data, collator = TASKS[task]
    evaluated = {"eval_dataset": text_data(16, seed=5)} if task == "bert" else {}
    run = make_trainer(folder, make(), data(), collator=collator, **evaluated, **{"num_train_epochs": 2, **settings})
    run.train()
    run.end_of_rng = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    return run


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


# ---- both passes ----------------------------------------------------------------------------------------------------


class Drawing(nn.Module):
    """Draws from every global generator, and keeps what it drew."""

    def __init__(self):
        super().__init__()
        self.net, self.drawn = Net(), []

    def forward(self, input_ids, attention_mask=None, labels=None):
        out = self.net(input_ids, attention_mask, labels)
        if self.training:
            noise = torch.rand(2), random.random(), float(np.random.rand())
            self.drawn.append((noise[0].tolist(), *noise[1:]))
            out["logits"] = out["logits"] + sum(noise[0]) + noise[1] * noise[2]
        return out


@pytest.mark.parametrize("settings", [{}, THREE, {**TWO, **BY_MICRO_BATCH}, {**TWO, "sam_interval": 2}])
@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_random_numbers_are_those_of_the_first_pass(runs, settings, kind):
    """Both passes over a micro-batch draw alike, and the next ones go on as in a run without SAM."""
    drawn = []
    for sam in ({"sam": "none"}, kind):
        trainer = make_trainer(runs, Drawing(), text_data(48), num_train_epochs=2, **settings, **sam)
        trainer.train()
        drawn.append(trainer.model.drawn)
    k, interval = settings.get("gradient_accumulation_steps", 1), settings.get("sam_interval", 1)
    plain, expected = drawn[0], []
    for number in range(0, len(plain), k):
        window = plain[number : number + k]
        if (number // k) % interval:
            expected += window
        elif "sam_scope" in settings:
            expected += [each for each in window for _ in "ab"]
        else:
            expected += window * 2
    assert drawn[1] == expected
    assert len({each[1] for each in plain}) == len(plain)


class Resolving:
    """Under the mixin: keeps the target and the weights that each loss reads, and the rows that wait to be written."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        seen = self.__dict__.setdefault("resolved", {}).setdefault(self.state.global_step, ([], []))
        batch, pending = self._batch, len(self._correction.pending)
        seen[self._replaying is not None].append((batch.target.clone(), batch.weights, batch.rows, pending))
        return loss


METHODS = {
    "sat": CORRECTING,
    "elr": {"label_correction": "elr"},
    "bootstrap": {"label_correction": "bootstrap"},
    "gce": {"label_correction": "gce"},
    "symmetric": {**CORRECTING, "sat_loss": "sce"},
    "top two": {**CORRECTING, "sat_top_k": 2},
}


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("name", METHODS)
def test_targets_are_resolved_once(runs, name, scope):
    """Each method's, by the first pass; the second, far away, reads them and leaves nothing to be written."""
    settings = {**METHODS[name], **TWO, "sam": "sam", "sam_rho": 3.0, "sam_scope": scope}
    trainer = make_trainer(runs, Net(), text_data(44), beneath(Resolving), num_train_epochs=2, **settings)
    trainer.train()
    for first, second in trainer.resolved.values():
        assert len(first) == len(second) == 2
        for one, other in zip(first, second):
            assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3]) if a is not None)
        assert [pending for *_, pending in first] == [1, 2] and second[-1][-1] == 2
    assert (trainer.label_report().to_pandas()["n_visits"] == 2).all()


class Recomputing(nn.Module):
    """Beside its logits, those of a fresh copy of the model under an autocast that keeps no casts."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = bert(dropout=0.0), []

    def forward(self, input_ids, attention_mask=None, labels=None):
        out = self.net(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            fresh = copy.deepcopy(self.net)(input_ids=input_ids, attention_mask=attention_mask)
        self.seen.append((out["logits"].detach(), fresh["logits"]))
        return out


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_under_autocast_the_second_pass_sees_the_perturbed_weights(runs, settings):
    trainer = make_trainer(runs, Recomputing(), text_data(32), bf16=True, num_train_epochs=1, **CORRECTING, **settings)
    trainer.train()
    seen = trainer.model.seen
    assert len(seen) == 8 and all(torch.equal(*pair) for pair in seen)
    assert all(pair[0].dtype == torch.bfloat16 for pair in seen)
    k = settings.get("gradient_accumulation_steps", 1) if "sam_scope" not in settings else 1
    firsts = [i for i in range(8) if i // k % 2 == 0]
    assert not any(torch.equal(seen[i][0], seen[i + k][0]) for i in firsts)


@pytest.mark.parametrize("settings", [{}, TWO, {**TWO, **BY_MICRO_BATCH}])
def test_batch_norm_statistics_move_once(runs, settings):
    """At a learning rate of 0 they are those of a run without SAM, however far the second pass is perturbed."""
    buffers = []
    for sam in ({"sam": "none"}, {"sam": "sam", "sam_rho": 5.0}):
        run = task_run(runs, "conv", {**CORRECTING, **settings, **sam, "learning_rate": 0.0})
        buffers.append(dict(run.model.named_buffers()))
    assert_same_tensors(*buffers)
    assert buffers[0]["features.1.num_batches_tracked"] == 12
    assert max(log["sam/sharpness"] for log in losses_of(run.state.log_history)) > 0.1


SAME = {
    "activation checkpointing": {"gradient_checkpointing": True},
    "reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "compiled, eager": {"torch_compile": True, "torch_compile_backend": "eager"},
    "compiled, aot_eager": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "compiled, eager" else ()) for name in SAME]
)
def test_a_run_ends_as_one_without(tmp_path, name):
    compiled, ends = "torch_compile" in SAME[name], []
    # Dropout where the random numbers are promised to be the same.
    dropout = 0.0 if compiled else 0.1
    common = {**CORRECTING, **SAM, **TWO, "optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 2}
    for settings in ({}, SAME[name]):
        folder, collator = str(tmp_path / str(len(ends))), pad_to_ten if compiled else pad
        trainer = make_trainer(folder, bert(dropout), text_data(32), collator=collator, **common, **settings)
        trainer.train()
        sharpness = [log["sam/sharpness"] for log in losses_of(trainer.state.log_history)]
        assert min(sharpness) > 1e-3
        ends.append((weights(trainer), targets(trainer), torch.tensor(sharpness)))
    for plain, other in zip(*ends):
        torch.testing.assert_close(other, plain, atol=1e-5 if compiled else 0.0, rtol=0.0)


@pytest.mark.parametrize("kind", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_adapters_only_what_trains_is_perturbed(runs, kind):
    trainer = make_trainer(runs, lora(), text_data(32), Watched, num_train_epochs=1, **CORRECTING, **kind)
    before = weights(trainer)
    trains = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert 0 < len(trains) < len(before)
    trainer.train()
    after = weights(trainer)
    frozen = [name for name in before if name not in trains]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    for first, second in trainer.seen.values():
        moved = {name: second[0][name] - first[0][name] for name in first[0]}
        assert {name for name, e in moved.items() if e.any()} <= trains
        if kind["sam"] == "sam":
            assert length(moved) == pytest.approx(0.5, rel=1e-4)


def test_sparse_gradients_are_dense_ones(tmp_path):
    """Also those of earlier micro-batches that are put aside and back."""

    class Sparse(Net):
        def __init__(self, sparse):
            super().__init__()
            self.embedding.sparse = sparse

    for number, settings in enumerate(({**SAM}, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH})):
        ends = []
        for sparse in (False, True):
            trainer = make_trainer(
                str(tmp_path / f"{number}{sparse}"),
                Sparse(sparse),
                text_data(32),
                **{**DEFAULTS, **settings},
            )
            if sparse:  # upstream measures, and clips, no sparse gradient
                trainer._get_grad_norm = trainer._clip_grad_norm = lambda *args, **kwargs: torch.zeros(())
            else:
                trainer._clip_grad_norm = lambda *args, **kwargs: torch.zeros(())
            trainer.train()
            ends.append(weights(trainer))
        torch.testing.assert_close(ends[1], ends[0], atol=1e-5, rtol=0.0)


# ---- what goes wrong on the way -------------------------------------------------------------------------------------


def scaled(trainer, scale):
    """Loss scaling by a real scaler, without half precision."""
    accelerator = trainer.accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10_000)
    accelerator.unscale_gradients = lambda optimizer=None: accelerator.scaler.unscale_(trainer.optimizer.optimizer)
    return trainer


@pytest.mark.parametrize("kind", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_loss_scale_changes_nothing(tmp_path, kind):
    runs = [make_trainer(str(tmp_path / str(i)), Net(), **CORRECTING, **kind) for i in range(2)]
    scaled(runs[1], 2.0**12).train()
    runs[0].train()
    for one, other in ((weights(runs[0]), weights(runs[1])), (targets(runs[0]), targets(runs[1]))):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-6)
    for one, other in zip(*(losses_of(history(run)) for run in runs), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)


class Overflowing(nn.Module):
    """Its logits are infinite in some passes."""

    def __init__(self, passes):
        super().__init__()
        self.net, self.passes, self.made = Net(), passes, 0

    def forward(self, input_ids, attention_mask=None, labels=None):
        out = self.net(input_ids, attention_mask, labels)
        if self.training:
            self.made += 1
            if self.made - 1 in self.passes:
                out["logits"] = out["logits"] * torch.tensor(float("inf"))
        return out


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("sam, overflow", [("none", 5), ("sam", 7)])
def test_a_skipped_step_commits_nothing(tmp_path, optim, sam, overflow):
    """A fused optimizer skips on the device, where accelerate does not see it."""
    trainer = make_trainer(
        str(tmp_path),
        Overflowing([overflow]),
        text_data(64),
        num_train_epochs=1,
        gradient_accumulation_steps=2,
        sat_start_epoch=0,
        sat_momentum=0.5,
        optim=optim,
        sam=sam,
    )
    scaled(trainer, 16.0).train()
    # Four steps of two micro-batches of eight; one of them overflows, under SAM in its second pass.
    assert trainer.label_report().columns["n_visits"].sum() == 48


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("where", ["first", "second"])
@pytest.mark.parametrize("sam", ["sam", "asam"])
def test_a_step_that_overflows_is_skipped_and_leaves_no_trace(runs, sam, where, scope):
    """Step 1, passes 4 to 7, overflows in its second micro-batch, at the weights or only where they are perturbed."""
    first = 5 if scope == "step" else 6
    model = Overflowing([7] if where == "second" else [first, 7])
    settings = {**CORRECTING, "sat_start_epoch": 0, **TWO, "sam": sam, "sam_scope": scope, "logging_steps": 1}
    settings["optim"] = "adamw_torch"  # upstream does not see that a fused optimizer was made to skip a step
    trainer = scaled(make_trainer(runs, model, text_data(64), Watched, num_train_epochs=1, **settings), 2.0**4)
    trainer.train()
    starts = [trainer.seen[step][0][0] for step in range(4)]
    assert_same_tensors(starts[1], starts[2])
    assert not torch.equal(starts[2]["net.head.weight"], starts[3]["net.head.weight"])
    assert trainer.accelerator.scaler.get_scale() == 2.0**3
    assert trainer.label_report().to_pandas()["n_visits"].sum() == 64 - 16
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    logs = losses_of(trainer.state.log_history)
    assert all(np.isfinite(log[key]) for log in logs for key in log if key.startswith("sam/"))
    # Of a step with a perturbation for each micro-batch, one was well.
    logged = [{"sam/sharpness", "sam/grad_norm"} <= log.keys() for log in logs]
    assert logged == [True, scope == "micro_batch", True, True]
    if where == "first":  # nothing was perturbed by a norm that is not finite
        first, second = trainer.seen[1]
        assert_same_tensors(first[-1], second[-1])


class Full:
    """Beneath the mixin: runs out of memory once, in a second pass, its backward pass done."""

    at, failed = 0, False

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not self.failed and self._replaying is not None and self.state.global_step == self.at:
            self.failed = True
            self.perturbed = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            raise RuntimeError("CUDA out of memory.")
        return loss


class Starts:
    """Keeps the weights whenever the loop begins."""

    def _inner_training_loop(self, *args, **kwargs):
        starts = self.__dict__.setdefault("starts", [])
        starts.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return super()._inner_training_loop(*args, **kwargs)


@pytest.mark.parametrize("at, settings", [(0, {**ASAM, **TWO}), (0, {**SAM, **TWO, **BY_MICRO_BATCH}), (3, SAM)])
def test_running_out_of_memory_in_the_second_pass_leaves_the_weights(tmp_path, at, settings):
    cls = type("Restarting", (SATMixin, Starts, Watching, Full, Trainer), {"at": at})
    common = {**CORRECTING, **settings, "train_sampling_strategy": "sequential"}
    trainer = make_trainer(str(tmp_path / "full"), Net(), trainer=cls, auto_find_batch_size=True, **common)
    trainer.train()
    assert trainer.failed and len(trainer.starts) == 2
    # After the failure at step 0 nothing but the batch is smaller.
    begun = [dict(zip(trainer.starts[0], start.values())) for start in trainer.starts]
    if at == 0:
        assert_same_tensors(*begun)
        alone = make_trainer(str(tmp_path / "alone"), Net(), per_device_train_batch_size=7, **common)
        alone.train()
        assert_same_tensors(weights(trainer), weights(alone))
        assert_same_tensors(targets(trainer), targets(alone))
    else:
        whole = make_trainer(str(tmp_path / "whole"), Net(), trainer=Watched, **common)
        whole.train()
        assert_same_tensors(begun[1], whole.seen[at][0][0])
    assert any(not torch.equal(trainer.perturbed[name], value) for name, value in begun[1].items())


def test_an_interrupted_second_pass_leaves_the_weights_and_a_trainer_that_works(runs):
    class Interrupted(Full):
        def training_step(self, *args, **kwargs):
            try:
                return super().training_step(*args, **kwargs)
            except RuntimeError:
                raise KeyboardInterrupt from None

    trainer = make_trainer(runs, Net(), trainer=beneath(Interrupted), **CORRECTING, **SAM)
    before = weights(trainer)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    trainer.args.sam = "none"
    trainer.train()
    alone = make_trainer(runs, Net(), **CORRECTING)
    alone.train()
    assert trainer.state.global_step == alone.state.global_step
    assert not any(key.startswith("sam/") for log in trainer.state.log_history for key in log)


@pytest.mark.parametrize("where", ["first", "second"])
def test_a_step_that_a_users_class_gives_up_leaves_nothing_to_the_next(runs, where):
    """One that passes over a batch which does not fit in memory: neither its window comes back, nor its targets."""

    class Failing:
        failed = False

        def training_step(self, *args, **kwargs):
            passes = self.__dict__.get("seen", {}).get(1, ([], []))
            # In both cases one pass of two has gone well.
            if not self.failed and len(passes[where == "second"]) == 1 and self.state.global_step == 1:
                self.failed = True
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(*args, **kwargs)

    class Forgiving(type("Beneath", (SATMixin, Failing, Watching, Trainer), {})):
        def training_step(self, *args, **kwargs):
            try:
                return super().training_step(*args, **kwargs)
            except RuntimeError:
                return torch.tensor(0.0)

    trainer = make_trainer(runs, Net(), trainer=Forgiving, **CORRECTING, **SAM, **TWO)
    trainer.train()
    counts = {step: tuple(map(len, passes)) for step, passes in trainer.seen.items()}
    assert counts.pop(1) == ((1, 0) if where == "first" else (2, 1))
    assert counts == {step: (2, 2) for step in range(9) if step != 1}
    visits = trainer.label_report().to_pandas()["n_visits"]
    assert visits.sum() == (136 if where == "first" else 144) and visits.max() == 3


# ---- users' own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [own_loss, own_step])
@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_a_users_trainer_beneath(runs, own, kind):
    cls = type("Ours", (SATMixin, own(Trainer)), {})
    run, hand = replayed(runs, kind, trainer=cls, penalty=0.01 if own is own_loss else 0.0)
    assert_as_by_hand(run, hand)


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_users_loss_and_step_above(runs, settings):
    """The step above sees a step once, with the clean loss, and leaves the SAM gradient."""

    class Counting(own_loss(SATTrainer)):
        calls = 0

        def training_step(self, *args, **kwargs):
            self.calls += 1
            return super().training_step(*args, **kwargs)

    run, hand = replayed(runs, settings, trainer=Counting, penalty=0.01)
    assert_as_by_hand(run, hand)
    assert run.calls == 12


@pytest.mark.parametrize("settings", [CORRECTING, NONE])
def test_a_step_above_that_leaves_ours_out_is_refused(runs, settings):
    """Rather than trained without SAM and without a word."""
    refused(make_trainer(runs, Net(), trainer=own_step(SATTrainer), **settings, **SAM), "training_step", "sam='sam'")
    make_trainer(runs, Net(), trainer=own_step(SATTrainer), **settings).train()


def focal(outputs, labels, num_items_in_batch=None):
    p = outputs["logits"].log_softmax(dim=1).gather(1, labels[:, None]).exp()
    return -((1 - p) ** 2 * p.log()).sum() / num_items_in_batch


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_users_loss_function(tmp_path, settings):
    """As the same loss inside the model: the function serves both passes."""

    class Focal(Net):
        def forward(self, input_ids, attention_mask=None, labels=None, num_items_in_batch=None):
            out = super().forward(input_ids, attention_mask, labels)
            return {**out, "loss": focal(out, labels, num_items_in_batch)}

        accepts_loss_kwargs = True

    ends, settings = [], {**DEFAULTS, **NONE, **settings}
    for model, function in ((Net(), focal), (Focal(), None)):
        args = arguments(str(tmp_path / str(len(ends))), **settings, **IN_ORDER)
        trainer = SATTrainer(
            model.double(), args, train_dataset=text_data(44), data_collator=pad, compute_loss_func=function
        )
        # So that upstream takes the labels out of the batch itself, not out of a copy on the device.
        trainer._prepare_inputs = lambda inputs: inputs
        trainer.train()
        ends.append((weights(trainer), losses_of(history(trainer))))
    torch.testing.assert_close(ends[0][0], ends[1][0], atol=1e-9, rtol=0.0)
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert one == pytest.approx(other) and one["sam/sharpness"] != 0


@pytest.mark.parametrize("kind", [SAM, {**ASAM, **TWO, **BY_MICRO_BATCH}])
def test_optimizers_passed_in(tmp_path, kind):
    """A step of the optimizer is a step: its state, and the scheduler's, count no second pass."""
    model = Net().double()
    args = arguments(str(tmp_path), **{**DEFAULTS, **kind, "num_train_epochs": 1}, **IN_ORDER)
    given = optimizers(model)
    SATTrainer(model, args, train_dataset=text_data(48), data_collator=pad, optimizers=given).train()
    steps = 6 // kind.get("gradient_accumulation_steps", 1)
    assert given[1].last_epoch == steps
    assert {key for state in given[0].state.values() for key in state} == {"momentum_buffer"}


def test_plain_arguments_have_no_sam(runs):
    trainer = Watched(Net(), arguments(runs, TrainingArguments), train_dataset=text_data(16), data_collator=pad)
    trainer.train()
    assert all(not second for _, second in trainer.seen.values())
    assert not any(key.startswith("sam/") for log in trainer.state.log_history for key in log)


@pytest.mark.parametrize("correction", [NONE, {"label_correction": "sat", **CORRECTING}], ids=["none", "sat"])
def test_the_seq2seq_form(tmp_path, correction):
    ends = {}
    for rho in (None, 0.0, 0.5):
        sam = {} if rho is None else {"sam": "sam", "sam_rho": rho}
        common = {**correction, **TWO, **sam, "logging_steps": 1}
        run, metrics = run_pairs(str(tmp_path / str(rho)), t5, SATSeq2SeqTrainer, SATSeq2SeqConfig, **common)
        ends[rho] = weights(run), targets(run), metrics
    for one, other in zip(ends[None][:2], ends[0.0][:2]):
        assert_same_tensors(one, other)
    assert ends[None][2] == ends[0.0][2]
    assert not torch.equal(ends[0.5][0]["shared.weight"], ends[0.0][0]["shared.weight"])
    assert min(log["sam/sharpness"] for log in losses_of(run.state.log_history)) > 0


def test_evaluation_is_at_the_weights_and_moves_nothing(tmp_path):
    ends, data = [], text_data(16, seed=5)
    for name, settings in (("with", {"eval_strategy": "steps", "eval_steps": 1}), ("without", {})):
        folder = str(tmp_path / name)
        trainer = make_trainer(
            folder, bert(0.0), eval_dataset=data, save_strategy="steps", save_steps=1, compute_metrics=accuracy,
            **CORRECTING, **SAM, **TWO, **settings,
        )  # fmt: skip
        trainer.train()
        ends.append((weights(trainer), targets(trainer)))
        if name == "with":
            evaluated = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    assert_same_tensors(ends[0][0], ends[1][0])
    assert_same_tensors(ends[0][1], ends[1][1])
    for step in (1, 5):
        model = type(trainer.model).from_pretrained(f"{folder}/checkpoint-{step}")
        plain = Trainer(model, arguments(folder, TrainingArguments), data_collator=pad, eval_dataset=data)
        assert plain.evaluate()["eval_loss"] == pytest.approx(evaluated[step], rel=1e-6)


# ---- checkpoints ----------------------------------------------------------------------------------------------------

EACH_STEP = {"save_strategy": "steps", "save_steps": 1}
RESUMES = {
    "sam": {**CORRECTING, **SAM, **TWO},
    "asam, micro-batch": {**CORRECTING, **ASAM, **THREE, **BY_MICRO_BATCH},
    "automatic": {**SAM},
    "late, every other": {**CORRECTING, **SAM, "sam_start": 0.3, "sam_interval": 2},
    "no correction": {**NONE, **ASAM, **TWO},
    "bfloat16": {**CORRECTING, **SAM, **TWO, "bf16": True},
    "adafactor": {**CORRECTING, **SAM, "optim": "adafactor"},
}


@pytest.mark.parametrize("name", RESUMES)
def test_resume_at_any_step(tmp_path, name):
    """With dropout: weights, soft targets and logs to the bit."""
    settings = {**RESUMES[name], **EACH_STEP, "logging_steps": 1, "num_train_epochs": 2}
    whole = make_trainer(str(tmp_path), bert(), text_data(44), **settings)
    whole.train()
    assert whole.state.global_step >= 4
    for stop in random.Random(name).sample(range(1, whole.state.global_step), 2):
        resumed = make_trainer(str(tmp_path), bert(seed=1), text_data(44), **{**settings, "save_strategy": "no"})
        resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-{stop}")
        assert_same_tensors(weights(whole), weights(resumed))
        assert_same_tensors(targets(whole), targets(resumed))
        assert losses_of(resumed.state.log_history) == losses_of(whole.state.log_history)


def optimizer_of(checkpoint):
    return torch.load(os.path.join(checkpoint, "optimizer.pt"), weights_only=True)


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd"])
def test_a_checkpoint_is_that_of_the_plain_trainer(tmp_path, optim):
    """Same files, same keys in the optimizer, and at rho 0 the same bytes."""
    common = {"optim": optim, "save_strategy": "epoch", "num_train_epochs": 1, **TWO}
    plain = make_trainer(str(tmp_path / "plain"), trainer=Trainer, **common)
    plain.train()
    for rho in (0.0, 0.5):
        ours = make_trainer(str(tmp_path / str(rho)), **NONE, sam="sam", sam_rho=rho, **common)
        ours.train()
        one, other = (files(os.path.join(run.args.output_dir, "checkpoint-3")) for run in (plain, ours))
        assert one.keys() == other.keys()
        states = [optimizer_of(os.path.join(run.args.output_dir, "checkpoint-3")) for run in (plain, ours)]
        shapes = [
            {i: {key: getattr(value, "shape", 0) for key, value in s.items()} for i, s in state["state"].items()}
            for state in states
        ]
        assert shapes[0] == shapes[1] and states[0]["param_groups"] == states[1]["param_groups"]
        if rho == 0:
            assert [name for name in one if one[name] != other[name]] == ["trainer_state.json"]


def test_checkpoints_go_from_and_to_the_plain_trainer(tmp_path):
    """SAM switched on at resume is a run with a late start; switched off, it is the plain Trainer's."""
    common = {**EACH_STEP, "num_train_epochs": 2, **TWO}
    plain = make_trainer(str(tmp_path / "plain"), trainer=Trainer, **common)
    plain.train()
    for stop in (2, 3):
        checkpoint = f"{tmp_path}/plain/checkpoint-{stop}"
        switched = make_trainer(str(tmp_path / "on"), bert(seed=1), **NONE, **SAM, **common)
        switched.train(resume_from_checkpoint=checkpoint)
        late = make_trainer(str(tmp_path / "late"), **NONE, **SAM, **common, sam_start=stop / 6)
        late.train()
        assert_same_tensors(weights(switched), weights(late))
        ends = []
        for cls, settings in ((Trainer, {}), (SATTrainer, {**NONE, "sam": "sam", "sam_rho": 0.0})):
            back = make_trainer(str(tmp_path / "back"), bert(seed=1), trainer=cls, **settings, **common)
            back.train(resume_from_checkpoint=f"{tmp_path}/on/checkpoint-{stop + 1}")
            ends.append(weights(back))
        assert_same_tensors(*ends)
        assert not torch.equal(ends[0]["classifier.weight"], weights(plain)["classifier.weight"])


@pytest.mark.parametrize(
    "hook, kind",
    [
        ("on_step_begin", SAM),
        ("on_substep_end", SAM),
        ("on_substep_end", {**ASAM, **BY_MICRO_BATCH}),
        ("on_pre_optimizer_step", ASAM),
        ("on_step_end", {**SAM, **BY_MICRO_BATCH}),
    ],
)
def test_just_in_time_checkpoints(tmp_path, hook, kind):
    """Also in the middle of a step, and with dropout: what is saved is the unperturbed state as the step began."""

    def run(resume=None, callbacks=()):
        settings = {**CORRECTING, **TWO, **kind, "num_train_epochs": 2, "enable_jit_checkpoint": bool(callbacks)}
        trainer = make_trainer(str(tmp_path), bert(), text_data(44), callbacks=list(callbacks), **settings)
        for callback in callbacks:
            callback.trainer = trainer
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run()
    run(callbacks=[JustInTime(hook, 4)])
    resumed = run(resume=f"{tmp_path}/checkpoint-4")
    assert_same_tensors(weights(whole), weights(resumed))
    assert_same_tensors(targets(whole), targets(resumed))


def test_a_second_train_starts_anew(runs):
    """Stopped within a window, then trained again with other settings."""

    class Stop(Steps):
        def on_substep_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2 and args.sam_rho == 0.5

    trainer = make_trainer(runs, model_init=lambda: bert(), callbacks=[Stop()], **CORRECTING, **SAM, **TWO)
    trainer.train()
    assert trainer.state.global_step == 2
    trainer.args.sam_rho = 0.1
    trainer.train()
    alone = make_trainer(f"{runs}-alone", model_init=lambda: bert(), **CORRECTING, **{**SAM, "sam_rho": 0.1}, **TWO)
    alone.train()
    assert_same_tensors(weights(trainer), weights(alone))
    assert_same_tensors(targets(trainer), targets(alone))
    assert losses_of(trainer.state.log_history) == losses_of(alone.state.log_history)


# ---- refusals -------------------------------------------------------------------------------------------------------

WRONG = [("sam", value) for value in ("SAM", "adam", None, True, "")]
WRONG += [("sam_rho", value) for value in (-1e-9, -1, float("nan"), float("inf"), "big", True)]
WRONG += [("sam_interval", value) for value in (0, -1, 1.5, 1.0, None, True, "2")]
WRONG += [("sam_start", value) for value in (-0.01, 1.01, float("nan"), None, True, "late")]
WRONG += [("sam_scope", value) for value in ("window", None, "micro-batch")]
WRONG += [("sam_sync", value) for value in ("none", None, "Global")]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later, also where SAM is off."""
    with pytest.raises(ValueError, match=f"^{setting}={re.escape(repr(value))}: "):
        SATConfig(output_dir=runs, **{setting: value})
    for sam in ("sam", "none"):
        trainer = make_trainer(runs, Net(), data=text_data(16), **NONE, sam=sam)
        setattr(trainer.args, setting, value)
        refused(trainer, f"^{setting}={re.escape(repr(value))}: ")


def fsdp(version):
    def set_flags(trainer):
        trainer.is_fsdp_enabled = True
        trainer.accelerator.state.fsdp_plugin = SimpleNamespace(fsdp_version=version)

    return set_flags


WAYS = {
    "DeepSpeed": ({}, lambda t: setattr(t, "is_deepspeed_enabled", True), ["sam='sam'", "deepspeed"]),
    "FSDP": ({}, lambda t: setattr(t, "is_fsdp_enabled", True), ["sam='sam'", "FSDP", "version 2"]),
    "FSDP 1": ({}, fsdp(1), ["sam='sam'", "FSDP", "version 2"]),
    "local under FSDP 2": ({"sam_sync": "local"}, fsdp(2), ["sam_sync='local'", "FSDP", "sam_sync='global'"]),
    "XLA": ({}, lambda t: setattr(t, "is_fsdp_xla_enabled", True), ["sam='sam'", "xla"]),
    **{
        optim: ({"sam": "asam"}, lambda t, optim=optim: setattr(t.args, "optim", optim), [optim, 'sam="none"'])
        for optim in ("lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise")
    },
}


@pytest.mark.parametrize("correction", ["sat", "none"])
@pytest.mark.parametrize("name", WAYS)
def test_ways_to_run(runs, monkeypatch, name, correction):
    settings, set_flags, parts = WAYS[name]
    trainer = make_trainer(runs, Net(), **{"sam": "sam", **settings}, label_correction=correction)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", None, raising=False)
    set_flags(trainer)
    refused(trainer, *parts)


LOW = {
    "weights": ({"sam_rho": 0.1}, torch.bfloat16, True),
    "default": ({}, torch.bfloat16, True),
    "half": ({}, torch.float16, True),
    "large": ({"sam_rho": 2.0}, torch.bfloat16, False),
    "adaptive": ({"sam": "asam"}, torch.bfloat16, False),
    "autocast": ({"bf16": True}, torch.float32, False),
    "none": ({"sam": "none"}, torch.bfloat16, False),
}


@pytest.mark.parametrize("name", LOW)
def test_coarse_weights_are_warned_of(runs, monkeypatch, name):
    settings, dtype, warns = LOW[name]
    told = []
    monkeypatch.setattr(recipe.logger, "warning", told.append)
    settings = {"sam": "sam", **settings, "learning_rate": 0.0, "max_steps": 1}
    make_trainer(runs, bert(0.0).to(dtype), **NONE, **settings).train()
    assert bool(told) == warns
    assert all("sam_rho=0.1" in message and str(dtype) in message for message in told)
