"""Training with SAM and label correction written out by hand from the papers, in float64 and with nothing of hf_sat.

For small models over data in order. All modes are one sum: the window of an optimizer step falls into groups of
micro-batches, and each group gives the gradient of its loss at its own perturbed weights.
"""

import copy
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from small import CLASSES, pad
from torch import Tensor, nn
from torch.func import functional_call

DEFAULTS = {
    "sam": "sam",
    "sam_rho": 0.5,
    "sam_scope": "step",
    "sam_sync": "global",
    "sam_interval": 1,
    "sam_start": 0.0,
    "label_correction": "sat",
    "sat_momentum": 0.6,
    "sat_start_epoch": 0.5,
    "sat_reweight": True,
    "optim": "sgd",
    "learning_rate": 0.3,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "label_smoothing_factor": 0.0,
}
# What makes a run of the Trainer comparable with the loop.
IN_ORDER = {"lr_scheduler_type": "constant", "train_sampling_strategy": "sequential", "logging_steps": 1}
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adamw_torch": lambda parameters, lr: torch.optim.AdamW(parameters, lr, weight_decay=0.0),
}


class Net(nn.Module):
    """Small, with weights, biases and a parameter that is neither by name; nothing random."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.EmbeddingBag(40, 8, padding_idx=0)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.temperature = nn.Parameter(torch.full((1,), 0.7))
        self.head = nn.Linear(8, CLASSES)

    def features(self, input_ids: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.hidden(self.embedding(input_ids))))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.features(input_ids)) / self.temperature
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if labels is not None else {"logits": logits}


@dataclass
class Trained:
    """Where the loop ends, and a number for each optimizer step."""

    weights: dict[str, Tensor]
    targets: Tensor
    logs: list[dict[str, float]] = field(default_factory=list)


def ascended(weights: dict[str, Tensor], gradient: dict[str, Tensor], sam: str, rho: float) -> dict[str, Tensor]:
    """`w + rho T^2 g / |T g|`, where T is 1 for SAM."""
    adaptive = {name: sam == "asam" and not name.endswith("bias") for name in weights}
    t = {name: w.abs() + 0.01 if adaptive[name] else torch.ones_like(w) for name, w in weights.items()}
    norm = length({name: t[name] * g for name, g in gradient.items()})
    return {name: w + rho * t[name] ** 2 * gradient[name] / norm for name, w in weights.items()}


def length(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().square().sum()) for tensor in tensors.values()))


def groups_of(window: list[Any], ranks: int, scope: str, sync: str) -> list[list[Any]]:
    """Micro-batches that share a perturbation; those of a window come rank by rank, again and again."""
    by_rank = [window[rank::ranks] for rank in range(ranks)] if sync == "local" else [window]
    size = {"step": len(window), "micro_batch": ranks if sync == "global" else 1}[scope]
    return [part[i : i + size] for part in by_rank for i in range(0, len(part), size)]


def by_hand(net: nn.Module, data: Any, ranks: int = 1, penalty: float = 0.0, **settings) -> Trained:
    """What `SATTrainer` with these settings, of those in `DEFAULTS`, has to end with."""
    loop = Loop(net, list(data), ranks, penalty, SimpleNamespace(**{**DEFAULTS, **settings}))
    logs = [loop.step(step) for step in range(loop.total)]
    return Trained({name: w.detach() for name, w in loop.named.items()}, loop.targets, logs)


class Loop:
    """The state of the training, and a step of it."""

    def __init__(self, net: nn.Module, rows: list[dict], ranks: int, penalty: float, settings: SimpleNamespace):
        self.s, self.ranks, self.penalty = settings, ranks, penalty
        self.net = copy.deepcopy(net).double()
        self.named = dict(self.net.named_parameters())
        self.optimizer = OPTIMIZERS[settings.optim](self.named.values(), lr=settings.learning_rate)
        size, width = settings.per_device_train_batch_size, settings.gradient_accumulation_steps * ranks
        places = [list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)]
        batches = [(torch.tensor(place), pad([rows[i] for i in place])) for place in places]
        self.windows = [batches[i : i + width] for i in range(0, len(batches), width)]
        self.epochs_of_window = width / len(batches)
        self.labels = torch.tensor([row["labels"] for row in rows])
        self.targets = F.one_hot(self.labels, CLASSES).double()
        self.total, self.corrects = settings.num_train_epochs * len(self.windows), settings.label_correction == "sat"

    def step(self, step: int) -> dict[str, float]:
        number = step % len(self.windows)
        window, epoch = self.windows[number], step // len(self.windows) + number * self.epochs_of_window
        targets_now = self.resolved(window, self.corrects and epoch >= self.s.sat_start_epoch)
        taken, log = self.gradient_of_step(step, window, targets_now)
        log["grad_norm"] = length(taken)
        clip = min(1.0, self.s.max_grad_norm / (log["grad_norm"] + 1e-6)) if self.s.max_grad_norm > 0 else 1.0
        for name, parameter in self.named.items():
            parameter.grad = taken[name] * clip
        self.optimizer.step()
        for (place, _), target in zip(window, targets_now):
            if target is not None:
                self.targets[place] = target
        return log

    def gradient_of_step(self, step: int, window: list, targets_now: list) -> tuple[dict[str, Tensor], dict]:
        """The sum of the gradients of the groups, each at its own perturbed weights in a SAM step; and the log."""
        s = self.s
        perturbs = s.sam != "none" and step % s.sam_interval == 0 and step / self.total >= s.sam_start
        log = {"loss": 0.0, **({"sam/sharpness": 0.0, "sam/grad_norm": 0.0} if perturbs else {})}
        taken = {name: torch.zeros_like(w) for name, w in self.named.items()}
        for group in groups_of(list(range(len(window))), self.ranks, s.sam_scope, s.sam_sync):
            loss, gradient = self.gradient_of(group, window, targets_now, self.named)
            log["loss"] += loss
            if perturbs:
                log["sam/grad_norm"] += length(gradient)
                there = ascended(self.named, gradient, s.sam, s.sam_rho)
                perturbed_loss, gradient = self.gradient_of(group, window, targets_now, there)
                log["sam/sharpness"] += perturbed_loss - loss
            taken = {name: taken[name] + g for name, g in gradient.items()}
        return taken, log

    def resolved(self, window: list, on: bool) -> list[Tensor | None]:
        """The soft target of every micro-batch, from predictions at the weights as they are."""
        if not on:
            return [None] * len(window)
        keep = self.s.sat_momentum
        predicted = [self.logits(self.named, batch).detach().softmax(dim=1) for _, batch in window]
        return [keep * self.targets[place] + (1 - keep) * p for (place, _), p in zip(window, predicted)]

    def gradient_of(self, group: list[int], window: list, targets_now: list, at: dict[str, Tensor]):
        """The loss of a group at some weights, and its gradient."""
        at = {name: w.detach().requires_grad_() for name, w in at.items()}
        loss = self.loss_of(group, at, window, targets_now)
        found = torch.autograd.grad(loss, list(at.values()), allow_unused=True, materialize_grads=True)
        return loss.item(), dict(zip(at, found))

    def loss_of(self, group: list[int], weights: dict[str, Tensor], window: list, targets_now: list) -> Tensor:
        """The group's share of the window's mean loss."""
        items, loss, smoothing = sum(len(place) for place, _ in window), 0.0, self.s.label_smoothing_factor
        for number in group:
            place, batch = window[number]
            z, t = self.logits(weights, batch), targets_now[number]
            if t is None:
                each = F.cross_entropy(z, self.labels[place], reduction="none", label_smoothing=smoothing)
            else:
                w = t.max(dim=1).values if self.s.sat_reweight else torch.ones(len(t)).double()
                each = -(t * z.log_softmax(dim=1)).sum(dim=1) * w / w.mean()
            # Upstream takes the mean of each micro-batch, where it knows no better.
            loss = loss + (each.sum() / items if self.corrects else each.mean() / len(window))
            loss = loss + self.penalty * sum(w.square().sum() for w in weights.values())
        return loss

    def logits(self, weights: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return functional_call(self.net, weights, (batch["input_ids"], batch["attention_mask"]))["logits"]
