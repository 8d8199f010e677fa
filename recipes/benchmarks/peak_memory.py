"""The most memory that tensors take while something runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

HOW = (
    "the most that tensors take at a time from the making of the model to the end of three steps (on CPU summed from "
    "what the allocator tells torch.profiler, on a GPU its own peak counter), less the same of the plain Trainer, over "
    "the bytes of the trainable weights"
)


def peak_bytes(run: Callable[[], Any]) -> int:
    """Beyond what there is before it. What it frees should be its own, as only that is seen on CPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak
