"""Models of an offline step: loaded, fed, and mapped over a data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import datasets
import torch
from datasets.fingerprint import generate_random_fingerprint
from transformers import AutoTokenizer, PreTrainedModel

from .checks import checked_texts, refuse

Model = str | os.PathLike | PreTrainedModel


def tokens_of(model: PreTrainedModel, tokenizer: Any, texts: list[str]) -> Any:
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**6)
    room = {"truncation": True, "max_length": longest} if longest < 10**6 else {}
    tokens = tokenizer(texts, return_tensors="pt", padding=True, **room).to(model.device)
    if not hasattr(model.config, "type_vocab_size"):
        tokens.pop("token_type_ids", None)
    return tokens


def loaded(kind: Any, model: Model, tokenizer: Any, device: Any) -> tuple[PreTrainedModel, Any]:
    name = model if isinstance(model, (str, os.PathLike)) else model.config.name_or_path
    if tokenizer is None and not name:
        raise refuse("tokenizer", None, "a model that was not loaded from a folder needs its tokenizer beside it.")
    if isinstance(model, (str, os.PathLike)):
        model = kind.from_pretrained(model)
    if tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = AutoTokenizer.from_pretrained(name if tokenizer is None else tokenizer)
    there = device if device is not None else "cuda" if torch.cuda.is_available() else model.device
    return model.eval().to(there), tokenizer


def check_column(dataset: Any, column: str) -> None:
    if not isinstance(dataset, datasets.Dataset):
        raise refuse("dataset", type(dataset).__name__, "give one split, as datasets.Dataset.")
    if column not in dataset.column_names:
        raise refuse("column", column, f"the data set has the columns {dataset.column_names}.")
    if f"original_{column}" in dataset.column_names:
        raise refuse("column", column, f"it is augmented already; remove_columns('original_{column}') first.")


def mapped(dataset: datasets.Dataset, column: str, change: Callable, batch_size: int, what: str) -> datasets.Dataset:
    def augment(batch: dict, rows: list[int]) -> dict:
        try:
            texts = checked_texts(batch[column])
        except ValueError as error:
            raise ValueError(f"column {column!r}, from row {rows[0]} on: {error}") from None
        return {f"original_{column}": texts, column: change(texts, rows)}

    # A name of its own: hashing the models would take longer than to run them, and nothing is to be reused.
    return dataset.map(
        augment,
        with_indices=True,
        batched=True,
        batch_size=batch_size,
        desc=what,
        new_fingerprint=generate_random_fingerprint(),
    )
