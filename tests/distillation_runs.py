"""Models, data and runs that the tests of distillation share, and a step of it by hand."""

import copy
import math
from functools import partial

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import (
    arguments,
    assert_same_tensors,
    bert,
    bert_tokens,
    distilbert,
    image_data,
    make_trainer,
    pad,
    text_data,
    text_rows,
    token_data,
    vit,
    weights,
)
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from hf_sat import SATConfig, SATSeq2SeqConfig, SATSeq2SeqTrainer, SATTrainer


def expected(p, values):
    """`sum p v` where a class without mass adds nothing."""
    return np.where(p > 0, p * np.where(p > 0, values, 0.0), 0.0).sum(axis=-1)


T5_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
BART_SIZES = {
    f"{side}_{name}": size
    for side in ("encoder", "decoder")
    for name, size in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
}


def t5(dropout=0.1, seed=0, vocab_size=40):
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, dropout_rate=dropout, **T5_SIZES))


def bart(dropout=0.1, seed=0, vocab_size=40):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "max_position_embeddings": 32, "dropout": dropout, **BART_SIZES}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab_size, **sizes))


def pair_data(n=24):
    """Sentences, and some of their words: targets of different lengths, padded with -100."""
    rows = text_rows(n)["input_ids"]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": [row[: 2 + i % 4] for i, row in enumerate(rows)]})


def images(items):
    """Images in double precision, as the student of these tests is."""
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]).double(),
        "labels": torch.stack([item["labels"] for item in items]),
    }


TASKS = {
    "bert": (bert, text_data, pad),
    "distilbert": (distilbert, text_data, pad),
    "vit": (vit, image_data, images),
    "tokens": (bert_tokens, token_data, pad),
    "t5": (t5, pair_data, pad),
    "bart": (bart, pair_data, pad),
}
PAIRS = ("t5", "bart")
STEP = {
    "optim": "sgd",
    "learning_rate": 0.3,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "train_sampling_strategy": "sequential",
    "num_train_epochs": 1,
    "logging_steps": 1,
    "label_correction": "none",
}


def sharpened(model):
    """With predictions that differ from row to row: fresh models say nearly the same of all, and nearly nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(
                    1.5 if isinstance(model, T5ForConditionalGeneration) else 25 if "classifier" in name else 10
                )
    return model


def teacher_for(task="bert", double=False):
    """Another model of the task, that has dropout, and is in training mode: it must not matter."""
    make, data, collate = TASKS[task]
    model = sharpened(make(seed=7)).eval()
    if task not in PAIRS:
        batch = {
            key: value.float() if value.is_floating_point() else value for key, value in collate(list(data())).items()
        }
        with torch.no_grad():
            model.classifier.bias -= model(**batch).logits.flatten(0, -2).mean(dim=0)
    return model.train().double() if double else model.train()


def taught(teacher, cls=SATTrainer, **settings):
    """`SATTrainer` with a teacher, for `make_trainer`."""
    return partial(cls, teacher_model=teacher, **settings)


def distil(folder, teacher, model=None, data=None, cls=SATTrainer, **settings):
    """A run with a teacher, trained."""
    trainer = make_trainer(folder, model, data, taught(teacher, cls), **{"kd_weight": 0.5, **settings})
    trainer.train()
    return trainer


def run_task(folder, task, k, model, teacher, data, **settings):
    """A run in float64 over eight examples a step, cut into `k` micro-batches."""
    cls, config = (SATSeq2SeqTrainer, SATSeq2SeqConfig) if task in PAIRS else (SATTrainer, SATConfig)
    settings = {**STEP, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k, **settings}
    args = arguments(folder, config, **settings)
    trainer = cls(model, args, train_dataset=data, data_collator=TASKS[task][2], teacher_model=teacher)
    trainer.train()
    return trainer


DISTANCES = {
    "kl": lambda z, zt, t: t**2 * _divergence(zt / t, z / t),
    "reverse_kl": lambda z, zt, t: t**2 * _divergence(z / t, zt / t),
    "js": lambda z, zt, t: t**2 * _halfway(z / t, zt / t),
    "mse": lambda z, zt, t: (z - zt).square().mean(dim=1),
    "hard": lambda z, zt, t: F.cross_entropy(z, zt.argmax(dim=1), reduction="none"),
}


def _divergence(one, other):
    return (one.softmax(1) * (one.log_softmax(1) - other.log_softmax(1))).sum(1)


def _halfway(one, other):
    middle = ((one.softmax(1) + other.softmax(1)) / 2).log()
    return (_divergence(one, middle) + _divergence(other, middle)) / 2


def window_loss(model, teacher, batch, weight, temperature, loss, target=None):
    """`(1 - w) CE + w distance`, a mean over the labels that count; and what the log is made of."""
    z = model(**batch).logits.flatten(0, -2)
    with torch.no_grad():
        zt = teacher(**batch).logits.flatten(0, -2)
    labels = batch["labels"].flatten()
    counted = labels != -100
    z, zt, labels = z[counted], zt[counted], labels[counted]
    target = F.one_hot(labels, z.shape[1]).double() if target is None else target(z.detach().softmax(1), labels)
    task = -(target * z.log_softmax(1)).sum(1)
    distances = DISTANCES[loss](z, zt, temperature)
    logs = {
        "loss": float(((1 - weight) * task + weight * distances).detach().mean()),
        "kd/loss": float(distances.detach().mean()),
        "kd/agreement": float((z.argmax(1) == zt.argmax(1)).double().mean()),
        "kd/teacher_entropy": float(-(zt.softmax(1) * zt.log_softmax(1)).sum(1).mean()),
    }
    return ((1 - weight) * task + weight * distances).mean(), logs


def by_hand(model, teacher, windows, kd=(0.4, 3.0, "kl"), target=None, rho=None):
    """Weights and logs after a step of SGD for each window, with SAM's ascent where there is a `rho`."""
    model, teacher, logs = copy.deepcopy(model).train(), copy.deepcopy(teacher).eval(), []
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for batch in windows:
        before, kept = [p.detach().clone() for p in free], {}

        def fixed(predicted, labels, kept=kept):
            """Resolved in the first pass, and the same in the second."""
            return kept.setdefault("target", target(predicted, labels))

        given = None if target is None else fixed
        loss, seen = window_loss(model, teacher, batch, *kd, given)
        logs.append(seen)
        gradient = torch.autograd.grad(loss, free)
        if rho is not None:
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
            with torch.no_grad():
                for parameter, g in zip(free, gradient):
                    parameter.add_(rho * g / norm)
            gradient = torch.autograd.grad(window_loss(model, teacher, batch, *kd, given)[0], free)
        with torch.no_grad():
            for parameter, start, g in zip(free, before, gradient):
                parameter.copy_(start - STEP["learning_rate"] * g)
    return {name: value.detach() for name, value in model.state_dict().items()}, logs


def windows_of(task, data, size=8):
    rows = list(data)
    return [TASKS[task][2](rows[i : i + size]) for i in range(0, len(rows), size)]


def assert_close(found, expected, task="bert"):
    # T5 takes its norms in float32, whatever the weights are in.
    tolerance = 1e-6 if task == "t5" else 1e-10
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


KD = {"kd_weight": 0.4, "kd_temperature": 3.0}


def blended(predicted, labels):
    """The soft target of a first visit at momentum 0.6."""
    return 0.6 * F.one_hot(labels, predicted.shape[1]).double() + 0.4 * predicted


CORRECTING = {"label_correction": "sat", "sat_start_epoch": 0, "sat_momentum": 0.6, "sat_reweight": False}


def adapted(model: nn.Module) -> nn.Module:
    """The model in float64, with the same adapters at each call."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig("SEQ_CLS", r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    torch.manual_seed(1)
    return peft.get_peft_model(model, lora).double()


class Counting(nn.Module):
    """A teacher that keeps count of its calls, and what they were like."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.calls = model, model.config, []

    def forward(self, input_ids, attention_mask=None):
        self.calls.append((len(input_ids), self.model.training, torch.is_grad_enabled()))
        return self.model(input_ids, attention_mask)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(text_data(32))


class Items(torch.utils.data.Dataset):
    """A torch data set whose items are dictionaries."""

    def __init__(self, data):
        self.rows = list(data)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return dict(self.rows[i])


def refused(trainer, *parts):
    """`train()` raises, names all parts in order, and leaves the student alone."""
    before = weights(trainer)
    with pytest.raises(ValueError, match="(?s)" + ".*".join(parts)):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    assert trainer.state.global_step == 0
