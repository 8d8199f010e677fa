"""Augmented training data in the Trainer: the same views with any workers, after a resume, with label correction.

Protects: keys by (epoch, example) reach running workers, the soft target belongs to the example whatever its view, and
labels of words find their own soft target wherever their word went.
"""

import datasets
import numpy as np
import pytest
import torch
from small import Steps, assert_same_tensors, bert, bert_tokens, make_trainer, weights
from test_augment_data import LETTERS, Tokenize, tokenizer
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from hf_sat import SATTrainer
from hf_sat.augment import AugmentedTexts, TextAugmenter

SETTINGS = {"sat_momentum": 0.5, "sat_start_epoch": 0.5, "num_train_epochs": 3}


def texts(rows=40):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, rows)
    made = [" ".join([LETTERS[y], *rng.choice(list(LETTERS), 3 + row % 6)]) for row, y in enumerate(labels)]
    return datasets.Dataset.from_dict({"text": made, "source": ["web"] * rows, "label": labels.tolist()})


def augmented(rows=40, operations="deletion:0.2,swap:0.3"):
    return AugmentedTexts(texts(rows), TextAugmenter(operations, seed=3), tokenize=Tokenize())


class Watching(SATTrainer):
    """Keeps what it is trained on."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            ids = [tuple(row[row != 0].tolist()) for row in inputs["input_ids"]]
            self.seen.setdefault(int(self.state.epoch or 0), []).extend(ids)
        return super().compute_loss(model, inputs, *args, **kwargs)


def trained(folder, data=None, resume=None, stop_at=None, model=None, collator=None, **settings):
    data = augmented() if data is None else data
    trainer = make_trainer(
        folder,
        model or bert(),
        data,
        Watching,
        collator or DataCollatorWithPadding(tokenizer()),
        callbacks=[Steps(stop_at)],
        **{**SETTINGS, **settings},
    )
    trainer.seen = {}
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def views(data, epoch):
    data.set_epoch(epoch)
    return sorted(tuple(item["input_ids"]) for item in data)


@pytest.mark.parametrize("correction", ["sat", "none"])
def test_each_epoch_has_its_views(runs, correction):
    trainer = trained(runs, label_correction=correction)
    for epoch in range(3):
        assert sorted(trainer.seen[epoch]) == views(augmented(), epoch)
    assert views(augmented(), 0) != views(augmented(), 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers, persistent", [(1, False), (4, True)])
def test_workers_change_nothing(tmp_path, workers, persistent):
    # Without dropout: a loader draws from the global generator as often as it starts workers.
    alone = trained(str(tmp_path / "0"), model=bert(dropout=0.0))
    settings = {"dataloader_num_workers": workers, "dataloader_persistent_workers": persistent}
    many = trained(str(tmp_path / "many"), model=bert(dropout=0.0), **settings)
    assert many.seen == alone.seen
    assert_same_tensors(weights(many), weights(alone))


@pytest.mark.parametrize("stop_at", [3, 7])
def test_a_resumed_run_sees_the_same(tmp_path, stop_at):
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = trained(str(tmp_path / "whole"), **saving)
    trained(str(tmp_path / "parts"), stop_at=stop_at, **saving)
    resumed = trained(str(tmp_path / "parts"), resume=True, **saving)
    assert_same_tensors(weights(resumed), weights(whole))
    assert_same_tensors(resumed._correction.state.tensors(), whole._correction.state.tensors())


def test_the_soft_target_belongs_to_the_example(runs):
    data = augmented()
    trainer = trained(runs, data)
    report = trainer.label_report().to_pandas()
    assert report["given_label"].tolist() == texts()["label"][:] and (report["n_visits"] == 3).all()
    assert trainer.corrected_dataset()[0]["label"] == report["corrected_label"][0]


def test_evaluation_sees_the_texts_as_they_are(runs):
    plain = augmented().unaugmented()
    assert views(plain, 0) == views(plain, 5) == sorted(map(tuple, tokenizer()(texts()["text"][:])["input_ids"]))
    trainer = trained(runs, eval_strategy="epoch", eval_dataset=plain)
    assert [sorted(seen) for seen in trainer.seen.values()] == [views(augmented(), epoch) for epoch in range(3)]


# ---- labels of words ----


def tagged(rows=24):
    rng = np.random.default_rng(1)
    words = [list(rng.choice(list(LETTERS), 3 + row % 6)) for row in range(rows)]
    tags = [[-100 if rng.random() < 0.1 else LETTERS.index(word) % 4 for word in row] for row in words]
    return datasets.Dataset.from_dict({"words": [list(map(str, row)) for row in words], "tags": tags})


OPERATIONS = ["deletion:0.3", "swap:0.5", "shuffle:0.5", "insertion:0.3", "deletion:0.2,insertion:0.3,swap:0.4"]


@pytest.mark.parametrize("operations", OPERATIONS)
def test_labels_of_words_keep_their_soft_targets(runs, operations):
    """After one step without dropout each visited label's target is the blend with what its own word was given."""
    rows = tagged()
    data = AugmentedTexts(rows, TextAugmenter(operations, seed=1), "words", Tokenize(), label_column="tags")
    settings = {"sat_momentum": 0.5, "sat_start_epoch": 0, "num_train_epochs": 1, "learning_rate": 0.0}
    model = bert_tokens(dropout=0.0)
    collator = DataCollatorForTokenClassification(tokenizer())
    trainer = trained(runs, data, model=model, collator=collator, **settings)
    offsets = np.concatenate([[0], np.cumsum([sum(tag != -100 for tag in row) for row in rows["tags"]])])
    state, told = trainer._correction.state, data.with_label_positions()
    told.set_epoch(0)
    visited = set()
    for row, item in enumerate(told):
        logits = model(**{name: torch.tensor([item[name]]) for name in ("input_ids", "attention_mask")}).logits[0]
        counted = [at for at, label in enumerate(item["labels"]) if label != -100]
        assert len(counted) == len(item["sat_label_positions"])
        for at, place in zip(counted, item["sat_label_positions"]):
            if place < 0:
                continue
            target = 0.5 * torch.eye(4)[item["labels"][at]] + 0.5 * logits[at].softmax(dim=-1)
            state_row = int(offsets[row]) + place
            torch.testing.assert_close(state.targets.read(torch.tensor([state_row]))[0], target, atol=1e-5, rtol=0)
            visited.add(state_row)
    report = trainer.label_report().to_pandas()
    assert set(np.flatnonzero(report["n_visits"])) == visited and 0 < len(visited) <= len(report)
    assert report["given_label"].tolist() == [tag for row in rows["tags"] for tag in row if tag != -100]
    assert (len(visited) < len(report)) == ("deletion" in operations)


def test_labels_of_words_resume(tmp_path):
    def run(folder, **kwargs):
        augmenter = TextAugmenter(OPERATIONS[-1], seed=1)
        data = AugmentedTexts(tagged(), augmenter, "words", Tokenize(), label_column="tags")
        collator = DataCollatorForTokenClassification(tokenizer())
        saving = {"save_strategy": "steps", "save_steps": 1}
        return trained(str(tmp_path / folder), data, model=bert_tokens(), collator=collator, **saving, **kwargs)

    whole, _ = run("whole"), run("parts", stop_at=4)
    resumed = run("parts", resume=True)
    assert_same_tensors(weights(resumed), weights(whole))
    assert_same_tensors(resumed._correction.state.tensors(), whole._correction.state.tensors())
