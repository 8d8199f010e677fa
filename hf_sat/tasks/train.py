"""`hf-sat train`, and the recipes that call it: any task, with or without adapters, from one command line."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from ..cli import exit_status
from ..config import SATConfig, refuse
from .compare import compare
from .lora import LORA_OFFLINE, LORA_OWN_DATA, LoraOptions, with_adapters
from .machine import use_all_cores
from .options import first_look, read_file, settings_in
from .results import Result
from .run import Task
from .run_options import RunOptions, read_run_options


@dataclass(frozen=True)
class TaskModule:
    """Where a task is written.

    Args:
        module: beside this one; it has `OFFLINE` and `OWN_DATA`, the defaults without and with data of the user's.
        options: in it, its dataclass of options, a `RunOptions`.
        make_task: in it, a function of these options and the `SATConfig` that gives the `Task`.
    """

    module: str
    options: str
    make_task: str

    def load(self) -> ModuleType:
        """The module, imported late: each brings libraries that the others do without."""
        return importlib.import_module(f".{self.module}", __package__)


TASKS = {
    "text": TaskModule("text", "TextOptions", "text_task"),
    "image": TaskModule("images", "ImageOptions", "image_task"),
    "tokens": TaskModule("tokens", "TokenOptions", "token_task"),
}


@dataclass
class TrainOptions:
    """Which task is trained.

    Args:
        task: classification of texts, images or tokens; it decides which further settings there are.
    """

    HELP_GROUP = "data and model"  # of `--help`

    task: Literal["text", "image", "tokens"] = field(
        default="text", metadata={"help": "What is classified: text, image or tokens."}
    )


def run_recipe(command: Sequence[str], **presets: Any) -> int:
    """The whole of a recipe: [`train`], with an exit status.

    Args:
        command: the command line, the program's name included.
        presets: defaults of the recipe, such as `task="text"`; weaker than anything the user says.

    Returns:
        0, or 2 for what cannot be done as asked, which is said in a line.
    """
    program = os.path.basename(command[0])
    return exit_status(program, lambda: train(command[1:], program, presets))


def train(argv: Sequence[str], program: str = "hf-sat train", presets: Mapping[str, Any] | None = None) -> list[Result]:
    """Train as a command line says, and print the table; see [`compare`] for what is left in the folder.

    Args:
        argv: a YAML file of settings, if any, and flags; flags win.
        program: its name in `--help`.
        presets: defaults by setting, weaker than anything the user says.

    Raises:
        ModuleNotFoundError: before training, for packages that are missing.
        ValueError: before training, for settings, files, columns, labels and models that cannot be used.
    """
    argv, presets = _with_config_flag(argv), dict(presets or {})
    name, has_adapters = _task_and_adapters(argv, presets)
    known = TASKS[name]
    module = known.load()
    kinds = [TrainOptions, getattr(module, known.options), LoraOptions]
    offline, own_data = (
        {**defaults, **(of_adapters if has_adapters else {}), **presets}
        for defaults, of_adapters in ((module.OFFLINE, LORA_OFFLINE), (module.OWN_DATA, LORA_OWN_DATA))
    )
    usage = f"{program} [FILE.yaml] [--setting value ...]"
    _, options, lora, args = read_run_options(argv, kinds, offline, own_data, prog=program, usage=usage)
    _refuse_folder(args.output_dir)
    task = _loaded(getattr(module, known.make_task), options, args)
    if task.all_cores:
        use_all_cores()
    if lora.lora:
        task = with_adapters(task, lora, says=args.process_index == 0)
    return compare(task, args, with_plain=options.compare)


def _loaded(make_task: Callable, options: RunOptions, args: SATConfig) -> Task:
    """The task; what the libraries that load model and data cannot find is refused as the rest is."""
    try:
        return make_task(options, args)
    except OSError as error:
        given = {name: getattr(options, name) for name in ("model_name_or_path", "dataset_name")}
        named = ", ".join(f"{name}={value!r}" for name, value in given.items() if value)
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{named or 'model and data'}: {reason} (A folder must exist; a name of the Hub needs the network, or its "
            "files in the cache.)"
        ) from error


def _refuse_folder(folder: str) -> None:
    """Before training, not at its first checkpoint."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise refuse("output_dir", folder, f"it cannot be made ({error.strerror}); name a folder.") from None
    if not os.access(folder, os.W_OK):
        raise refuse("output_dir", folder, "nothing can be written there; name another folder.")


def _with_config_flag(argv: Sequence[str]) -> list[str]:
    """`train run.yaml --seed 1` means `train --config run.yaml --seed 1`."""
    if not argv or argv[0].startswith("-"):
        return list(argv)
    file, *flags = argv
    if (other := first_look(flags, [])["config"]) is not None:
        raise refuse("config", other, f"the file {file!r} is given too; leave one out.")
    return ["--config", file, *flags]


def _task_and_adapters(argv: Sequence[str], presets: Mapping[str, Any]) -> tuple[str, bool]:
    """The two settings on which others and their defaults depend."""
    flags = first_look(argv, ["task", "lora"])
    file = read_file(flags["config"])[1] if flags["config"] else {}
    found = {**presets, **settings_in(os.environ), **file, **{k: v for k, v in flags.items() if v is not None}}
    name = found.get("task", "text")
    if name not in TASKS:
        raise refuse("task", name, f"choose one of {', '.join(TASKS)}.")
    return name, str(found.get("lora", False)).lower() in ("true", "yes", "t", "y", "1")
