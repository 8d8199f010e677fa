"""The cache of a teacher's logits: what it holds, what it is bound to, and how it goes on after a kill.

Protects: dense and top-k rows in every precision, and the mass of the tail; a cached run that is the live one, whole
and resumed, under every row of the settings table; no teacher in memory; a build that is killed and goes on without
asking again; fingerprints that tell another teacher, other data and other preprocessing by name; views that differ from
epoch to epoch. This file is also the script that is killed.
"""

import copy
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from settings import SETTINGS
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
from test_distillation import KD, STEP, TASKS, Items, distil, run_task, sharpened, taught, teacher_for
from torch import nn
from transformers import BertForSequenceClassification, TrainerCallback

import hf_sat.trainer.cached_teacher as cached_teacher
from hf_sat.fingerprints import _add_column, of_data, of_models, of_preprocessing
from hf_sat.methods.distillation import entropy
from hf_sat.teacher_cache import Form, TeacherCache

# ---- the script that is killed --------------------------------------------------------------------------------------


class Slow(nn.Module):
    """A teacher that takes its time and writes down how many rows it was asked for."""

    def __init__(self, model, log, seconds=0.0):
        super().__init__()
        self.model, self.config, self.log, self.seconds = model, model.config, log, seconds

    def forward(self, input_ids, attention_mask=None):
        time.sleep(self.seconds)
        with open(self.log, "a") as file:
            file.write(f"{len(input_ids)}\n")
        return self.model(input_ids, attention_mask)


def asked(folder):
    """Rows the teacher of the script was asked for so far."""
    return sum(map(int, Path(folder, "asked").read_text().split()))


def done(folder):
    """Examples whose logits are there, by the file."""
    file = Path(folder, "cache", "done.bin")
    return sum(file.read_bytes()) if file.exists() else 0


def build(folder, seconds, per_epoch=False):
    """A run over 40 examples whose cache is built in ten batches, each marked as soon as it is there."""
    cached_teacher.SECONDS_BETWEEN_MARKS = 0.0
    slow = Slow(teacher_for(), os.path.join(folder, "asked"), seconds)
    settings = {"kd_cache_dir": os.path.join(folder, "cache"), "per_device_eval_batch_size": 4}
    settings |= {"max_steps": 1, "label_correction": "none"}
    return distil(os.path.join(folder, "run"), slow, bert(), text_data(40), **settings)


if __name__ == "__main__":
    torch.set_num_threads(1)
    build(sys.argv[1], float(sys.argv[2]))
    sys.exit()


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on(tmp_path):
    """Killed three times at other places, it ends with the same bytes, and rows that were done are not asked again."""
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    os.makedirs(whole), os.makedirs(killed)
    build(whole, 0.0)
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([here, os.path.dirname(here), env.get("PYTHONPATH", "")])
    for goal in (4, 12, 28):
        worker = subprocess.Popen([sys.executable, os.path.abspath(__file__), killed, "0.3"], env=env)
        while worker.poll() is None and done(killed) < goal:
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert goal <= done(killed) < 40, "the build was not cut"
    left, before = 40 - done(killed), asked(killed)
    trainer = build(killed, 0.0)
    assert asked(killed) - before == left
    assert contents(os.path.join(killed, "cache")) == contents(os.path.join(whole, "cache"))
    assert trainer.state.global_step == 1


class Failing(nn.Module):
    """A teacher that fails after some batches, and says which rows it was asked for."""

    def __init__(self, batches):
        super().__init__()
        self.model, self.batches, self.sizes = teacher_for(), batches, []
        self.config = self.model.config

    def forward(self, input_ids, attention_mask=None):
        if len(self.sizes) == self.batches:
            raise KeyboardInterrupt
        self.sizes.append(len(input_ids))
        return self.model(input_ids, attention_mask)


def with_ids():
    """Whose ids are in another order than the rows."""
    ids = np.random.default_rng(0).permutation(20)
    return text_data(20).add_column("key", ids.tolist())


BUILDS = {
    "dense": (lambda: text_data(20), {}),
    "top two": (lambda: text_data(20), {"kd_cache_top_k": 2}),
    "by epoch": (lambda: Keyed(), {"kd_cache_per_epoch": True}),
    "ids": (with_ids, {"sample_id_column": "key"}),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_that_is_broken_off_goes_on(tmp_path, monkeypatch, name):
    """Of 20 examples by eights and fours; by epoch the second one is broken off."""
    monkeypatch.setattr(cached_teacher, "SECONDS_BETWEEN_MARKS", 0.0)
    make, settings = BUILDS[name]
    per_epoch, settings = name == "by epoch", {**settings, "num_train_epochs": 2, "label_correction": "none"}
    settings["data"] = make()
    whole, parts = ({**settings, "kd_cache_dir": str(tmp_path / part)} for part in ("whole", "parts"))
    distil(str(tmp_path / "run"), Failing(99), bert(), **whole)
    with pytest.raises(KeyboardInterrupt):
        distil(str(tmp_path / "run"), Failing(6 if per_epoch else 3), bert(), **parts)
    rest = Failing(99)
    distil(str(tmp_path / "run"), rest, bert(), **parts)
    assert rest.sizes == [4]
    assert contents(parts["kd_cache_dir"]) == contents(whole["kd_cache_dir"])


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


def refused(folder, teacher, *parts, model=None, data=None, collator=pad, **settings):
    """The run is refused before its first step, with a message that names all parts in order."""
    trainer = make_trainer(folder, model or bert(), data, taught(teacher), collator, **{"kd_weight": 0.5, **settings})
    before = weights(trainer)
    with pytest.raises(ValueError, match="(?s)kd_cache_dir.*" + ".*".join(parts)):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    assert trainer.state.global_step == 0


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
    from test_teacher import Translating, add_teacher_columns, raw_texts, tokenizer

    made, inner = tokenizer(), teacher_for()
    data, ends = add_teacher_columns(raw_texts(), made, "text").remove_columns(["text"]), []
    for cache in (None, str(tmp_path / "cache")):
        settings = {**STEP, "kd_cache_dir": cache, "learning_rate": 0.05}
        ends.append(weights(distil(str(tmp_path / "run"), Translating(inner, made), bert(), data, **settings)))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0.0)
    other = add_teacher_columns(raw_texts(), tokenizer(shift=9), "text").remove_columns(["text"])
    settings = {"kd_cache_dir": str(tmp_path / "cache")}
    refused(str(tmp_path / "run"), Translating(inner, made), "the data", data=other, **settings)


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


class Keyed(torch.utils.data.Dataset):
    """Another view of each example in each epoch, by the epoch and its number."""

    def __init__(self, n=20):
        self.rows, self.epoch = list(text_data(n)), 0

    def __len__(self):
        return len(self.rows)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, i):
        ids = np.random.default_rng((self.epoch, i)).permutation(self.rows[i]["input_ids"]).tolist()
        return {**self.rows[i], "input_ids": ids}


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
