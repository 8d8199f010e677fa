"""The two passes of SAM: alike in dropout and targets, the second at perturbed weights in every precision.

Protects: random numbers, targets that are resolved once, autocast, BatchNorm statistics, adapters, sparse gradients.
"""

import copy
import random

import numpy as np
import pytest
import torch
from drop_in_runs import lora
from everywhere_runs import pad_to_ten
from hand_loop import DEFAULTS, Net, length
from sharpness_runs import (
    ASAM,
    BY_MICRO_BATCH,
    CORRECTING,
    SAM,
    THREE,
    TWO,
    Watched,
    beneath,
    losses_of,
    targets,
    task_run,
)
from small import assert_same_tensors, bert, make_trainer, pad, text_data, weights
from torch import nn
from transformers import TrainerCallback


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
                Sparse(sparse).double(),  # the two add up in another order
                text_data(32),
                **{**DEFAULTS, **settings},
            )
            if sparse:  # upstream measures, and clips, no sparse gradient
                trainer._get_grad_norm = trainer._clip_grad_norm = lambda *args, **kwargs: torch.zeros(())
            else:
                trainer._clip_grad_norm = lambda *args, **kwargs: torch.zeros(())
            trainer.train()
            ends.append(weights(trainer))
        torch.testing.assert_close(ends[1], ends[0], atol=1e-6, rtol=0.0)


class Held(TrainerCallback):
    """How many tensors the trainer keeps at hand for the next second pass, where."""

    def __init__(self):
        self.trainer, self.at = None, {"step": [], "evaluation": [], "save": []}

    def on_step_end(self, *args, **kwargs):
        self.at["step"].append(len(self.trainer._spare))

    def on_evaluate(self, *args, **kwargs):
        self.at["evaluation"].append(len(self.trainer._spare))

    def on_save(self, *args, **kwargs):
        self.at["save"].append(len(self.trainer._spare))


def test_memory_for_the_next_step_is_free_for_evaluation_and_checkpoint(runs):
    held, data = Held(), text_data(48)
    often = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    held.trainer = trainer = make_trainer(runs, data=data, eval_dataset=data, callbacks=[held], **often, **SAM)
    trainer.train()
    trained = sum(p.requires_grad for p in trainer.model.parameters())
    assert held.at == {"step": [trained] * 6, "evaluation": [0] * 3, "save": [0] * 2}
    assert not trainer._spare
