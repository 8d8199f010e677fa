"""How fast models answer, measured side by side."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

WARM_UP, ROUNDS = 2, 12  # batches that are not counted, and that are


@dataclass(frozen=True)
class Speed:
    """Of a model's inference, as medians over the batches.

    Args:
        samples_per_second: what it classifies.
        over_first: how many times as fast as the first model, batch by batch.
    """

    samples_per_second: float
    over_first: float


@torch.inference_mode()
def inference_speeds(
    models: Sequence[nn.Module],
    batches: Sequence[Sequence[Mapping[str, Any]]],
    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> list[Speed]:
    """Time models on the same examples, a batch of each in turn: what else the machine does then hits all alike.

    Args:
        models: left in evaluation mode.
        batches: for each model the same examples, as it takes them and on its device; gone through again if need be.
        autocast: makes the context that a model runs in.
    """
    for model in models:
        model.eval()
    seconds: list[list[float]] = [[] for _ in models]
    sizes = []
    for number in range(-WARM_UP, ROUNDS):
        together = [each[number % len(each)] for each in batches]
        taken = [_seconds(model, batch, autocast) for model, batch in zip(models, together, strict=True)]
        if number >= 0:
            sizes.append(len(next(iter(together[0].values()))))
            for each, value in zip(seconds, taken):
                each.append(value)
    return [
        Speed(
            samples_per_second=statistics.median(size / taken for size, taken in zip(sizes, each)),
            over_first=statistics.median(first / taken for first, taken in zip(seconds[0], each)),
        )
        for each in seconds
    ]


def _seconds(model: nn.Module, batch: Mapping[str, Any], autocast: Callable) -> float:
    begun = time.perf_counter()
    with autocast():
        model(**batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
