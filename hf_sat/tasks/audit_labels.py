"""From the labels of a table to classes."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from .label_slips import folded, slips

MISSING = ("", "nan", "NaN", "<NA>", "#N/A")
FEW_OF_A_CLASS = 5


def classes_of_rows(
    values: list[Any], known: list[str] | None, column: str, merge_case: bool, warnings: list[str]
) -> list[str | None]:
    """The class of every row; None without a label.

    Args:
        values: of the column.
        known: names of the classes, where the values are their numbers.
        merge_case: take spellings that differ in case or outer spaces as one class.
        warnings: what is to be told is added.

    Raises:
        ValueError: for values that are no classes.

    Example:
        >>> classes_of_rows([1.0, None, 0.0], None, "label", False, [])
        ['1', None, '0']
    """
    keys = [_key(value, known) for value in values]
    return _spellings(keys if known else _whole(keys, column), merge_case, warnings)


def _key(value: Any, known: list[str] | None) -> str | None:
    """A label as text; None for a missing one."""
    if isinstance(value, (list, dict, bytes)):
        raise ValueError(f"--label: a label is {value!r}; an audit takes one class a row, a word or a whole number.")
    if value is None or value != value or str(value).strip() in MISSING:
        return None
    if known is not None:
        return known[int(value)] if 0 <= int(value) < len(known) else None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _whole(keys: list[str | None], column: str) -> list[str | None]:
    """Labels that are numbers throughout, as whole ones: 1.0 is 1."""
    try:
        numbers = {key: float(key) for key in set(keys) if key is not None}
    except ValueError:
        return keys
    wrong = next((key for key in keys if key is not None and not numbers[key].is_integer()), None)
    if wrong is not None:
        raise ValueError(f"--label {column!r}: it holds {wrong}; classes are words or whole numbers, no measurements.")
    return [None if key is None else str(int(numbers[key])) for key in keys]


def _spellings(keys: list[str | None], merge: bool, warnings: list[str]) -> list[str | None]:
    """Tell of labels that differ in case or outer spaces alone, and take them as one where that is asked for."""
    spellings = defaultdict(Counter)
    for key in keys:
        if key is not None:
            spellings[folded(key)][key] += 1
    several = [count for count in spellings.values() if len(count) > 1]
    if not several:
        return keys
    shown = "; ".join(", ".join(f"{key!r} ({n})" for key, n in count.most_common()) for count in several[:5])
    what = "are taken as one" if merge else "count as classes of their own; --merge-case takes them as one"
    warnings.append(f"labels that differ in case or spaces alone {what}: {shown}.")
    if not merge:
        return keys
    usual = {folded: count.most_common(1)[0][0] for folded, count in spellings.items()}
    return [None if key is None else usual[folded(key)] for key in keys]


def class_names(keys: list[str], known: list[str] | None, column: str) -> list[str]:
    """The classes in order, numbers by size.

    Raises:
        ValueError: for one class, or about as many as rows.
    """
    found = set(keys)
    if len(found) == 1:
        raise ValueError(
            f"--label {column!r}: every row has the label {keys[0]!r}; an audit needs two classes at least."
        )
    if known is not None:
        return list(known)
    if len(found) > max(20, len(keys) // 2):
        raise ValueError(f"--label {column!r}: {len(found)} classes in {len(keys)} rows; is another column meant?")
    return sorted(found, key=lambda key: (0, int(key), "") if key.lstrip("-").isdecimal() else (1, 0, key))


def written_forms(values: list, labels: np.ndarray, num_classes: int) -> list[Any]:
    """How each class stands in the table most often."""
    forms = [Counter() for _ in range(num_classes)]
    for value, label in zip(values, labels.tolist()):
        forms[label][value] += 1
    return [form.most_common(1)[0][0] if form else None for form in forms]


def warn_of_few(labels: np.ndarray, names: list[str], warnings: list[str]) -> None:
    """Name the classes that have hardly a row."""
    counts = np.bincount(labels, minlength=len(names))
    few = [f"{names[k]!r} ({counts[k]})" for k in np.flatnonzero((counts > 0) & (counts < FEW_OF_A_CLASS))]
    if few:
        warnings.append(f"classes with less than {FEW_OF_A_CLASS} rows are hard to judge: {', '.join(few[:10])}.")


def warn_of_slips(keys: list[str], warnings: list[str]) -> None:
    """Name the rare classes that read like a usual one, misspelt; those in other case are told where they are found."""
    found = [f"{name!r} ({meant!r}?)" for name, meant in slips(keys).items() if folded(name) != folded(meant)]
    if found:
        warnings.append(f"labels that read like another one, misspelt: {', '.join(found[:10])}.")
