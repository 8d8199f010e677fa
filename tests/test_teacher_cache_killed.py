"""A build of the teacher's cache that is killed or broken off, and goes on without asking again.

This file is also the script that is killed.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distillation_runs import distil, teacher_for
from small import bert, text_data
from teacher_cache_runs import Keyed, contents
from torch import nn

import hf_sat.trainer.cached_teacher as cached_teacher


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
