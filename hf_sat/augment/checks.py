"""What augmentation refuses. Apart from hf_sat.config, whose import brings transformers along."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def refuse(setting: str, value: Any, way_out: str) -> ValueError:
    """The one form in which hf_sat refuses something: what was set, to what, and the way out."""
    return ValueError(f"{setting}={value!r}: {way_out}")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; True and False are not meant as numbers."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def checked_rate(name: str, rate: Any) -> float:
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate <= 1:
        raise refuse(name, rate, "give the expected share of words changed, a number from 0 to 1.")
    return float(rate)


def checked_texts(texts: Any) -> list[str]:
    """A list of the texts of a sequence or column.

    Raises:
        ValueError: it is none, or holds something else; names the row.
    """
    if isinstance(texts, (bytes, dict)) or not isinstance(texts, Iterable):
        raise refuse("texts", texts, "give a string or a list of strings.")
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"row {row} is {text!r} of type {type(text).__name__}, not a string; drop such rows first, as in "
                "dataset.filter(lambda row: row['text'] is not None)."
            )
    return texts


def checked_seed(seed: Any) -> int:
    if not is_whole(seed):
        raise refuse("seed", seed, "give a whole number.")
    return int(seed)


def one_each(setting: str, values: Any, size: int) -> list:
    """Values as a list, of which there must be `size`."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise refuse(setting, values, f"give a list of {size}, one for each.")
    values = list(values)
    if len(values) != size:
        raise refuse(setting, f"{len(values)} of them", f"give {size}, one for each.")
    return values


def checked_words(words: Any) -> list[str] | None:
    if words is None:
        return None
    words = [] if isinstance(words, str) else list(words)
    if not words or not all(isinstance(word, str) and word for word in words):
        raise refuse("insertion_words", words, "give a list of words, or None for the text's own.")
    return words
