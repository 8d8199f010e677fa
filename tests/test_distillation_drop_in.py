"""Distillation under and above users' own classes, losses, data sets and collators."""

import copy

import pytest
import torch
import torch.nn.functional as F
from distillation_runs import (
    KD,
    STEP,
    Items,
    Stream,
    assert_close,
    by_hand,
    distil,
    sharpened,
    taught,
    teacher_for,
    window_loss,
    windows_of,
)
from small import assert_same_tensors, bert, bert_tokens, make_trainer, pad, text_data, token_data, weights
from torch import nn
from transformers import Trainer

from hf_sat import SATMixin, SATTrainer


def penalty(model):
    return 0.01 * sum(parameter.square().sum() for parameter in model.parameters())


class Above(SATTrainer):
    """A user's subclass that adds to our loss."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss + penalty(model), outputs) if return_outputs else loss + penalty(model)


class Beneath(Trainer):
    """A user's Trainer that adds to upstream's loss."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss + penalty(model), outputs) if return_outputs else loss + penalty(model)


class Mixed(SATMixin, Beneath):
    pass


class Forgetting(SATTrainer):
    """A loss of a user's that does not hand on the number of items, as many do."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        return super().compute_loss(model, inputs, return_outputs=return_outputs)


@pytest.mark.parametrize("cls", [Above, Mixed])
def test_what_a_user_adds_to_the_loss_stays(runs, cls):
    data, model, teacher = text_data(8), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    reference = copy.deepcopy(model).train()
    loss, _ = window_loss(reference, copy.deepcopy(teacher).eval(), pad(list(data)), 0.4, 3.0, "kl")
    (loss + penalty(reference)).backward()
    expected = {name: p.detach() - STEP["learning_rate"] * p.grad for name, p in reference.named_parameters()}
    trainer = distil(runs, teacher, model, data, cls, **{**STEP, **KD})
    torch.testing.assert_close(dict(trainer.model.named_parameters()), expected, atol=1e-10, rtol=0.0)


@pytest.mark.parametrize("k", [2, 4])
def test_a_loss_that_forgets_the_number_of_items(runs, k):
    data, model, teacher = text_data(11), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    ends, _ = by_hand(model, teacher, windows_of("bert", data))
    sizes = {"per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    trainer = distil(runs, teacher, model, data, Forgetting, **{**STEP, **KD, **sizes})
    assert_close(weights(trainer), ends)


class Target(nn.Module):
    """A student that calls its labels "target"."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None, target=None):
        logits = self.model(input_ids, attention_mask).logits
        return {"logits": logits} if target is None else {"loss": F.cross_entropy(logits, target), "logits": logits}


def named_target(items):
    batch = pad(items)
    labels = batch.pop("labels")
    return {**batch, "target": labels}


@pytest.mark.parametrize("name", ["label", "target"])
@pytest.mark.parametrize("k", [1, 2])
def test_labels_by_another_name(runs, name, k):
    """A column "label" that the collator renames; labels that the model and the batch call otherwise."""
    data, model, teacher = text_data(11), sharpened(bert(dropout=0.0)).double(), teacher_for(double=True)
    ends, _ = by_hand(model, teacher, windows_of("bert", data))
    settings = {**STEP, **KD, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    if name == "label":
        trainer = distil(runs, teacher, model, data.rename_column("labels", "label"), **settings)
        return assert_close(weights(trainer), ends)
    settings |= {"label_names": ["target"], "remove_unused_columns": False}
    trainer = make_trainer(runs, Target(model), data, taught(teacher), named_target, **settings)
    trainer.train()
    assert_close(weights(trainer), {f"model.{key}": value for key, value in ends.items()})


KINDS = {
    "torch data set": lambda: Items(text_data(32)),
    "torch stream": Stream,
    "stream": lambda: text_data(32).to_iterable_dataset(),
}


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_data(tmp_path, kind, keeps):
    """A run over other kinds of data ends where one over a table does, with or without the removal of columns."""
    settings = {"train_sampling_strategy": "sequential", "max_steps": 4, "label_correction": "none"}
    table = distil(str(tmp_path / "table"), teacher_for(), bert(), text_data(32), **settings)
    settings["remove_unused_columns"] = not keeps
    other = distil(str(tmp_path / "other"), teacher_for(), bert(), KINDS[kind](), **settings)
    assert_same_tensors(weights(table), weights(other))


def test_averaging_of_tokens_changes_nothing_on_one_process(tmp_path):
    runs_ = [
        distil(
            str(tmp_path / str(average)),
            teacher_for("tokens"),
            bert_tokens(),
            token_data(),
            average_tokens_across_devices=average,
            gradient_accumulation_steps=2,
        )
        for average in (True, False)
    ]
    assert_same_tensors(*map(weights, runs_))
