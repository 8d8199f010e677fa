"""The cache of a teacher's logits: what it holds, and a cached run that is the live one.

Protects: dense and top-k rows in every precision, and the mass of the tail; whole and resumed runs under every row of
the settings table; no teacher in memory.
"""

import copy
import gc
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from distillation_runs import KD, STEP, TASKS, Items, distil, run_task, sharpened, taught, teacher_for
from hypothesis import given, settings
from hypothesis import strategies as st
from settings import SETTINGS
from small import CLASSES, Steps, assert_same_tensors, bert, bert_tokens, make_trainer, text_data, token_data, weights
from teacher_cache_runs import refused
from teacher_runs import Translating, raw_texts, tokenizer
from torch import nn
from transformers import BertForSequenceClassification, TrainerCallback

from hf_sat.methods.distillation import entropy
from hf_sat.teacher_cache import Form, TeacherCache
from hf_sat.teacher_columns import add_teacher_columns

# ---- files ----------------------------------------------------------------------------------------------------------


PRINT = {"the teacher": "a", "the data": "b"}
DTYPES = {"float32": 0.0, "float16": 2e-3, "bfloat16": 1.6e-2}


def filled(folder, logits, dtype="float32", top_k=None, temperature=2.0):
    form = Form(len(logits), len(logits), dtype=dtype, top_k=top_k, temperature=temperature if top_k else None)
    cache = TeacherCache.make(folder, form, logits.shape[1], PRINT)
    cache.write(0, torch.arange(len(logits)), logits)
    cache.mark(0, np.arange(len(logits)))
    return TeacherCache.find(folder, form, PRINT)


def read(cache, epoch=0):
    return cache.read(epoch, torch.arange(cache.form.num_rows), torch.device("cpu"))


def some_logits(rows=9, classes=7, scale=4.0, seed=0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_rows_come_back(tmp_path, dtype):
    """To the bit of the precision they are kept in."""
    logits = some_logits()
    found = read(filled(tmp_path, logits, dtype))
    assert found.dtype == torch.float32 and torch.equal(found, logits.to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("top_k", [7, 100])
def test_top_k_of_all_classes_is_dense(tmp_path, top_k):
    logits = some_logits()
    assert torch.equal(read(filled(tmp_path, logits, top_k=top_k)), logits)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 9), top_k=st.integers(1, 9), temperature=st.floats(0.3, 8.0), seed=st.integers(0, 1000))
def test_the_mass_of_the_tail_is_kept(tmp_path_factory, dtype, classes, top_k, temperature, seed):
    """Of the softened distribution: the largest entries are exact, and the others share the rest alike."""
    logits = some_logits(5, classes, seed=seed)
    found = read(filled(tmp_path_factory.mktemp("cache"), logits, dtype, top_k, temperature))
    given_, kept = logits.to(getattr(torch, dtype)).float(), min(top_k, classes)
    largest = logits.topk(kept)
    assert torch.equal(found.gather(1, largest.indices), given_.gather(1, largest.indices))
    p, q = (logits / temperature).softmax(1).double(), (found / temperature).softmax(1).double()
    tolerance = DTYPES[dtype] * (1 + float(logits.abs().max())) / temperature + 1e-5
    assert (p.gather(1, largest.indices) - q.gather(1, largest.indices)).abs().max() < tolerance
    tail = q.scatter(1, largest.indices, 0.0)
    others = tail.masked_select(torch.ones_like(tail).scatter(1, largest.indices, 0.0).bool()).reshape(5, -1)
    if others.shape[1]:
        torch.testing.assert_close(others, others.mean(1, keepdim=True).expand_as(others))


def test_classes_that_are_ruled_out(tmp_path):
    """A teacher's -inf stays without mass, dense and top-k, and its entropy is a number."""
    logits = some_logits()
    logits[:, 2] = -torch.inf
    for name, top_k in (("dense", None), ("some", 3), ("all but", 6), ("all", 7)):
        found = read(filled(tmp_path / name, logits, top_k=top_k))
        assert not torch.isnan(found).any() and torch.isfinite(entropy(found)).all()
        if top_k != 3:
            assert (found.softmax(1)[:, 2] < 1e-6).all()


def test_what_does_not_count_reads_as_any_row(tmp_path):
    """Padding is sent to the spare row, which the files lack."""
    logits = some_logits()
    found = filled(tmp_path, logits).read(0, torch.tensor([3, 9, 0]), torch.device("cpu"))
    assert torch.equal(found[[0, 2]], logits[[3, 0]]) and torch.isfinite(found[1]).all()


def test_epochs_lie_apart(tmp_path):
    form = Form(4, 4, epochs=2)
    cache = TeacherCache.make(tmp_path, form, 3, PRINT)
    one, two = some_logits(4, 3), some_logits(4, 3, seed=1)
    cache.write(1, torch.arange(4), two), cache.mark(1, np.arange(4))
    assert cache.missing(0).tolist() == [0, 1, 2, 3] and cache.missing(1).tolist() == []
    cache.write(0, torch.tensor([2, 0]), one[[2, 0]]), cache.mark(0, np.array([2, 0]))
    again = TeacherCache.find(tmp_path, form, PRINT)
    assert again.missing(0).tolist() == [1, 3]
    assert torch.equal(read(again, 1), two) and torch.equal(read(again)[[0, 2]], one[[0, 2]])


def test_more_classes_than_two_bytes_number(tmp_path):
    logits = some_logits(2, 70_000)
    found = read(filled(tmp_path, logits, top_k=3))
    assert found.shape == logits.shape
    assert torch.equal(found.topk(3).indices, logits.topk(3).indices)


def broken(name, change):
    def spoil(folder):
        path = Path(folder, name)
        data = path.read_bytes()
        path.unlink()
        if change is not None:
            path.write_bytes(change(data))

    return spoil


BROKEN = {
    "short logits": (broken("logits.bin", lambda data: data[:-4]), ["logits.bin", "not whole"]),
    "long logits": (broken("logits.bin", lambda data: data + b"0"), ["logits.bin", "not whole"]),
    "no logits": (broken("logits.bin", None), ["logits.bin", "missing"]),
    "no marks": (broken("done.bin", None), ["done.bin", "missing"]),
    "no classes": (broken("classes.bin", None), ["classes.bin", "missing"]),
    "half a record": (broken("cache.json", lambda data: data[:40]), ["cache.json", "cannot be read"]),
    "no record of ours": (broken("cache.json", lambda data: b"[1, 2]"), ["cache.json", "cannot be read"]),
    "another record": (broken("cache.json", lambda data: b"{}"), ["cache.json", "cannot be read"]),
    "no text": (broken("cache.json", lambda data: b"\xff\xfe\x00\x81"), ["cache.json", "cannot be read"]),
    "a later version": (
        broken("cache.json", lambda data: json.dumps({**json.loads(data), "version": 99}).encode()),
        ["version 99"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_not_whole(runs, name):
    """Refused before the first step, naming the folder and the file."""
    settings = {"kd_cache_dir": runs + "-cache", "kd_cache_top_k": 2, "num_train_epochs": 1}
    distil(runs, teacher_for(), bert(), **settings)
    spoil, parts = BROKEN[name]
    spoil(runs + "-cache")
    refused(runs, teacher_for(), *parts, **settings)


# ---- a cached run is the live one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_steps_are_the_live_ones(tmp_path, task, k):
    """In float64 but for the logits, which are kept in float32; one step over a short window."""
    make, data, _ = TASKS[task]
    model, data, ends = sharpened(make(dropout=0.0)).double(), data(11), []
    for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):
        settings = {**KD, "kd_cache_dir": cache, "per_device_eval_batch_size": 3}
        teacher = teacher_for(task, double=True)
        trainer = run_task(str(tmp_path / "run"), task, k, copy.deepcopy(model), teacher, data, **settings)
        ends.append(weights(trainer))
    torch.testing.assert_close(ends[1], ends[0], atol=2e-6, rtol=1e-5)
    assert_same_tensors(ends[1], ends[2])


def shown(trainer):
    """What was logged, but for the clock and what upstream counts of the padding."""
    return [{k: v for k, v in log.items() if "runtime" not in k and "second" not in k and k != "total_flos"}
            for log in trainer.state.log_history]  # fmt: skip


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
@pytest.mark.parametrize("name", SETTINGS)
def test_composed_with_every_setting_and_resumed(tmp_path, name, cached):
    """Stopped and resumed, it ends bit by bit where the whole run ends; the places differ from row to row."""
    stop_at = [4, 3, 2, 5][list(SETTINGS).index(name) % 4]
    common = {**SETTINGS[name], "kd_weight": 0.7, "save_strategy": "steps", "save_steps": stop_at}
    if cached:
        common["kd_cache_dir"] = str(tmp_path / "cache")
    whole = distil(str(tmp_path / "whole"), teacher_for(), bert(), **common)
    distil(str(tmp_path / "parts"), teacher_for(), bert(), callbacks=[Steps(stop_at)], **common)
    rest = make_trainer(str(tmp_path / "parts"), bert(), None, taught(teacher_for()), **common)
    rest.train(resume_from_checkpoint=True)
    assert whole.state.global_step == rest.state.global_step > stop_at
    assert_same_tensors(weights(whole), weights(rest))
    assert whole.label_report().to_pandas().equals(rest.label_report().to_pandas())
    by_step = {log["step"]: log for log in shown(whole) if "kd/loss" in log}
    later = [log for log in shown(rest) if "kd/loss" in log and log["step"] > stop_at + 1]
    assert later and all(log == by_step[log["step"]] for log in later)


RESUMED = {
    "tokens": (bert_tokens, token_data, {"sat_start_epoch": 0.5, "sat_momentum": 0.5}),
    "no correction": (bert, text_data, {"label_correction": "none"}),
    "no correction, accumulating": (bert, text_data, {"label_correction": "none", "gradient_accumulation_steps": 2}),
}


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
@pytest.mark.parametrize("name", RESUMED)
def test_other_runs_resume_too(tmp_path, name, cached):
    make, data, settings = RESUMED[name]
    common = {**settings, "save_strategy": "steps", "save_steps": 5}
    common |= {"kd_cache_dir": str(tmp_path / "cache")} if cached else {}
    teacher = lambda: teacher_for("tokens" if name == "tokens" else "bert")  # noqa: E731
    whole = distil(str(tmp_path / "whole"), teacher(), make(), data(), **common)
    distil(str(tmp_path / "parts"), teacher(), make(), data(), callbacks=[Steps(5)], **common)
    rest = make_trainer(str(tmp_path / "parts"), make(), data(), taught(teacher()), kd_weight=0.5, **common)
    rest.train(resume_from_checkpoint=True)
    assert_same_tensors(weights(whole), weights(rest))


def test_a_run_stopped_live_goes_on_cached(tmp_path):
    """And ends where both would, to rounding: the cache is of the same logits."""
    common = {"save_strategy": "steps", "save_steps": 5, "label_correction": "none", **{**STEP, "num_train_epochs": 2}}
    common |= {"learning_rate": 0.05}
    whole = distil(str(tmp_path / "whole"), teacher_for(), bert(), **common)
    distil(str(tmp_path / "parts"), teacher_for(), bert(), callbacks=[Steps(5)], **common)
    rest = make_trainer(
        str(tmp_path / "parts"), bert(), None, taught(teacher_for()), kd_weight=0.5,
        kd_cache_dir=str(tmp_path / "cache"), **common,
    )  # fmt: skip
    rest.train(resume_from_checkpoint=True)
    torch.testing.assert_close(weights(whole), weights(rest), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_building_moves_no_random_number(tmp_path, dropout):
    """Without weight, the run that builds, the one that reads and the one without a teacher are one to the bit."""
    settings = {"sat_start_epoch": 0.5, "sat_momentum": 0.5}
    alone = make_trainer(str(tmp_path / "alone"), bert(dropout), **settings)
    alone.train()
    settings |= {"kd_weight": 0.0, "kd_cache_dir": str(tmp_path / "cache")}
    for part in ("builds", "reads"):
        trainer = distil(str(tmp_path / part), teacher_for(), bert(dropout), **settings)
        assert_same_tensors(weights(alone), weights(trainer))


class Asked(nn.Module):
    """A teacher that keeps count of the rows it was asked for."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.rows = model, model.config, 0

    def forward(self, input_ids, attention_mask=None):
        self.rows += len(input_ids)
        assert not self.model.training and not torch.is_grad_enabled()
        return self.model(input_ids, attention_mask)


def test_the_teacher_is_asked_once_for_each_example(runs):
    """In three epochs; a second run asks nothing. 45 is no multiple of the batch."""
    teacher = Asked(teacher_for())
    settings = {"kd_cache_dir": runs + "-cache", "data": text_data(45), "model": bert()}
    distil(runs, teacher, **settings)
    assert teacher.rows == 45 + 1  # one by which the number of classes is told
    distil(runs, teacher, **settings)
    assert teacher.rows == 46


@pytest.mark.parametrize("cached", [False, True])
def test_no_teacher_is_in_memory_while_a_cached_run_trains(tmp_path, cached):
    """One given by name is gone before the first step; without a cache it is there, once."""
    folder, seen = str(tmp_path / "teacher"), []
    teacher_for().save_pretrained(folder)

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            gc.collect()
            found = [it for it in gc.get_objects() if type(it) is BertForSequenceClassification]
            seen.append(sum(it.config._name_or_path == folder for it in found))

    cache = str(tmp_path / "cache") if cached else None
    distil(str(tmp_path / "run"), folder, bert(), kd_cache_dir=cache, max_steps=2, callbacks=[Look()])
    assert seen == ([0, 0] if cached else [1, 1])


@pytest.mark.parametrize("top_k, temperature", [(None, 2.0), (2, 3.0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forms_of_the_cache_in_a_run(tmp_path, dtype, top_k, temperature):
    """Near the live run: as near as the precision, or as the tail, of which the losses know the mass alone."""
    common = {**STEP, "kd_temperature": temperature, "learning_rate": 0.05}
    live = distil(str(tmp_path / "live"), teacher_for(), bert(), **common)
    settings = {"kd_cache_dir": str(tmp_path / "cache"), "kd_cache_top_k": top_k, "kd_cache_dtype": dtype}
    cached = distil(str(tmp_path / "cached"), teacher_for(), bert(), **common, **settings)
    tolerance = (1e-6 + DTYPES[dtype] / 10) if top_k is None else 0.05
    torch.testing.assert_close(weights(live), weights(cached), atol=tolerance, rtol=0.0)
    width = 4 if top_k is None else 3
    size = 48 * width * (4 if dtype == "float32" else 2)
    assert os.path.getsize(tmp_path / "cache" / "logits.bin") == size


def test_examples_without_a_label(tmp_path):
    """Sentences of -100 alone have no row in the cache, and cost nothing."""
    rows = [
        {**row, "labels": [-100] * len(row["labels"])} if i % 3 == 0 else row for i, row in enumerate(token_data(21))
    ]
    data, ends = datasets.Dataset.from_list(rows), []
    for cache in (None, str(tmp_path / "cache")):
        settings = {**STEP, "kd_cache_dir": cache, "per_device_train_batch_size": 7}
        trainer = distil(str(tmp_path / "run"), teacher_for("tokens"), bert_tokens(), data, **settings)
        ends.append(weights(trainer))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0.0)
    counted = sum(label != -100 for row in rows for label in row["labels"])
    assert os.path.getsize(tmp_path / "cache" / "logits.bin") == counted * CLASSES * 4


def test_no_example_has_a_label(runs):
    """As in the live run, there is nothing to learn, and no file of logits worth the name."""
    data = token_data(16).map(lambda row: {"labels": [-100] * len(row["labels"])})
    settings = {"kd_cache_dir": runs + "-cache", "label_correction": "none", "num_train_epochs": 1}
    assert distil(runs, teacher_for("tokens"), bert_tokens(), data, **settings).state.global_step == 2


def test_logits_that_the_precision_cannot_hold(runs):
    """Refused while the cache is made; as infinities they would be read as NaN losses."""
    teacher = teacher_for()
    with torch.no_grad():
        teacher.classifier.weight.mul_(1e6)
    for dtype, parts in (("float16", ["kd_cache_dtype='float16'", "float32"]), ("bfloat16", []), ("float32", [])):
        settings = {"kd_cache_dir": f"{runs}-{dtype}", "kd_cache_dtype": dtype, "num_train_epochs": 1}
        trainer = make_trainer(runs, bert(), None, taught(teacher), kd_weight=0.5, **settings)
        if not parts:
            trainer.train()
            continue
        with pytest.raises(ValueError, match=".*".join(parts)):
            trainer.train()


def test_a_teacher_that_gives_no_numbers(runs):
    teacher = teacher_for()
    with torch.no_grad():
        teacher.classifier.bias[0] = torch.nan
    trainer = make_trainer(runs, bert(), None, taught(teacher), kd_weight=0.5, kd_cache_dir=runs + "-cache")
    with pytest.raises(ValueError, match=r"teacher_model.*NaN.*kd_teacher_dtype"):
        trainer.train()


def test_a_file_in_the_place_of_the_folder(runs):
    Path(runs + "-cache").touch()
    refused(runs, teacher_for(), "name a folder", kd_cache_dir=runs + "-cache")


def test_a_path_names_the_folder_too(runs):
    distil(runs, teacher_for(), bert(), kd_cache_dir=Path(runs + "-cache"), num_train_epochs=1)
    assert os.path.exists(runs + "-cache/cache.json")


@pytest.mark.parametrize("order", ["as they stand", "shuffled"])
def test_ids_of_the_users(tmp_path, order):
    """The rows of the cache are those of the ids, whatever the order of the data."""
    key = np.random.default_rng(0).permutation(48) + 100 if order == "shuffled" else np.arange(48)
    data, ends = text_data().add_column("key", key.tolist()), []
    for cache in (None, str(tmp_path / "cache")):
        settings = {**STEP, "kd_cache_dir": cache, "sample_id_column": "key", "learning_rate": 0.05}
        ends.append(weights(distil(str(tmp_path / "run"), teacher_for(), bert(), data, **settings)))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("removes", [True, False])
def test_torch_data_sets_and_workers(tmp_path, workers, removes):
    settings = {"dataloader_num_workers": workers, "remove_unused_columns": removes, **STEP, "learning_rate": 0.05}
    data, ends = Items(text_data()), []
    for cache in (None, str(tmp_path / "cache")):
        ends.append(weights(distil(str(tmp_path / "run"), teacher_for(), bert(), data, kd_cache_dir=cache, **settings)))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0.0)


def test_own_columns_go_into_the_cache(tmp_path):
    made, inner = tokenizer(), teacher_for()
    data, ends = add_teacher_columns(raw_texts(), made, "text").remove_columns(["text"]), []
    for cache in (None, str(tmp_path / "cache")):
        settings = {**STEP, "kd_cache_dir": cache, "learning_rate": 0.05}
        ends.append(weights(distil(str(tmp_path / "run"), Translating(inner, made), bert(), data, **settings)))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0.0)
    other = add_teacher_columns(raw_texts(), tokenizer(shift=9), "text").remove_columns(["text"])
    settings = {"kd_cache_dir": str(tmp_path / "cache")}
    refused(str(tmp_path / "run"), Translating(inner, made), "the data", data=other, **settings)
