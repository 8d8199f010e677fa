"""A real process, killed at random times and resumed, ends bit by bit where one ends that nobody killed.

Protects: weights, soft targets and report after SIGKILL anywhere, in the middle of writing a checkpoint too, and after
SIGTERM with a just-in-time checkpoint. `KILL_TESTS` sets how many times (10), `KILL_TEST_SEED` when.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from kill_worker import checkpoints, is_complete
from safetensors.torch import load_file
from small import assert_same_tensors

from hf_sat.state import STATE_FILE

KILLS = int(os.environ.get("KILL_TESTS", "10"))
SEED = int(os.environ.get("KILL_TEST_SEED", "0"))
HERE = os.path.dirname(os.path.abspath(__file__))
STEPS_A_KILL = 12

pytestmark = pytest.mark.slow


def start(folder: str, epochs: int, settings: dict) -> subprocess.Popen:
    """A worker that has taken its first step, or has ended."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([HERE, os.path.dirname(HERE), env.get("PYTHONPATH", "")])
    command = [sys.executable, os.path.join(HERE, "kill_worker.py"), folder, str(epochs), json.dumps(settings)]
    with open(f"{folder}.log", "a") as log:
        worker = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    while worker.poll() is None and not os.path.exists(f"{folder}.running"):
        time.sleep(0.005)
    if os.path.exists(f"{folder}.running"):
        os.remove(f"{folder}.running")
    return worker


def finish(worker: subprocess.Popen, folder: str) -> None:
    if worker.wait(timeout=300) != 0:
        with open(f"{folder}.log") as log:
            pytest.fail(log.read()[-3000:])


def end(folder: str) -> tuple[dict, dict, dict]:
    left = torch.load(f"{folder}.end")
    return left["weights"], left["report"], load_file(os.path.join(checkpoints(folder)[-1], STATE_FILE))


def assert_same_end(one: str, other: str) -> None:
    (weights, report, state), (other_weights, other_report, other_state) = end(one), end(other)
    assert_same_tensors(weights, other_weights)
    assert_same_tensors(state, other_state)
    assert report == other_report


@pytest.mark.parametrize("momentum", [0.5, "auto"])
def test_kill_9(tmp_path, momentum):
    epochs = max(4, KILLS * STEPS_A_KILL // 3)  # three steps an epoch
    settings = {"sat_momentum": momentum, "sat_start_epoch": 1.5 if momentum != "auto" else "auto"}
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    worker, begun = start(whole, epochs, settings), time.monotonic()
    finish(worker, whole)
    duration, draw = time.monotonic() - begun, random.Random(SEED)
    kills, torn, stages = 0, 0, set()
    while kills < KILLS:
        worker = start(killed, epochs, settings)
        time.sleep(draw.uniform(0.0, 1.5 * duration / KILLS))
        if worker.poll() is not None:
            break
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        kills += 1
        left = checkpoints(killed)
        torn += any(not is_complete(checkpoint) for checkpoint in left)
        stages.add(os.path.basename(left[-1]) if left else None)
    finish(start(killed, epochs, settings), killed)
    print(f"{kills} kills, {torn} of them in the middle of a checkpoint, at {len(stages)} different steps")
    assert kills >= KILLS // 2 and len(stages) > 1
    assert_same_end(whole, killed)
    assert len(checkpoints(killed)) <= 3  # the limit, and one that a kill left incomplete


def test_sigterm_leaves_a_checkpoint_just_in_time(tmp_path):
    """Upstream waits three seconds before it saves."""
    settings = {"enable_jit_checkpoint": True, "save_strategy": "no"}
    whole, ended = str(tmp_path / "whole"), str(tmp_path / "ended")
    worker = start(whole, 20, {**settings, "save_strategy": "steps", "save_steps": 60})
    finish(worker, whole)
    slow, draw, stops = {**settings, "seconds_a_step": 0.2}, random.Random(SEED), []
    for _ in range(2):
        worker = start(ended, 20, slow)
        time.sleep(draw.uniform(0.0, 0.5))
        worker.send_signal(signal.SIGTERM)
        finish(worker, ended)
        assert is_complete(checkpoints(ended)[-1])
        stops.append(os.path.basename(checkpoints(ended)[-1]))
        assert not os.path.exists(f"{ended}.end")
    assert len(set(stops)) == 2
    finish(start(ended, 20, {**settings, "save_strategy": "steps", "save_steps": 60}), ended)
    assert_same_end(whole, ended)
