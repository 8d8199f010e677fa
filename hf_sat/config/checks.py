"""How settings are read and refused: the message names setting, value and the way out."""

import math
import numbers
from typing import Any

import torch

AUTO = "auto"


def refuse(setting: str, value: Any, way_out: str) -> ValueError:
    """The one form in which hf_sat refuses something: what was set, to what, and the way out."""
    return ValueError(f"{setting}={value!r}: {way_out}")


def number_or_auto(setting: str, value: Any, low: float, high: float, what: str) -> float | str:
    """Read a setting that is "auto" or a number in `[low, high)`, `what`; command lines and YAML pass strings."""
    if value == AUTO:
        return AUTO
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise refuse(setting, value, f'give {what} or "auto".') from None
    if not low <= number < high:
        raise refuse(setting, value, f'give {what} or "auto".')
    return number


def count_or_auto(setting: str, value: Any) -> int | str:
    """Read a setting that is "auto" or a whole number >= 0; command lines and YAML pass strings."""
    what = "a whole number >= 0"
    number = number_or_auto(setting, value, 0, math.inf, what)
    if number == AUTO:
        return AUTO
    if number != int(number):
        raise refuse(setting, value, f'give {what} or "auto".')
    return int(number)


def is_a(value: Any, kind: type) -> bool:
    """Whether a number is of a kind; True and False are not meant as numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def count_or_none(setting: str, value: Any, meaning: str) -> None:
    if value is not None and not (is_a(value, numbers.Integral) and value >= 1):
        raise refuse(setting, value, f"give {meaning}, a whole number >= 1.")


def device_or_auto(setting: str, value: Any) -> None:
    try:
        # A number names a device only to a torch that was built for an accelerator.
        known = value == AUTO or (not isinstance(value, int) and torch.device(value) is not None)
    except (RuntimeError, TypeError):
        known = False
    if not known:
        raise refuse(setting, value, 'give a device such as "cpu" or "cuda:0", or "auto".')


def one_of(setting: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise refuse(setting, value, f"choose one of {', '.join(map(repr, choices))}.")
