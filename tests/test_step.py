"""The step against an independent float64 replay, written from the paper and not from the code.

The replay is fed with what the model itself put out during the run, in the order of the run.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from settings import SETTINGS
from small import bert, bert_tokens, make_trainer, text_data, token_data

from hf_sat import SATTrainer
from hf_sat.state import STATE_FILE


class Recording(SATTrainer):
    """Keeps example numbers, labels, logits and losses of every training pass, but for the second ones of SAM."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        examples, labels = self._examples, inputs["labels"].clone()
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and self._replaying is None:
            state = self.state
            logits = outputs["logits"].detach().double().numpy()
            self.passes.append(
                (state.global_step, state.epoch or 0.0, examples.numpy(), labels.numpy(), logits, loss.item())
            )
        return (loss, outputs) if return_outputs else loss


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def replay(passes, one_hot, row_of, settings, trusted=()):
    """Soft targets and the loss of every pass, in float64."""
    a, start = settings["sat_momentum"], settings["sat_start_epoch"]
    targets, losses = one_hot.copy(), []
    windows = {}
    for number, step_pass in enumerate(passes):
        windows.setdefault(step_pass[0], []).append((number, step_pass))
    for window in windows.values():
        updates = {}
        counted = sum((labels != -100).sum() for _, (_, _, _, labels, _, _) in window)
        for _, (_, epoch, examples, labels, logits, _) in window:
            rows, given, z = [], [], []
            for i, example in enumerate(examples):
                for k, position in enumerate(np.flatnonzero(np.atleast_1d(labels[i]) != -100)):
                    rows.append(row_of(example, k))
                    given.append(np.atleast_1d(labels[i])[position])
                    z.append(logits[i][position] if labels.ndim == 2 else logits[i])
            p = softmax(np.array(z))
            if epoch < start:
                eps = settings.get("label_smoothing_factor", 0.0)
                losses.append(
                    -((1 - eps) * np.log(p[np.arange(len(p)), given]) + eps * np.log(p).mean(1)).sum() / counted
                )
                continue
            t = a * targets[rows] + (1 - a) * p
            for i, row in enumerate(rows):
                if row in trusted:
                    t[i] = one_hot[row]
                updates.setdefault(row, t[i])
            w = t.max(axis=1) if settings.get("sat_reweight", True) else np.ones(len(t))
            w = w / w.mean()
            loss = -(t * np.log(p)).sum(axis=1)
            if settings.get("sat_loss") == "sce":
                loss = loss - 0.3 * (p * np.log(np.maximum(t, 1e-4))).sum(axis=1)
            losses.append((w * loss).sum() / counted)
        for row, t in updates.items():
            targets[row] = t
    return targets, losses


def check(trainer, folder, one_hot, row_of, settings, trusted=()):
    trainer.train()
    targets, losses = replay(trainer.passes, one_hot, row_of, settings, trusted)
    saved = load_file(f"{folder}/checkpoint-{trainer.state.global_step}/{STATE_FILE}")["soft_targets"]
    assert saved.dtype == torch.float32
    np.testing.assert_allclose(saved.numpy(), targets, atol=2e-6)
    # What the trainer back-propagates is divided by the number of micro-batches where upstream does so later.
    k = settings.get("gradient_accumulation_steps", 1)
    scaled = np.array([step_pass[-1] for step_pass in trainer.passes])
    if k > 1 and not trainer.model_accepts_loss_kwargs:
        scaled = scaled / k
    np.testing.assert_allclose(scaled, losses, rtol=1e-5, atol=1e-6)


# Rows with momentum and onset as numbers, and targets stored whole, can be replayed from outside; those with neighbors
# are in test_neighbors.py.
ELSEWHERE = {"sat_top_k", "sat_target_dtype", "sat_neighbors"}
NUMBERS = [
    name for name, row in SETTINGS.items() if row.get("sat_momentum", "auto") != "auto" and not ELSEWHERE & set(row)
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_examples(runs, name, k):
    settings = {**SETTINGS[name], "gradient_accumulation_steps": k}
    data = text_data(44)
    trainer = make_trainer(runs, data=data, trainer=Recording, save_strategy="epoch", **settings)
    check(trainer, runs, np.eye(4)[data["labels"]], lambda example, k: example, settings)


def test_trusted_rows_keep_their_label(runs):
    settings = {"sat_momentum": 0.2, "sat_start_epoch": 0}
    data = text_data(40)
    trusted = {3, 4, 17}
    marked = data.add_column("gold", [i in trusted for i in range(40)])
    trainer = make_trainer(
        runs, data=marked, trainer=Recording, save_strategy="epoch", trusted_column="gold", **settings
    )
    check(trainer, runs, np.eye(4)[data["labels"]], lambda example, k: example, settings, trusted)


@pytest.mark.parametrize("name", ["mid-epoch", "symmetric", "unweighted"])
@pytest.mark.parametrize("k", [1, 3])
def test_tokens(runs, name, k):
    settings = {**SETTINGS[name], "gradient_accumulation_steps": k}
    data = token_data(28)
    counted = [[label for label in row if label != -100] for row in data["labels"]]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in counted])])
    trainer = make_trainer(runs, bert_tokens(), data, trainer=Recording, save_strategy="epoch", **settings)
    check(trainer, runs, np.eye(4)[np.concatenate(counted)], lambda example, k: offsets[example] + k, settings)


def test_rows_that_stand_twice_in_a_window_count_once(runs):
    """A sampler with replacement: the first of the two visits is taken, both see the stored target."""
    settings = {"sat_momentum": 0.5, "sat_start_epoch": 0, "gradient_accumulation_steps": 2}
    data = text_data(12)

    class Repeating(Recording):
        def _get_train_sampler(self, train_dataset=None):
            generator = torch.Generator().manual_seed(0)
            return torch.utils.data.RandomSampler(train_dataset, replacement=True, num_samples=48, generator=generator)

    trainer = make_trainer(runs, data=data, trainer=Repeating, save_strategy="epoch", **settings)
    check(trainer, runs, np.eye(4)[data["labels"]], lambda example, k: example, settings)


def test_a_row_that_is_not_finite_never_enters_the_targets(runs):
    """One poisoned example: its prediction is NaN for one step, and its target stays as it was."""
    data = text_data(32)

    class Poisoned(Recording):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            self.poison = 3 in self._examples.tolist()
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    model = bert()
    trainer = make_trainer(
        runs,
        model,
        data,
        trainer=Poisoned,
        sat_momentum=0.5,
        sat_start_epoch=0,
        num_train_epochs=1,
        learning_rate=0.0,
        logging_steps=4,
        save_strategy="epoch",
    )

    def spoil(module, args, output):
        if trainer.poison:
            row = trainer._examples.tolist().index(3)
            output = output.index_put((torch.tensor([row]),), torch.tensor(float("nan")))
        return output

    model.classifier.register_forward_hook(spoil)
    trainer.train()
    saved = load_file(f"{runs}/checkpoint-4/{STATE_FILE}")
    assert torch.isfinite(saved["soft_targets"]).all()
    assert torch.equal(saved["soft_targets"][3], torch.eye(4)[data["labels"][3]])
    assert saved["n_visits"][3] == 0 and (saved["n_visits"].sum() == 31)
    assert [log["sat/nonfinite_rows"] for log in trainer.state.log_history if "sat/nonfinite_rows" in log] == [1.0]
