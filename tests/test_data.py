"""Hostile data sets, collators and loaders: every soft target belongs to the right row.

Protects: ids, given labels, visit counts and the order of the report.
"""

import random

import numpy as np
import pytest
import torch
from data_runs import (
    ALL,
    BASE,
    DATASETS,
    EPOCHS,
    PROBE,
    SHUFFLED,
    Items,
    N,
    of_tuples,
    plain_items,
    predictions,
    table,
    telling_model,
    train,
)
from small import bert_tokens, make_trainer, pad, token_data, weights
from transformers import TrainerCallback, default_data_collator


def check(trainer, order, labels=None, ids=None, visits=EPOCHS):
    """The report and the targets against rows `order` of the base data."""
    report = trainer.label_report().to_pandas()
    labels = np.array(BASE["labels"])[order] if labels is None else np.asarray(labels)
    expected = predictions(trainer.model, [BASE["input_ids"][i] for i in order])
    rows = np.arange(len(order))
    assert np.ptp(expected, axis=0).min() > 0.1
    assert report["sample_id"].tolist() == (rows.tolist() if ids is None else list(ids))
    assert report["given_label"].tolist() == labels.tolist()
    assert (report["n_visits"] == visits).all()
    assert report["corrected_label"].tolist() == expected.argmax(1).tolist()
    np.testing.assert_allclose(report["p_given"], expected[rows, labels], atol=1e-5)
    np.testing.assert_allclose(report["p_corrected"], expected.max(1), atol=1e-5)
    assert (report["is_label_issue"] == (report["given_label"] != report["corrected_label"])).all()


# ---- data sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_and_collators(runs, name):
    data, order, settings = DATASETS[name]()
    if len(order) == 1:
        settings["per_device_train_batch_size"] = 1
        trainer = train(runs, data, **settings)
        assert trainer.label_report().to_pandas()["n_visits"].tolist() == [EPOCHS]
        return
    check(train(runs, data, **settings), order)


def test_labels_of_tokens_that_no_collator_pads(runs):
    """At a batch size of 1 nothing needs to be padded, and a batch of several cannot be made."""
    data = token_data(6)
    settings = {"collator": default_data_collator, "per_device_train_batch_size": 1, "num_train_epochs": 1}
    trainer = make_trainer(runs, bert_tokens(), data, **settings)
    trainer.train()
    counted = [label for labels in data["labels"] for label in labels if label != -100]
    assert trainer.label_report().to_pandas()["given_label"].tolist() == counted


def test_default_collator_and_renamed_labels(runs):
    rows = [{"input_ids": row[:4], "label": label} for row, label in zip(BASE["input_ids"], BASE["labels"])]
    trainer = train(runs, rows, default_data_collator)
    expected = predictions(trainer.model, [row[:4] for row in BASE["input_ids"]])
    report = trainer.label_report().to_pandas()
    np.testing.assert_allclose(report["p_given"], expected[ALL, BASE["labels"]], atol=1e-5)


@pytest.mark.parametrize("name", ["words", "shifted"])
def test_automatic_settings_do_not_hang_on_when_labels_become_known(runs, name):
    """Those of a table are read before the run, those that a collator makes show themselves in the first pass."""
    auto = {"sat_momentum": "auto", "sat_start_epoch": "auto", "learning_rate": 3e-3, "num_train_epochs": 5}
    data, _, settings = DATASETS[name]()
    read, seen = train(runs, table(), **auto), train(runs, data, **settings, **auto)
    told = [trainer.state.log_history[-2] for trainer in (read, seen)]
    for key in ("sat/onset_epoch", "sat/momentum", "sat/agreement"):
        assert told[0][key] == told[1][key]
    assert all(torch.equal(*pair) for pair in zip(weights(read).values(), weights(seen).values(), strict=True))


# ---- loaders --------------------------------------------------------------------------------------------------------


LOADERS = {
    "one worker": {"dataloader_num_workers": 1},
    "two persistent workers": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "sequential": {"train_sampling_strategy": "sequential"},
    "group_by_length": {"train_sampling_strategy": "group_by_length"},
    "batch_rebalance": {"train_sampling_strategy": "batch_rebalance"},
    "accumulating": {"gradient_accumulation_steps": 4},
    "max_steps": {"max_steps": 2 * 6},
    "dispatched": {"accelerator_config": {"dispatch_batches": True}},
    "split": {"accelerator_config": {"split_batches": True}},
    "own seed": {"data_seed": 7},
}


@pytest.mark.parametrize(
    "name, kind",
    [*((name, "table") for name in LOADERS), ("two persistent workers", "late"), ("accumulating", "late")],
)
def test_loaders(runs, name, kind):
    data, collator = (table(), pad) if kind == "table" else (Items(lambda x, y, i: (x, y)), of_tuples)
    check(train(runs, data, collator, **LOADERS[name]), ALL)


@pytest.mark.parametrize("workers", [0, 2])
def test_dropped_last_batches_leave_rows_unvisited(runs, workers):
    trainer = train(runs, table(), dataloader_drop_last=True, dataloader_num_workers=workers, num_train_epochs=1)
    report = trainer.label_report().to_pandas()
    assert sorted(report["n_visits"].tolist()) == [0] + [1] * 20
    left = report[report["n_visits"] == 0].iloc[0]
    assert np.isnan(left["label_quality"]) and left["corrected_label"] == left["given_label"]
    assert left["given_label"] == BASE["labels"][left["sample_id"]] and not left["is_label_issue"]


def test_rows_no_batch_has_shown_keep_their_label_though_it_is_read_late(runs):
    trainer = train(runs, Items(lambda x, y, i: (x, y)), of_tuples, max_steps=2)
    report = trainer.label_report().to_pandas()
    assert report["given_label"].tolist() == BASE["labels"]
    assert report["n_visits"].sum() == 8
    assert report[report["n_visits"] == 0]["label_quality"].isna().all()


# ---- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "items read late"])
@pytest.mark.parametrize("every", [3, 1])
def test_ignored_labels_do_not_count(runs, kind, every):
    """-100 in sequence classification; `every=1` leaves whole batches without a label."""
    labels = [-100 if (i // 4) % every == 0 else y for i, y in enumerate(BASE["labels"])]
    if kind == "table":
        data, collator = table().remove_columns("labels").add_column("labels", labels), pad
    else:
        data, collator = Items(lambda x, y, i: (x, labels[i])), of_tuples
    settings = {"learning_rate": 1e-2, "train_sampling_strategy": "sequential", "sat_reweight": True}
    trainer = train(runs, data, collator, **settings)
    assert all(value.isfinite().all() for value in weights(trainer).values())
    report = trainer.label_report().to_pandas()
    assert report["given_label"].tolist() == labels
    counted = np.array(labels) != -100
    assert (report["n_visits"] == np.where(counted, EPOCHS, 0)).all()
    assert report["label_quality"].isna().tolist() == (~counted).tolist()
    assert not report["is_label_issue"][~counted].any()


class Flickering(Items):
    """Its label differs at each visit."""

    def __getitem__(self, i):
        self.visits = getattr(self, "visits", 0) + 1
        item = dict(super().__getitem__(i))
        return {**item, "labels": (item["labels"] + self.visits) % 4}


def test_labels_that_differ_at_each_visit_are_refused_unless_edits_are_taken(tmp_path):
    def flickering():
        return Flickering(lambda x, y, i: {"input_ids": x, "labels": y})

    with pytest.raises(ValueError, match=r"label of example \d+ was \d and is now \d.*sat_on_label_change"):
        train(str(tmp_path / "a"), flickering())
    trainer = train(str(tmp_path / "b"), flickering(), sat_on_label_change="reset_rows")
    report = trainer.label_report().to_pandas()
    assert report["given_label"].between(0, 3).all() and (report["n_visits"] >= 1).all()


@pytest.mark.parametrize("data", [table, plain_items], ids=["table", "items"])
def test_reading_labels_leaves_the_global_generators_alone(runs, data):
    drawn = {}

    class Drawing(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            drawn["train"] = (random.random(), np.random.rand(), torch.rand(1).item())

    def at_begin(**settings):
        trainer = make_trainer(runs, telling_model(), made, callbacks=[Drawing()], **{**PROBE, **settings})
        trainer.train()
        return drawn["train"]

    class Random(Items):
        def __getitem__(self, i):
            random.random(), np.random.rand(), torch.rand(1)
            return super().__getitem__(i)

    made = data() if data is table else Random(lambda x, y, i: {"input_ids": x, "labels": y})
    assert at_begin() == at_begin(label_correction="none")


# ---- ids, marks -----------------------------------------------------------------------------------------------------


IDS = {
    "strings": [f"doc-{i * 5 % N:02d}" for i in ALL],
    "sparse": [10**12 - 10**6 * (i * 5 % N) for i in ALL],
    "negative": [-(i * 5 % N) for i in ALL],
    "uuids": [f"{i * 5 % N:032x}" for i in ALL],
}


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("kind", ["table", "items"])
def test_ids_of_the_users(runs, name, kind):
    ids = IDS[name]
    data = table(key=ids) if kind == "table" else Items(lambda x, y, i: {"input_ids": x, "labels": y, "key": ids[i]})
    check(train(runs, data, sample_id_column="key"), ALL, ids=ids)


def test_rows_may_be_reordered_between_runs_that_name_ids(tmp_path):
    """Targets follow the ids: the resumed half leaves every row with its own prediction."""
    data = table(key=IDS["strings"])
    folder = str(tmp_path)
    settings = {"sample_id_column": "key", "save_strategy": "epoch", "sat_momentum": 0.5}
    train(folder, data, **settings)
    resumed = make_trainer(
        folder, telling_model(), data.select(SHUFFLED), **{**PROBE, **settings, "num_train_epochs": 3}
    )
    before = {}

    class Begin(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            before.update(resumed.label_report().to_pandas().set_index("sample_id")["p_given"])

    resumed.add_callback(Begin())
    resumed.train(resume_from_checkpoint=True)
    report = resumed.label_report().to_pandas()
    assert report["sample_id"].tolist() == [IDS["strings"][i] for i in SHUFFLED]
    assert report["given_label"].tolist() == [BASE["labels"][i] for i in SHUFFLED]
    own = predictions(resumed.model, [BASE["input_ids"][i] for i in SHUFFLED])[ALL, report["given_label"]]
    # Two visits at momentum 0.5 leave a quarter of the given label, three an eighth.
    np.testing.assert_allclose([before[key] for key in report["sample_id"]], 0.25 + 0.75 * own, atol=1e-5)
    np.testing.assert_allclose(report["p_given"], 0.125 + 0.875 * own, atol=1e-5)
    assert (report["n_visits"] == 3).all()


@pytest.mark.parametrize("kind", ["table", "items"])
def test_trusted_rows_stay(runs, kind):
    """With ids whose order is not the data set's, so that a mark on the wrong row shows."""
    keys, marks = IDS["sparse"], [i % 5 == 0 if kind == "table" else int(i % 5 == 0) for i in ALL]
    if kind == "table":
        data = table(gold=marks, key=keys)
    else:
        data = Items(lambda x, y, i: {"input_ids": x, "labels": y, "gold": marks[i], "key": keys[i]})
    report = train(runs, data, trusted_column="gold", sample_id_column="key").label_report().to_pandas()
    assert ((report["p_given"] == 1.0) == np.array(marks, dtype=bool)).all()
