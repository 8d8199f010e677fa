"""`hf-sat env`: versions and devices, for bug reports. It names no user, no machine and no folder."""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__

LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "peft",
    "bitsandbytes",
    "evaluate",
    "nlpaug",
    "optuna",
    "pillow",
    "torchvision",
    "rich",
)
# Of accelerate's default configuration; the rest may hold addresses and paths.
ACCELERATE = (
    "compute_environment",
    "distributed_type",
    "mixed_precision",
    "num_machines",
    "num_processes",
    "use_cpu",
    "downcast_bf16",
)
# Their values are numbers or switches; of all others not even the name is told.
VARIABLES = ("OMP_NUM_THREADS", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")


def environment() -> dict[str, Any]:
    """What a bug report should say of the machine, by name."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "hf_sat": __version__,  # of what runs, which need not be what is installed
        **{name: _version(name) for name in LIBRARIES},
        "torch devices": _or_why_not(_devices),
        "accelerate configuration": _or_why_not(_accelerate_configuration),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def environment_command(argv: Sequence[str]) -> None:
    """`hf-sat env [--json]`: prints [`environment`].

    Raises:
        ValueError: for another flag.
    """
    parser = argparse.ArgumentParser("hf-sat env", description="Versions and devices, for bug reports.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a line each")
    options, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise ValueError(f"{unknown[0]}: there is no such flag; did you mean --json?")
    found = environment()
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:<26}{_in_words(value)}")


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _or_why_not(look: Callable[[], Any]) -> Any:
    """A report of a broken installation says what is broken, but not in which folder."""
    try:
        return look()
    except Exception as error:
        return f"cannot be told: {type(error).__name__}"


def _devices() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"threads": torch.get_num_threads(), "cuda build": torch.version.cuda}
    found["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["mps"] = torch.backends.mps.is_available()
    if torch.cuda.is_available():
        found["bfloat16"] = torch.cuda.is_bf16_supported()
    return found


def _accelerate_configuration() -> dict[str, Any] | None:
    """What `accelerate config` has left, if anything."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if not os.path.isfile(default_config_file):
        return None
    config = load_config_from_file(default_config_file)
    return {name: str(getattr(config, name)) for name in ACCELERATE if hasattr(config, name)}


def _in_words(value: Any) -> str:
    """
    Example:
        >>> _in_words({"threads": 2, "cuda": [], "mps": None})
        'threads 2, cuda -, mps -'
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)
