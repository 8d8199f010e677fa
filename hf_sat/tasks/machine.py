"""What a run needs of the machine: packages, and all its cores."""

import importlib.util
import os

import psutil
import torch

MOST_THREADS = 8  # batches of short texts gain nothing from more
LOOK_FOR = 0.5  # seconds
INSTALLED_AS = {"PIL": "pillow", "sklearn": "scikit-learn"}


def require(package: str, extra: str) -> str:
    """Refuse before training what would be missed after it; returns the package's folder, nothing is imported.

    Args:
        package: name it is imported by.
        extra: the extra of hf_sat that brings it.

    Raises:
        ModuleNotFoundError: naming the `pip install` that helps.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        name = INSTALLED_AS.get(package, package.replace("_", "-"))
        raise ModuleNotFoundError(f"{package} is missing: pip install {name}, or hf_sat with the extra [{extra}].")
    return os.path.dirname(spec.origin)


def use_all_cores() -> None:
    """Take the cores that `accelerate launch` leaves idle: without a GPU it gives each process one thread.

    `OMP_NUM_THREADS` other than 1 is left as it is.
    """
    if torch.cuda.is_available() or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(max(1, min(MOST_THREADS, num_cores() // processes)))


def use_idle_cores() -> None:
    """As many threads as cores are idle: on a busy core each operation waits for the slowest thread, up to 30 times."""
    use_all_cores()
    torch.set_num_threads(max(1, min(torch.get_num_threads(), num_idle_cores())))


def num_idle_cores() -> int:
    """What others leave of the cores just now, in whole cores; all of them where the system does not tell.

    Not by the load average, in which work that ended a minute ago still counts.
    """
    try:
        load = psutil.cpu_percent(interval=LOOK_FOR, percpu=True)
    except (OSError, RuntimeError):  # a sandbox may hide the counters
        return num_cores()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(load))
    return round(sum(1 - share / 100 for core, share in enumerate(load) if core in allowed))


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
