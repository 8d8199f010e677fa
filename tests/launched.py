"""Scripts on two processes: how tests launch them, and how the scripts end."""

import os
import subprocess
import sys

from accelerate import PartialState

TWO_PROCESSES = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]


def launch(script: str, *arguments: str, use_cpu: bool = True) -> subprocess.CompletedProcess:
    """Run a script on two processes, which find the tests' modules and this checkout's package."""
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-m", "accelerate.commands.launch", *TWO_PROCESSES, "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", os.path.abspath(script), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    env.pop("ACCELERATE_USE_CPU", None)
    if use_cpu:
        env["ACCELERATE_USE_CPU"] = "true"
    env["PYTHONPATH"] = os.pathsep.join([here, os.path.dirname(here), env.get("PYTHONPATH", "")])
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)


def assert_succeeded(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def leave() -> None:
    """End a launched script; a worker thread of gloo that still holds a tensor then would abort the interpreter."""
    PartialState().destroy_process_group()
    sys.exit()
