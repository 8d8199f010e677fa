"""Hostile data sets, collators, loaders and streams: every soft target belongs to the right row.

The model's prediction depends on the example, the momentum is 0 and the learning rate too, so that each target must end
as the prediction for its own row. Protects ids, given labels, visit counts and the order of the report.
"""

import random
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from small import bert, bert_tokens, make_trainer, pad, text_data, text_rows, token_data, weights
from transformers import BatchEncoding, TrainerCallback, default_data_collator

from hf_sat import SATTrainer

N, EPOCHS = 21, 2
BASE = text_rows(N)
PROBE = {
    "sat_momentum": 0,
    "sat_start_epoch": 0,
    "learning_rate": 0.0,
    "num_train_epochs": EPOCHS,
    "sat_reweight": False,
    "per_device_train_batch_size": 4,
}


def telling_model(classes: int = 4):
    """Its predictions differ from example to example by more than rounding."""
    return bert(0.0, classes, initializer_range=0.4)


def predictions(model, rows) -> np.ndarray:
    """The model's own, example by example, without any Trainer."""
    model.eval()
    with torch.no_grad():
        return np.stack([model(torch.tensor([row])).logits[0].softmax(-1).numpy() for row in rows])


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


def train(folder, data, collator=pad, trainer=SATTrainer, **settings):
    made = make_trainer(folder, telling_model(), data, trainer, collator, **{**PROBE, **settings})
    made.train()
    return made


# ---- data sets ------------------------------------------------------------------------------------------------------

ALL = list(range(N))
SHUFFLED = np.random.default_rng(1).permutation(N).tolist()


def table(name="labels", **columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": BASE["input_ids"], name: BASE["labels"], **columns})


def with_extras() -> datasets.Dataset:
    return table(text=[f"row {i}" for i in ALL], weight=np.linspace(0, 1, N), ragged=[[[0]] * (i % 3) for i in ALL])


def encode(batch: dict) -> dict:
    """A transform that makes the model's inputs of a column the model does not know."""
    ids = [BASE["input_ids"][int(text.split()[1])] for text in batch["text"]]
    return {"input_ids": ids, "labels": batch["labels"]}


def raw() -> datasets.Dataset:
    return with_extras().remove_columns("input_ids")


class Items(torch.utils.data.Dataset):
    """A map-style data set of whatever `make` gives for a row of the base data."""

    def __init__(self, make, order=ALL):
        self.make = make
        self.order = order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, i):
        at = self.order[i]
        return self.make(BASE["input_ids"][at], BASE["labels"][at], at)


@dataclass
class Example:
    input_ids: list
    labels: int


def of_dataclasses(items):
    return pad([vars(item) for item in items])


def of_tuples(items):
    return pad([{"input_ids": ids, "labels": label} for ids, label in items])


def of_names(items):
    """Labels are words in the data set and numbers in the batch."""
    return pad([{**item, "labels": "abcd".index(item["labels"])} for item in items])


def shifted(items):
    """The data set counts from 1, the model from 0."""
    return pad([{**item, "labels": item["labels"] - 1} for item in items])


def encoded(items):
    return BatchEncoding(pad(items))


def plain_items(order=ALL):
    return Items(lambda ids, label, at: {"input_ids": ids, "labels": label}, order)


names = datasets.ClassLabel(names=list("abcd"))
# name -> (data set, rows of the base data, settings)
DATASETS = {
    "labels": lambda: (table(), ALL, {}),
    "label": lambda: (table("label"), ALL, {}),
    "ClassLabel": lambda: (table("label").cast_column("label", names), ALL, {}),
    "int8": lambda: (table().cast_column("labels", datasets.Value("int8")), ALL, {}),
    "bool": lambda: (table().cast_column("labels", datasets.Value("uint8")), ALL, {}),
    "extra columns": lambda: (with_extras(), ALL, {}),
    "extra columns kept": lambda: (with_extras(), ALL, {"remove_unused_columns": False}),
    "set_transform": lambda: (raw().with_transform(encode), ALL, {}),
    "set_transform, columns kept": lambda: (raw().with_transform(encode), ALL, {"remove_unused_columns": False}),
    "torch": lambda: (table().with_format("torch"), ALL, {}),
    "numpy": lambda: (with_extras().with_format("numpy"), ALL, {}),
    "arrow chunks": lambda: (
        datasets.concatenate_datasets([table().select(ALL[:7]), table().select(ALL[7:])]),
        ALL,
        {},
    ),
    "selected": lambda: (table().select(SHUFFLED[:9]), SHUFFLED[:9], {}),
    "shuffled": lambda: (table().select(SHUFFLED).sort("labels"), sorted(SHUFFLED, key=BASE["labels"].__getitem__), {}),
    "transform on a selection": lambda: (raw().with_transform(encode).select(SHUFFLED), SHUFFLED, {}),
    "list of dicts": lambda: (list(plain_items()), ALL, {}),
    "python numbers": lambda: (plain_items(), ALL, {}),
    "numpy numbers": lambda: (Items(lambda x, y, i: {"input_ids": np.array(x), "label": np.int64(y)}), ALL, {}),
    "tensors": lambda: (Items(lambda x, y, i: {"input_ids": torch.tensor(x), "labels": torch.tensor(y)}), ALL, {}),
    "ragged extras": lambda: (Items(lambda x, y, i: {"input_ids": x, "labels": y, "pairs": [[1], [2, 3]]}), ALL, {}),
    "subset": lambda: (torch.utils.data.Subset(table(), SHUFFLED[:9]), SHUFFLED[:9], {}),
    "subset of a transform": lambda: (torch.utils.data.Subset(raw().with_transform(encode), SHUFFLED), SHUFFLED, {}),
    "concatenated": lambda: (plain_items(ALL[:5]) + plain_items(ALL[5:]), ALL, {}),
    "one example": lambda: (table().select([4]), [4], {}),
    "batch above data": lambda: (table().select(ALL[:5]), ALL[:5], {"per_device_train_batch_size": 64}),
    "dataclasses": lambda: (Items(lambda x, y, i: Example(x, y)), ALL, {"collator": of_dataclasses}),
    "tuples": lambda: (Items(lambda x, y, i: (x, y)), ALL, {"collator": of_tuples}),
    "words": lambda: (Items(lambda x, y, i: {"input_ids": x, "labels": "abcd"[y]}), ALL, {"collator": of_names}),
    "words in a table": lambda: (
        table().remove_columns("labels").add_column("labels", ["abcd"[y] for y in BASE["labels"]]),
        ALL,
        {"collator": of_names},
    ),
    "shifted": lambda: (
        table().map(lambda row: {"labels": row["labels"] + 1}),
        ALL,
        {"collator": shifted, "remove_unused_columns": False},
    ),
    "BatchEncoding": lambda: (table(), ALL, {"collator": encoded}),
}


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


# ---- streams --------------------------------------------------------------------------------------------------------


class Stream(torch.utils.data.IterableDataset):
    """Splits itself over the workers, as streams do."""

    def __init__(self, keys=ALL):
        self.keys = keys

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in ALL[start::step]:
            yield {"input_ids": BASE["input_ids"][i], "labels": BASE["labels"][i], "key": self.keys[i]}


class SizedStream(Stream):
    def __len__(self):
        return N


def hub_stream(keys=ALL):
    return table(key=keys).to_iterable_dataset(num_shards=2)


STREAMS = {"torch": Stream, "sized": SizedStream, "datasets": hub_stream}


@pytest.mark.parametrize(
    "stream, workers, dispatch",
    [("torch", 0, True), ("torch", 2, False), ("sized", 0, False), ("datasets", 0, False), ("datasets", 2, True)],
)
def test_streams(runs, stream, workers, dispatch):
    settings = {} if stream == "sized" else {"max_steps": EPOCHS * 6}
    trainer = train(
        runs,
        STREAMS[stream]([(i * 5) % N for i in ALL]),
        sample_id_column="key",
        sat_num_samples=N,
        dataloader_num_workers=workers,
        accelerator_config={"dispatch_batches": dispatch},
        **settings,
    )
    report = trainer.label_report().to_pandas()
    assert report["sample_id"].tolist() == ALL
    row_of_key = np.argsort([(i * 5) % N for i in ALL])
    expected = predictions(trainer.model, [BASE["input_ids"][i] for i in row_of_key])
    labels = np.array(BASE["labels"])[row_of_key]
    visited = report["n_visits"] > 0
    assert report["n_visits"].tolist() == [EPOCHS] * N
    assert report["given_label"][visited].tolist() == labels[visited].tolist()
    np.testing.assert_allclose(report["p_given"][visited], expected[ALL, labels][visited], atol=1e-5)


@pytest.mark.parametrize("key", ["word", 1.5, N, -1, None, float("nan")])
def test_ids_of_streams_must_be_whole_numbers_below_the_size(runs, key):
    data = Stream([key] * N)
    with pytest.raises(ValueError, match=r"sample_id_column='key'.*sat_num_samples"):
        train(runs, data, sample_id_column="key", sat_num_samples=N, max_steps=2)


# ---- the corrected data set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ClassLabel", "torch", "selected", "set_transform", "subset"])
def test_corrected_data_sets(runs, name):
    data, order, settings = DATASETS[name]()
    trainer = train(runs, data, **settings)
    corrected = trainer.corrected_dataset()
    column = "label" if name == "ClassLabel" else "labels"
    rows = corrected.with_format(None) if isinstance(corrected, datasets.Dataset) else corrected
    report = trainer.label_report().to_pandas()
    assert [int(rows[i][column]) for i in range(len(order))] == report["corrected_label"].tolist()
    assert [int(rows[i][f"given_{column}"]) for i in range(len(order))] == [BASE["labels"][i] for i in order]
    assert report["is_label_issue"].any()


def test_a_corrected_data_set_speaks_the_language_of_the_given_one(runs):
    """The collator shifts labels by one, so corrected labels must be shifted back, or the call refused."""
    data, _, settings = DATASETS["shifted"]()
    trainer = train(runs, data, **settings)
    try:
        corrected = trainer.corrected_dataset()
    except ValueError:
        return
    kept = ~trainer.label_report().to_pandas()["is_label_issue"].to_numpy()
    assert np.array_equal(np.array(corrected["labels"])[kept], np.array(data["labels"])[kept])


def test_labels_may_have_another_name(runs):
    """A model of the user's whose labels are called otherwise, which upstream does not count."""

    class Targeted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.head = torch.nn.Embedding(40, 4)

        def forward(self, input_ids, target=None):
            logits = self.head(input_ids).mean(dim=1)
            return {"loss": torch.nn.functional.cross_entropy(logits, target), "logits": logits}

    def collate(items):
        batch = pad(items)
        ids = torch.nn.functional.pad(batch["input_ids"], (0, 12 - batch["input_ids"].shape[1]))
        return {"input_ids": ids, "target": batch["labels"]}

    ends = []
    for k in (1, 2):
        settings = {
            "remove_unused_columns": False,
            "gradient_accumulation_steps": k,
            "per_device_train_batch_size": 8 // k,
            "label_names": ["target"],
        }
        trainer = make_trainer(
            f"{runs}{k}", Targeted(), collator=collate, sat_reweight=False, sat_start_epoch=1, **settings
        )
        trainer.train()
        ends.append(weights(trainer)["head.weight"])
        report = trainer.label_report().to_pandas()
        assert report["given_label"].tolist() == text_data()["labels"] and (report["n_visits"] == 3).all()
    torch.testing.assert_close(*ends, atol=1e-5, rtol=0.0)
