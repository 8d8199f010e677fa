"""Settings and classes that the tests of SAM in the Trainer share."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drop_in_runs import lora
from hand_loop import DEFAULTS, IN_ORDER, Net, by_hand
from small import CLASSES, bert, make_trainer, pad, text_data, weights
from torch import nn
from transformers import Trainer

from hf_sat import SATMixin, SATTrainer

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


def task_run(folder, task, settings):
    make, data, collator = TASKS[task]
    evaluated = {"eval_dataset": text_data(16, seed=5)} if task == "bert" else {}
    run = make_trainer(folder, make(), data(), collator=collator, **evaluated, **{"num_train_epochs": 2, **settings})
    run.train()
    run.end_of_rng = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    return run


def scaled(trainer, scale):
    """Loss scaling by a real scaler, without half precision."""
    accelerator = trainer.accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10_000)
    accelerator.unscale_gradients = lambda optimizer=None: accelerator.scaler.unscale_(trainer.optimizer.optimizer)
    return trainer


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
