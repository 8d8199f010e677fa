"""What a run needs of the machine: packages, and all its cores."""

import importlib.util
import os

import torch

MOST_THREADS = 8  # batches of short texts gain nothing from more
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


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
