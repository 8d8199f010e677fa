"""Settings from a command line and a YAML file, read into dataclasses."""

import difflib
import json
import os
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..config import refuse
from .options_help import HelpAll, help_page

CONFIG_FLAG = "--config"
VARIABLE = "HF_SAT_"  # a setting in the environment: HF_SAT_LEARNING_RATE


class OptionParser(HfArgumentParser):
    """`HfArgumentParser` that reads `--config FILE.yaml` too, and raises `ValueError` where it is at a loss.

    Precedence, the last wins: defaults of the dataclasses, `presets`, the environment, the file, the command line.

    Args:
        dataclass_types: one or more dataclasses; their fields are the flags.

    Example:
        >>> from hf_sat import SATConfig
        >>> (args,) = OptionParser([SATConfig]).read(["--output_dir", "out", "--sat_momentum", "0.6"])
        >>> args.sat_momentum
        0.6
    """

    def __init__(self, dataclass_types: Sequence[type], **kwargs):
        # An abbreviation would hide a misspelt flag behind another.
        super().__init__(list(dataclass_types), allow_abbrev=False, **kwargs)
        self.add_argument(CONFIG_FLAG, help="YAML file of the same settings; flags on the command line win over it.")
        self.add_argument("--help_all", action=HelpAll, help="Show all settings, those of transformers too, and exit.")

    def read(
        self,
        argv: Sequence[str],
        presets: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> tuple:
        """The dataclasses, filled.

        Args:
            argv: command line without the program's name.
            presets: defaults of this program, by setting; weaker than anything the user says.
            environment: of the process; its `HF_SAT_<SETTING>` are read. None leaves it alone.

        Raises:
            ValueError: for an unknown setting (the nearest is named), a value of the wrong type, a file that is missing
                or is no mapping.
        """
        given = self.given_flags(argv, environment)
        parsed = self.parse_args_into_dataclasses(
            _as_flags(presets or {}, presets or {}) + given, return_remaining_strings=True, look_for_args_file=False
        )
        unknown = parsed[-1]
        if unknown:
            raise self._unknown(unknown[0].split("=")[0], " ".join(unknown))
        return parsed[: len(self.dataclass_types)]

    def given_flags(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """All that the user says as flags, the strongest last: environment, the file that `argv` names, `argv`."""
        path = first_look(argv, [])["config"]
        file = self._flags_of_file(path) if path else []
        return [*self._flags_of_environment(environment or {}), *file, *argv]

    def settings(self) -> list[str]:
        """The names of all settings."""
        return sorted({action.dest for action in self._actions} - {"help", "help_all", "config"})

    def format_help(self) -> str:
        """Called by argparse for `--help`."""
        return help_page(self)

    def error(self, message: str):
        """Called by argparse for a value of the wrong type; its usage, pages of flags, would hide the message."""
        raise ValueError(f"{message}; --help lists the settings.")

    def _flags_of_environment(self, environment: Mapping[str, str]) -> list[str]:
        flags = []
        lists = {action.dest for action in self._actions if action.nargs == "+"}
        for name, value in settings_in(environment).items():
            if name not in self.settings():
                raise self._unknown(name, f"{VARIABLE}{name.upper()}={value} (in the environment)")
            flags += [f"--{name}", *value.split()] if name in lists else [f"--{name}={value}"]
        return flags

    def _flags_of_file(self, path: str) -> list[str]:
        values, written = read_file(path)
        for name in values:
            if name not in self.settings():
                raise self._unknown(str(name), f"{name}: {values[name]} (in {path})")
        return _as_flags(values, written)

    def _unknown(self, name: str, found: str) -> ValueError:
        bare = name.lstrip("-").replace("-", "_")
        near = difflib.get_close_matches(bare, self.settings(), n=1)
        return ValueError(
            f"{found}: there is no such setting; {f'did you mean {near[0]!r}?' if near else '--help lists them.'}"
        )


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Example:
        >>> settings_in({"HF_SAT_LEARNING_RATE": "1e-4", "HF_SAT_SEED": "", "HOME": "x"})
        {'learning_rate': '1e-4'}
    """
    return {
        name[len(VARIABLE) :].lower(): value
        for name, value in sorted(environment.items())
        if name.startswith(VARIABLE) and value
    }


def first_look(argv: Sequence[str], names: Sequence[str]) -> dict[str, str | None]:
    """Some settings of a command line as they are written, and "config", before it is known which others there are.

    Example:
        >>> first_look(["--lora", "--seed", "1"], ["lora", "task"])
        {'config': None, 'lora': 'true', 'task': None}
    """
    pointer = _Pointer(add_help=False, allow_abbrev=False)
    for name in ("config", *names):
        pointer.add_argument(f"--{name}", nargs="?", const="true")
    return vars(pointer.parse_known_args(list(argv))[0])


class _Pointer(ArgumentParser):
    def error(self, message: str):
        raise ValueError(message)


def read_file(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a YAML file: what they mean, and the same as strings.

    Raises:
        ValueError: for a file that is missing, cannot be read, or is no mapping.
    """
    if not os.path.isfile(path):
        raise refuse("config", path, "there is no such file; give the path of a YAML file.")
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
        values = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise refuse("config", path, f"it is no YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise refuse("config", path, f"the file holds a {type(values).__name__}; write `setting: value` lines.")
    return values, yaml.load(content, Loader=yaml.BaseLoader)


def _as_flags(values: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    """Settings as command-line flags, so that argparse converts them; None leaves a setting as it is.

    Args:
        values: what the settings mean; tells lists, mappings and None apart.
        written: the same as strings, where they were read from a file: YAML takes `save_strategy: no` for False.
    """
    flags = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            flags += [f"--{name}", *map(str, written[name])]
        elif isinstance(value, dict):
            flags.append(f"--{name}={json.dumps(value)}")
        else:
            flags.append(f"--{name}={written[name]}")
    return flags
