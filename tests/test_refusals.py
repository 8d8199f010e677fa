"""What cannot work is refused with a `ValueError` before the first optimizer step, naming the value and the way out.

Protects: the messages, that weights and `global_step` are as they were, and that no file of a refused run is left.
"""

import os
import re
import shutil

import numpy as np
import pytest
import torch
from small import assert_same_tensors, bert, bert_tokens, make_trainer, pad, text_data, token_data, vit, weights
from transformers import GPT2Config, GPT2LMHeadModel

from hf_sat import SATConfig
from hf_sat.state import STATE_FILE


def refused(trainer, *parts: str, **kwargs):
    """`train()` raises, names all parts, and leaves the model alone."""
    before = weights(trainer)
    with pytest.raises(ValueError, match="(?s)" + ".*".join(parts)):
        trainer.train(**kwargs)
    if not kwargs:  # resuming loads the weights first
        assert_same_tensors(before, weights(trainer))
        assert trainer.state.global_step == 0
    assert trainer.optimizer is None or not trainer.optimizer.state_dict()["state"] or kwargs


def with_labels(labels, n=24):
    return text_data(n).remove_columns("labels").add_column("labels", labels)


# ---- settings -------------------------------------------------------------------------------------------------------

WRONG = [("sat_momentum", value) for value in (1.0, -0.1, "fast", float("nan"), float("inf"), True, None, "", [0.5], 2)]
WRONG += [("sat_start_epoch", value) for value in (-1, "soon", float("nan"), float("inf"), None, False)]
WRONG += [("sat_loss", value) for value in ("mse", None, "CE", 1)]
WRONG += [("label_correction", value) for value in ("SAT", None, True, "")]
WRONG += [("sat_on_label_change", value) for value in ("keep", None)]
WRONG += [("sat_sce_beta", value) for value in (-0.1, float("nan"), float("inf"), "much", None)]
WRONG += [("elr_beta", value) for value in (1.0, -0.1, "auto")]
WRONG += [("elr_lambda", -1.0), ("gce_q", 0.0), ("gce_q", 1.5), ("sce_alpha", -1), ("sce_beta", float("inf"))]
WRONG += [("bootstrap_beta", 1.1), ("bootstrap_beta", None)]
WRONG += [("sat_num_samples", value) for value in (0, -5, 2.5, "many", True)]
WRONG += [("sat_reweight", value) for value in ("no", "false", 2, None)]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later."""
    with pytest.raises(ValueError, match=f"{setting}.*{re.escape(repr(value))}.*: "):
        SATConfig(output_dir=runs, **{setting: value})
    trainer = make_trainer(runs)
    setattr(trainer.args, setting, value)
    refused(trainer, setting, re.escape(repr(value)))


def test_elr_keeps_whole_targets(runs):
    """What its running predictions lack of a sum of 1 would be read as the mass of the tail."""
    with pytest.raises(ValueError, match=r"sat_top_k=2.*elr"):
        SATConfig(output_dir=runs, label_correction="elr", sat_top_k=2)


@pytest.mark.parametrize("value", ["0.6", 0, 0.0, 0.999999, "auto", "0"])
def test_numbers_as_command_lines_pass_them(runs, value):
    config = SATConfig(output_dir=runs, sat_momentum=value, sat_start_epoch=value, sat_num_samples=5)
    assert config.sat_momentum == config.sat_start_epoch == (value if value == "auto" else float(value))


# ---- models ---------------------------------------------------------------------------------------------------------


class Bare(torch.nn.Module):
    """A module of the user's that says nothing of its classes."""

    def __init__(self, logits=True, classes=4):
        super().__init__()
        self.logits = logits
        self.embedding = torch.nn.EmbeddingBag(40, classes)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.embedding(input_ids)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if self.logits else {"loss": loss, "scores": logits}


def causal(items):
    batch = pad(items)
    return {**batch, "labels": batch["input_ids"]}


MODELS = {
    "regression": (lambda: bert(classes=1), pad, ["num_labels=1", "regression", 'label_correction="none"']),
    "regression by type": (lambda: bert(problem_type="regression"), pad, ["problem_type='regression'", "none"]),
    "multi-label": (
        lambda: bert(problem_type="multi_label_classification"),
        pad,
        ["multi_label_classification", "single_label_classification"],
    ),
    "multi-label by labels": (
        bert,
        lambda items: {**pad(items), "labels": torch.ones(len(items), 4)},
        ["labels of type torch.float32", "label_correction"],
    ),
    "multi-label by whole numbers": (
        bert,
        lambda items: {**pad(items), "labels": torch.ones(len(items), 4, dtype=torch.long)},
        ["logits", "label_correction"],
    ),
    "causal LM": (
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2)),
        causal,
        ["GPT2LMHeadModel", "causal", "label_correction"],
    ),
    "no logits": (lambda: Bare(logits=False), pad, ["Bare", "no logits", "scores", "label_correction"]),
    "no labels": (bert, lambda items: {"input_ids": pad(items)["input_ids"]}, ["'labels'", "input_ids", "none"]),
    "no class count": (lambda: Bare(classes=2), pad, [r"label [23] of example \d+", "outside", "0 to 1"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(runs, name):
    model, collator, parts = MODELS[name]
    refused(make_trainer(runs, model(), text_data(24), collator=collator), *parts)


# ---- the run --------------------------------------------------------------------------------------------------------

FLAGS = {
    "DataParallel": (lambda t: setattr(t.args, "_n_gpu", 2), ["2 GPUs", "DataParallel", "accelerate launch"]),
    "DeepSpeed": (lambda t: setattr(t, "is_deepspeed_enabled", True), ["deepspeed", "label_correction"]),
    "FSDP": (lambda t: setattr(t, "is_fsdp_enabled", True), ["fsdp", "label_correction"]),
    "tensor parallel": (lambda t: setattr(t, "get_tp_size", lambda: 2), ["parallelism", "2", "label_correction"]),
    "context parallel": (lambda t: setattr(t, "get_cp_size", lambda: 4), ["parallelism", "4", "label_correction"]),
    "compute_loss_func": (
        lambda t: setattr(t, "compute_loss_func", lambda outputs, labels, num_items_in_batch: outputs["logits"].sum()),
        ["compute_loss_func", "label_correction"],
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_ways_to_run(runs, name):
    set_flag, parts = FLAGS[name]
    trainer = make_trainer(runs)
    set_flag(trainer)
    refused(trainer, *parts)


@pytest.mark.parametrize(
    "settings",
    [{}, {"sample_id_column": "key"}, {"sat_num_samples": 24}, {"trusted_column": "gold"}],
    ids=["neither", "no size", "no ids", "marks"],
)
def test_streams_without_ids(runs, settings):
    if "trusted_column" in settings:
        settings = {**settings, "sample_id_column": "key", "sat_num_samples": 24}
    data = text_data(24).add_column("key", range(24)).add_column("gold", [True] * 24).to_iterable_dataset()
    parts = ["trusted_column"] if "trusted_column" in settings else ["sample_id_column", "sat_num_samples", "none"]
    refused(make_trainer(runs, data=data, max_steps=2, **settings), *parts)


def test_streams_of_token_labels(runs):
    data = token_data(12).add_column("key", range(12)).to_iterable_dataset()
    trainer = make_trainer(runs, bert_tokens(), data, max_steps=2, sample_id_column="key", sat_num_samples=12)
    refused(trainer, "labels of tokens", "could not be counted before training", 'label_correction="none"')


# ---- data -----------------------------------------------------------------------------------------------------------


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


GOOD = text_data(24)["labels"]


def wrong_at(row, value):
    return [value if i == row else label for i, label in enumerate(GOOD)]


def images(labels):
    pixels = torch.randn(len(labels), 3, 8, 8)
    return Items([{"pixel_values": pixels[i], "labels": label} for i, label in enumerate(labels)])


KINDS = {
    "table": lambda labels: (bert(), with_labels(labels), pad),
    "items": lambda labels: (bert(), Items(list(with_labels(labels))), pad),
    # Of these the collator alone sees the labels, so the wrong one stands in the first batch.
    "images": lambda labels: (vit(), images(labels), None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value, workers", [(4, 0), (-1, 0), (-99, 1)])
def test_labels_outside_the_classes(runs, kind, value, workers):
    row = 3 if kind == "images" else 21
    model, data, collator = KINDS[kind](wrong_at(row, value))
    settings = {"train_sampling_strategy": "sequential", "dataloader_num_workers": workers}
    trainer = make_trainer(runs, model, data, collator=collator, **settings)
    refused(trainer, f"label {value} of example {row} ", r"\(0 to 3\)", "num_labels")


def test_labels_of_tokens_outside_the_classes(runs):
    data = token_data(12)
    labels = [list(row) for row in data["labels"]]
    at = next(i for i, label in enumerate(labels[5]) if label != -100)
    labels[5][at] = 9
    data = data.remove_columns("labels").add_column("labels", labels)
    refused(make_trainer(runs, bert_tokens(), data), "label 9 of example 5, token 0", r"\(0 to 3\)")


LABELS = {
    "floats": ([0.5] * 24, ["float", "0.5"]),
    "words": (["a"] * 24, []),
    "missing": ([None, *GOOD[1:]], ["row 0"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_no_class_ids(runs, name):
    labels, parts = LABELS[name]
    refused(make_trainer(runs, data=with_labels(labels)), *parts)


def reordering(items):
    """Sorts its batch by length, as old packing collators do; labels go along."""
    return pad(sorted(items, key=lambda item: -len(item["input_ids"])))


COLLATORS = {
    "drops rows": (lambda items: pad(items[1:]), ["7 rows of 8 examples"]),
    "repeats rows": (lambda items: pad(items + items), ["16 rows of 8 examples"]),
    "reorders rows": (reordering, ["order|collator"]),
}


@pytest.mark.parametrize("name", COLLATORS)
@pytest.mark.parametrize("kind", ["table", "items"])
def test_collators_that_lose_the_order(runs, name, kind):
    collator, parts = COLLATORS[name]
    data = text_data(24)
    refused(make_trainer(runs, data=data if kind == "table" else Items(list(data)), collator=collator), *parts)


COLUMNS = {
    "missing id": ({"sample_id_column": "kye"}, ["sample_id_column='kye'", "no such column", "Did you mean 'key'"]),
    "missing mark": ({"trusted_column": "golden"}, ["trusted_column='golden'", "Did you mean 'gold'"]),
    "nothing near": ({"trusted_column": "zzzzzz"}, ["trusted_column='zzzzzz'", "input_ids"]),
    "repeated ids": ({"sample_id_column": "twice"}, ["sample_id_column='twice'", "id 5", "rows 5 and 11"]),
    "repeated words": ({"sample_id_column": "words"}, ["sample_id_column='words'", "'w0'", "rows 0 and 3"]),
    "marks are words": ({"trusted_column": "words"}, ["trusted_column='words'", "true and false"]),
    "marks are numbers": ({"trusted_column": "key"}, ["trusted_column='key'", "true and false"]),
    "ids are missing": ({"sample_id_column": "holes"}, ["row 2"]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("kind", ["table", "items"])
def test_columns(runs, name, kind):
    settings, parts = COLUMNS[name]
    data = text_data(24)
    columns = {
        "key": [100 + i for i in range(24)],
        "gold": [True] * 24,
        "twice": [5 if i == 11 else i for i in range(24)],
        "words": [f"w{i % 3}" for i in range(24)],
        "holes": [None if i == 2 else f"h{i}" for i in range(24)],
    }
    for column, values in columns.items():
        data = data.add_column(column, values)
    refused(make_trainer(runs, data=data if kind == "table" else Items(list(data)), **settings), *parts)


# ---- resume ---------------------------------------------------------------------------------------------------------

RESUME = {"save_strategy": "steps", "save_steps": 3, "sat_start_epoch": 0, "sat_momentum": 0.5, "num_train_epochs": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The middle of a run of six steps."""
    folder = str(tmp_path_factory.mktemp("resume"))
    make_trainer(folder, data=text_data(24), **RESUME).train()
    return f"{folder}/checkpoint-3"


@pytest.fixture
def copied(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "checkpoint-3")


def truncate(to):
    def change(path):
        size = os.path.getsize(path)
        os.truncate(path, to if to >= 0 else size + to)

    return change


def overwrite(path):
    with open(path, "wb") as file:
        file.write(os.urandom(500))


BROKEN = {
    "missing": (os.remove, ["missing", "label_correction"]),
    "empty": (truncate(0), ["cannot be read", "truncated"]),
    "half a header": (truncate(40), ["cannot be read", "truncated"]),
    "all but a byte": (truncate(-1), ["cannot be read", "truncated"]),
    "noise": (overwrite, ["cannot be read"]),
    "another file": (lambda path: shutil.copy(os.path.join(os.path.dirname(path), "model.safetensors"), path), []),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_state(copied, runs, name):
    change, parts = BROKEN[name]
    change(copied / STATE_FILE)
    trainer = make_trainer(runs, data=text_data(24), **RESUME)
    refused(trainer, STATE_FILE, *parts, resume_from_checkpoint=str(copied))


OTHER = {
    "fewer rows": (lambda: {"data": text_data(20)}, ["num_examples was 24 and is 20"]),
    "other labels": (
        lambda: {"data": with_labels(wrong_at(7, (GOOD[7] + 1) % 4))},
        [f"example 7, {GOOD[7]} then and {(GOOD[7] + 1) % 4} now", "reset_rows"],
    ),
    "reordered": (lambda: {"data": text_data(24).select(range(23, -1, -1))}, ["labels differ", "sample_id_column"]),
    "ids": (lambda: {"data": text_data(24).add_column("key", range(24)), "sample_id_column": "key"}, ["ids"]),
    "other classes": (lambda: {"data": text_data(24), "model": bert(classes=5)}, ["4 classes", "5"]),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_data(checkpoint, runs, name):
    changed, parts = OTHER[name]
    refused(make_trainer(runs, **RESUME, **changed()), *parts, resume_from_checkpoint=checkpoint)


def test_edited_labels_start_anew_if_asked(checkpoint, runs):
    edited = wrong_at(7, (GOOD[7] + 1) % 4)
    settings = {**RESUME, "learning_rate": 0.0, "sat_on_label_change": "reset_rows"}
    trainer = make_trainer(runs, data=with_labels(edited), **settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    report = trainer.label_report().to_pandas()
    assert report["given_label"].tolist() == edited
    assert report["n_visits"].tolist() == [1 if i == 7 else 2 for i in range(24)]
    # One visit at momentum 0.5 leaves half of the edited label at least.
    assert report["p_given"][7] >= 0.5


@pytest.mark.parametrize("name", ["other labels", "other labels, read late"])
def test_state_is_untouched_by_a_refused_resume(checkpoint, runs, name):
    """The data set's labels come late: the refusal comes with the batch that shows them, not before, and by name."""
    edited = list(with_labels(wrong_at(7, (GOOD[7] + 1) % 4)))
    data = Items([(item["input_ids"], item["labels"]) for item in edited]) if "late" in name else Items(edited)

    def collate(items):
        return pad([{"input_ids": item[0], "labels": item[1]} if isinstance(item, tuple) else item for item in items])

    trainer = make_trainer(runs, data=data, collator=collate, **RESUME)
    with open(f"{checkpoint}/{STATE_FILE}", "rb") as file:
        before = file.read()
    refused(trainer, "example 7", "reset_rows", resume_from_checkpoint=checkpoint)
    with open(f"{checkpoint}/{STATE_FILE}", "rb") as file:
        assert file.read() == before


def test_more_epochs_are_no_other_run(checkpoint, runs):
    """What is not refused: the same data, longer."""
    trainer = make_trainer(runs, data=text_data(24), **{**RESUME, "num_train_epochs": 4})
    trainer.train(resume_from_checkpoint=checkpoint)
    assert np.array_equal(trainer.label_report().to_pandas()["n_visits"], np.full(24, 4))
