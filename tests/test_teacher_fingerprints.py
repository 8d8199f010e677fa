"""What a teacher's cache is bound to.

Protects: fingerprints that tell another teacher, other data and other preprocessing by name; views that differ from
epoch to epoch.
"""

import copy
import os

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from distillation_runs import KD, STEP, TASKS, Items, distil, run_task, taught, teacher_for
from small import (
    CLASSES,
    Steps,
    assert_same_tensors,
    bert,
    bert_tokens,
    make_trainer,
    pad,
    text_data,
    token_data,
    vit,
    weights,
)
from teacher_cache_runs import Keyed, contents, refused

from hf_sat.fingerprints import _add_column, of_data, of_models, of_preprocessing

# ---- the fingerprint ------------------------------------------------------------------------------------------------


def moved(teacher):
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.dense.bias[3] += 1e-6
    return teacher


def reconfigured(teacher):
    teacher.config.layer_norm_eps = 1e-5
    return teacher


def edited(name, row, change):
    def edit():
        rows = list(text_data())
        rows[row] = {**rows[row], name: change(rows[row][name])}
        return datasets.Dataset.from_list(rows)

    return edit


def cut(items):
    return {name: value[:, :5] if value.dim() == 2 else value for name, value in pad(items).items()}


def renamed(teacher):
    teacher.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2", 3: "LABEL_3"}
    return teacher


ANOTHER = {
    "weights of the teacher": ({"teacher": lambda: moved(teacher_for())}, "the teacher"),
    "a setting of the teacher": ({"teacher": lambda: reconfigured(teacher_for())}, "the teacher"),
    "precision of the teacher": ({"teacher": lambda: teacher_for().bfloat16()}, "the teacher"),
    "classes of the teacher": ({"teacher": lambda: renamed(teacher_for())}, "the teacher"),
    "two teachers": ({"teacher": lambda: [teacher_for(), bert(seed=11)]}, "the teacher"),
    "autocast": ({"bf16": True}, "the teacher"),
    "one token": ({"data": edited("input_ids", 17, lambda ids: [*ids[:-1], ids[-1] ^ 1])}, "the data"),
    "one length": ({"data": edited("input_ids", 17, lambda ids: ids[:-1])}, "the data"),
    "another tokenisation": (
        {"data": lambda: text_data().map(lambda row: {"input_ids": [*row["input_ids"], 39]})},
        "the data",
    ),
    "another order": ({"data": lambda: text_data().shuffle(seed=0)}, "the data"),
    "fewer examples": ({"data": lambda: text_data().select(range(40))}, "the data"),
    "another collator": ({"collator": cut}, "the preprocessing"),
    "top_k": ({"kd_cache_top_k": 2}, "the setting top_k"),
    "dtype": ({"kd_cache_dtype": "bfloat16"}, "the setting dtype"),
}


@pytest.mark.parametrize("kind", ["table", "torch data set"])
@pytest.mark.parametrize("name", ANOTHER)
def test_a_cache_of_something_else_is_refused(runs, name, kind):
    """The message says what differs, and the files are left as they were."""
    change, what = ANOTHER[name]
    wrap = Items if kind == "torch data set" else lambda data: data
    settings = {"kd_cache_dir": runs + "-cache", "label_correction": "none", "num_train_epochs": 1}
    distil(runs, teacher_for(), bert(), wrap(text_data()), **settings)
    before = contents(runs + "-cache")
    change = dict(change)
    teacher, data = change.pop("teacher", teacher_for)(), wrap(change.pop("data", text_data)())
    refused(runs, teacher, runs + "-cache", f"another state of: [^.]*{what}", "delete", data=data, **settings, **change)
    assert contents(runs + "-cache") == before


def test_the_temperature_matters_to_a_tail_alone(tmp_path):
    """Dense logits serve any temperature, loss and weight; the mass of a tail is measured at one."""
    dense, top = ({"kd_cache_dir": str(tmp_path / name), "num_train_epochs": 1} for name in ("dense", "top"))
    top["kd_cache_top_k"] = 2
    distil(str(tmp_path / "run"), teacher_for(), **dense)
    distil(str(tmp_path / "run"), teacher_for(), **top)
    distil(str(tmp_path / "run"), teacher_for(), kd_temperature=4.0, kd_loss="mse", **dense)
    distil(str(tmp_path / "run"), teacher_for(), kd_loss="js", **{**top, "kd_temperature": 2})
    refused(str(tmp_path / "run"), teacher_for(), "the setting temperature", kd_temperature=4.0, **top)


SERVES = {
    "another student": {"model": lambda: bert(seed=5, dropout=0.0)},
    "another batch size": {"per_device_train_batch_size": 4},
    "another seed": {"seed": 3},
    "edited labels": {"data": lambda: text_data().map(lambda row: {"labels": 3 - row["labels"]})},
    "another number of epochs": {"num_train_epochs": 2},
    "a teacher by name": {"teacher": "by name"},
    "columns that are not used": {"data": lambda: text_data().add_column("note", ["x"] * 48)},
    "with correction and SAM": {"label_correction": "sat", "sam": "sam"},
}


@pytest.mark.parametrize("name", SERVES)
def test_a_cache_serves_other_runs(runs, name):
    """Whatever the logits do not follow from may differ; the teacher is not asked."""
    settings = {"kd_cache_dir": runs + "-cache", "label_correction": "none", "num_train_epochs": 1}
    distil(runs, teacher_for(), bert(), **settings)
    change = {key: value() if callable(value) else value for key, value in SERVES[name].items()}
    teacher = teacher_for()
    if change.pop("teacher", None):
        teacher.save_pretrained(runs + "-teacher")
        teacher = runs + "-teacher"
    else:
        teacher.forward = None  # would fail
    distil(runs, teacher, **{**settings, **change})


def test_labels_of_tokens_are_rows(runs):
    """Where other tokens count, the rows are others; other classes on the same tokens are the same rows."""
    settings = {"kd_cache_dir": runs + "-cache", "label_correction": "none", "num_train_epochs": 1}
    data, model = token_data(), bert_tokens()
    distil(runs, teacher_for("tokens"), model, data, **settings)
    same = data.map(lambda row: {"labels": [3 - label if label >= 0 else label for label in row["labels"]]})
    distil(runs, teacher_for("tokens"), model, same, **settings)
    other = data.map(lambda row: {"labels": [-100, *row["labels"][1:]]})
    refused(runs, teacher_for("tokens"), "the label positions", model=model, data=other, **settings)


def test_labels_are_inputs_of_a_decoder(runs):
    make, data, _ = TASKS["bart"]
    settings = {"kd_cache_dir": runs + "-cache", **KD}
    run_task(runs, "bart", 1, make(), teacher_for("bart"), data(11), **settings)
    other = data(11).map(lambda row: {"labels": [row["labels"][0] ^ 1, *row["labels"][1:]]})
    with pytest.raises(ValueError, match=r"kd_cache_dir.*the data"):
        run_task(runs, "bart", 1, make(), teacher_for("bart"), other, **settings)


OWN = np.random.default_rng(0)


class Noisy(torch.utils.data.Dataset):
    """Replaces a word at random at each look."""

    def __init__(self, draw):
        self.rows, self.draw = list(text_data()), draw

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        ids = list(self.rows[i]["input_ids"])
        ids[self.draw() % len(ids)] = 12
        return {**self.rows[i], "input_ids": ids}


def with_transform():
    def at_random(rows):
        return {**rows, "input_ids": [np.random.permutation(ids).tolist() for ids in rows["input_ids"]]}

    return text_data().with_transform(at_random)


class Masking:
    """A collator that masks at random."""

    def __call__(self, items):
        batch = pad(items)
        batch["input_ids"][torch.rand(batch["input_ids"].shape) < 0.5] = 1
        return batch


RANDOM = {
    "numpy": ({"data": lambda: Noisy(lambda: int(np.random.randint(100)))}, pad),
    "torch": ({"data": lambda: Noisy(lambda: int(torch.randint(100, ())))}, pad),
    "a generator of its own": ({"data": lambda: Noisy(lambda: int(OWN.integers(100)))}, pad),
    "a transform": ({"data": with_transform}, pad),
    "the collator": ({"data": text_data}, Masking()),
}


@pytest.mark.parametrize("per_epoch", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_random_views_have_no_cache(runs, name, per_epoch):
    """By epoch either: a view that nobody can come back to has no logits to keep. Live it is as it always was."""
    made, collator = RANDOM[name]
    settings = {"kd_cache_dir": runs + "-cache", "kd_cache_per_epoch": per_epoch, "label_correction": "none"}
    refused(runs, teacher_for(), "not the same twice", data=made["data"](), collator=collator, **settings)
    assert not os.path.exists(runs + "-cache")
    settings = {"kd_weight": 0.5, "label_correction": "none", "max_steps": 2}
    make_trainer(runs, bert(), made["data"](), taught(teacher_for()), collator, **settings).train()


def test_views_keyed_by_epoch_are_cached_by_epoch(tmp_path):
    """Refused in one cache for all; by epoch each row is what the teacher says of that epoch's view."""
    cache, teacher = str(tmp_path / "cache"), teacher_for()
    settings = {"kd_cache_dir": cache, "num_train_epochs": 3}
    refused(str(tmp_path / "run"), teacher, "kd_cache_per_epoch=True", data=Keyed(), **settings)
    common = {**STEP, "num_train_epochs": 3, "learning_rate": 0.05, "kd_weight": 0.5}
    live = distil(str(tmp_path / "live"), teacher, bert(), Keyed(), **common)
    common |= {"kd_cache_dir": cache, "kd_cache_per_epoch": True}
    cached = distil(str(tmp_path / "cached"), teacher, bert(), Keyed(), **common)
    torch.testing.assert_close(weights(live), weights(cached), atol=1e-6, rtol=0.0)
    found = np.fromfile(os.path.join(cache, "logits.bin"), np.float32).reshape(3, 20, CLASSES)
    data = Keyed()
    for epoch in range(3):
        data.set_epoch(epoch)
        with torch.no_grad():
            expected = teacher(**pad([data[i] for i in range(20)])).logits
        np.testing.assert_allclose(found[epoch], expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    more = {**common, "num_train_epochs": 4}
    refused(str(tmp_path / "run"), teacher, "the setting epochs", data=Keyed(), **more)
    with pytest.raises(ValueError, match=r"kd_cache_per_epoch=True.*max_steps.*num_train_epochs"):
        distil(str(tmp_path / "run"), teacher, bert(), Keyed(), **{**common, "max_steps": 4})


@pytest.mark.parametrize("stop_at", [2, 3, 7])
def test_views_keyed_by_epoch_resume(tmp_path, stop_at):
    """Within an epoch and at its end, with windows that cross neither."""
    common = {"kd_cache_dir": str(tmp_path / "cache"), "kd_cache_per_epoch": True, "save_strategy": "steps"}
    common |= {"save_steps": stop_at, "kd_weight": 0.5, "sat_start_epoch": 0.5, "sat_momentum": 0.5}
    whole = distil(str(tmp_path / "whole"), teacher_for(), bert(), Keyed(), **common)
    distil(str(tmp_path / "parts"), teacher_for(), bert(), Keyed(), callbacks=[Steps(stop_at)], **common)
    rest = make_trainer(str(tmp_path / "parts"), bert(), Keyed(), taught(teacher_for()), **common)
    rest.train(resume_from_checkpoint=True)
    assert whole.state.global_step == 9
    assert_same_tensors(weights(whole), weights(rest))


def test_a_stream_has_no_cache(runs):
    stream = text_data().to_iterable_dataset()
    settings = {"kd_cache_dir": runs + "-cache", "max_steps": 2, "label_correction": "none"}
    refused(runs, teacher_for(), "stream", "leave kd_cache_dir out", data=stream, **settings)


# ---- fingerprints alone ---------------------------------------------------------------------------------------------


def column_print(column):
    import hashlib

    digest = hashlib.blake2b()
    _add_column(digest, column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return digest.hexdigest()


COLUMNS = {
    "numbers": ([1, 2, 3], [1, 2, 4]),
    "where a gap is": ([None, 0, 1], [0, None, 1]),
    "a gap or zero": ([0, 1], [None, 1]),
    "where lists end": ([[1, 2], [3]], [[1], [2, 3]]),
    "empty lists": ([[], [1]], [[1], []]),
    "no list": ([None, [1]], [[], [1]]),
    "texts": (["ab", "c"], ["a", "bc"]),
    "true and false": ([True, None], [False, None]),
    "nested": ([[[1], [2]]], [[[1, 2]]]),
    "of parts": ([{"a": 1, "b": "x"}], [{"a": 1, "b": "y"}]),
    "bytes": ([b"ab"], [b"ac"]),
    "halves": (pa.array(np.array([1, 2], np.float16)), pa.array(np.array([1, 3], np.float16))),
    "kinds of numbers": (pa.array([1], pa.int32()), pa.array([1], pa.int64())),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_differ_have_other_fingerprints(name):
    one, other = (each if isinstance(each, pa.Array) else pa.array(each) for each in COLUMNS[name])
    assert column_print(one) != column_print(other)
    # The same values within a longer array, as slices of a table are.
    assert column_print(pa.concat_arrays([one, one]).slice(len(one))) == column_print(one)


def test_data_is_told_by_its_values(tmp_path):
    """Not by where it lies, how it is cut into files, or what its labels are."""
    data = text_data()
    data.save_to_disk(tmp_path / "data")
    stored = datasets.load_from_disk(str(tmp_path / "data"))
    halves = datasets.concatenate_datasets([data.select(range(20)), data.select(range(20, 48))])
    prints = {of_data(each, with_labels=False) for each in (data, stored, halves, data.with_format("torch"))}
    assert len(prints) == 1
    other = data.map(lambda row: {"labels": 0})
    assert of_data(other, with_labels=False) in prints
    assert of_data(other, with_labels=True) != of_data(data, with_labels=True)


def test_arrays_are_told_by_all_of_their_values():
    """Long ones too, which numpy shows in part."""

    def collate(change):
        array = np.zeros((1, 5000))
        array[0, 2500] = change
        return lambda items: {"values": array}

    one, other = (of_preprocessing([0, 1], collate(change), False) for change in (0, 1))
    assert one != other


@pytest.mark.parametrize("make", [bert, vit])
def test_models_are_told_by_what_they_compute(tmp_path, make):
    model = make()
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model")
    assert of_models([model]) == of_models([again])
    assert of_models([model.eval()]) == of_models([make()])
    assert of_models([model]) != of_models([make(seed=1)])
    assert of_models([model], 0.5) != of_models([model], 0.4)


def test_the_order_of_many_classes_is_told(runs):
    """A permutation of a thousand classes and more, which torch shows in part."""

    def student(*swapped):
        names = [f"class {number}" for number in range(1200)]
        for one, other in [swapped] if swapped else []:
            names[one], names[other] = names[other], names[one]
        model = bert(classes=1200)
        model.config.id2label = dict(enumerate(names))
        return model

    teacher = student(0, 1)
    settings = {"kd_cache_dir": runs + "-cache", "label_correction": "none", "max_steps": 1}
    distil(runs, copy.deepcopy(teacher), student(), text_data(8), **settings)
    refused(runs, teacher, "the teacher", model=student(600, 601), data=text_data(8), **settings)
