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
    s = SimpleNamespace(**{**DEFAULTS, **settings})
    net = copy.deepcopy(net).double()
    named = dict(net.named_parameters())
    optimizer = OPTIMIZERS[s.optim](named.values(), lr=s.learning_rate)
    size, rows = s.per_device_train_batch_size, list(data)
    places = [list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)]
    batches = [(torch.tensor(place), pad([rows[i] for i in place])) for place in places]
    labels = torch.tensor([row["labels"] for row in rows])
    targets = F.one_hot(labels, CLASSES).double()
    width = s.gradient_accumulation_steps * ranks
    windows = [batches[i : i + width] for i in range(0, len(batches), width)]
    total, corrects = s.num_train_epochs * len(windows), s.label_correction == "sat"
    logs = []

    def logits(weights, batch):
        return functional_call(net, weights, (batch["input_ids"], batch["attention_mask"]))["logits"]

    def resolved(window, on):
        """The soft target of every micro-batch, from predictions at the weights as they are."""
        out = {}
        for number, (place, batch) in enumerate(window):
            p = logits(named, batch).detach().softmax(dim=1)
            out[number] = s.sat_momentum * targets[place] + (1 - s.sat_momentum) * p if on else None
        return out

    def loss_of(group, weights, window, resolved):
        """The group's share of the window's mean loss."""
        items, loss = sum(len(place) for place, _ in window), 0.0
        for number in group:
            place, batch = window[number]
            z, t = logits(weights, batch), resolved[number]
            if t is None:
                each = F.cross_entropy(z, labels[place], reduction="none", label_smoothing=s.label_smoothing_factor)
            else:
                w = t.max(dim=1).values if s.sat_reweight else torch.ones(len(t)).double()
                each = -(t * z.log_softmax(dim=1)).sum(dim=1) * w / w.mean()
            # Upstream takes the mean of each micro-batch, where it knows no better.
            loss = loss + (each.sum() / items if corrects else each.mean() / len(window))
            loss = loss + penalty * sum(w.square().sum() for w in weights.values())
        return loss

    def gradient_of(*args, at):
        at = {name: w.detach().requires_grad_() for name, w in at.items()}
        loss = loss_of(args[0], at, *args[1:])
        found = torch.autograd.grad(loss, list(at.values()), allow_unused=True, materialize_grads=True)
        return loss.item(), dict(zip(at, found))

    for step in range(total):
        number = step % len(windows)
        window = windows[number]
        epoch = step // len(windows) + number * width / len(batches)
        targets_now = resolved(window, corrects and epoch >= s.sat_start_epoch)
        perturbs = s.sam != "none" and step % s.sam_interval == 0 and step / total >= s.sam_start
        log = {"loss": 0.0, **({"sam/sharpness": 0.0, "sam/grad_norm": 0.0} if perturbs else {})}
        taken = {name: torch.zeros_like(w) for name, w in named.items()}
        for group in groups_of(list(range(len(window))), ranks, s.sam_scope, s.sam_sync):
            loss, gradient = gradient_of(group, window, targets_now, at=named)
            log["loss"] += loss
            if perturbs:
                log["sam/grad_norm"] += length(gradient)
                there = ascended(named, gradient, s.sam, s.sam_rho)
                perturbed_loss, gradient = gradient_of(group, window, targets_now, at=there)
                log["sam/sharpness"] += perturbed_loss - loss
            taken = {name: taken[name] + g for name, g in gradient.items()}
        log["grad_norm"] = length(taken)
        clip = min(1.0, s.max_grad_norm / (log["grad_norm"] + 1e-6)) if s.max_grad_norm > 0 else 1.0
        for name, parameter in named.items():
            parameter.grad = taken[name] * clip
        optimizer.step()
        for i, (place, _) in enumerate(window):
            if targets_now[i] is not None:
                targets[place] = targets_now[i]
        logs.append(log)
    return Trained({name: w.detach() for name, w in named.items()}, targets, logs)
