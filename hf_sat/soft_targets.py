"""Where the soft targets lie: whole, or the k largest entries of each row.

Both read as dense float32 rows and know one row more than there are labels, the last, which takes what must not count.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

# Passes over all rows (start, report) go in pieces of this many entries, so that they need no second copy.
PIECE = 1 << 24


def class_dtype(num_classes: int) -> torch.dtype:
    """The smallest whole numbers that name every class and the labels below 0."""
    return torch.int16 if num_classes <= torch.iinfo(torch.int16).max else torch.int32


class SoftTargets(Protocol):
    """Soft targets of R labels over C classes, and a spare row."""

    num_rows: int
    num_classes: int

    def read(self, rows: Tensor) -> Tensor:
        """Targets of rows (M,), float32 (M, C) on the device of `rows`."""

    def write(self, rows: Tensor, targets: Tensor) -> None:
        """Store targets (M, C); a row that stands more than once must come with equal targets, but for the spare."""

    def largest(self, rows: Tensor) -> Tensor:
        """Class with the largest entry, int64 (M,)."""

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name, the spare row included."""


class DenseTargets:
    """All entries of each row: R * C of `dtype`.

    Args:
        num_rows: R.
        num_classes: C.
        dtype: of the stored entries.
        device: where they lie; another than the model's costs a copy and a wait at each step.
    """

    def __init__(self, num_rows: int, num_classes: int, dtype: torch.dtype, device: torch.device):
        self.num_rows = num_rows
        self.num_classes = num_classes
        self.values = torch.zeros(num_rows + 1, num_classes, dtype=dtype, device=device)

    def read(self, rows: Tensor) -> Tensor:
        return self.values[rows.to(self.values.device)].to(rows.device, torch.float32)

    def write(self, rows: Tensor, targets: Tensor) -> None:
        self.values[rows.to(self.values.device)] = targets.to(self.values)

    def largest(self, rows: Tensor) -> Tensor:
        return self.values[rows.to(self.values.device)].argmax(dim=1).to(rows.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"soft_targets": self.values}


class TopKTargets:
    """The k largest entries of each row and their classes; what they leave, the tail mass, is shared by the others.

    Keeping the tail, rather than scaling the k entries up to 1, keeps the entries themselves unbiased; with k = C
    nothing is left out and it equals the dense form. A row takes `k * (bytes of dtype + 2)` bytes (4 instead of 2 from
    32,768 classes on).

    Args:
        k: entries kept, 1 to C.
        num_rows, num_classes, dtype, device: as in [`DenseTargets`].
    """

    def __init__(self, k: int, num_rows: int, num_classes: int, dtype: torch.dtype, device: torch.device):
        self.num_rows = num_rows
        self.num_classes = num_classes
        self.k = min(k, num_classes)
        self.values = torch.zeros(num_rows + 1, self.k, dtype=dtype, device=device)
        self.classes = torch.arange(self.k, dtype=class_dtype(num_classes), device=device).repeat(num_rows + 1, 1)

    def read(self, rows: Tensor) -> Tensor:
        at = rows.to(self.values.device)
        values = self.values[at].to(rows.device, torch.float32)
        classes = self.classes[at].to(rows.device, torch.int64)
        others = self.num_classes - self.k
        tail = (1.0 - values.sum(dim=1, keepdim=True)).clamp_min(0.0) / max(others, 1) if others else values[:, :1]
        return tail.expand(-1, self.num_classes).scatter(1, classes, values)

    def write(self, rows: Tensor, targets: Tensor) -> None:
        at = rows.to(self.values.device)
        values, classes = targets.topk(self.k, dim=1)
        self.values[at] = values.to(self.values)
        self.classes[at] = classes.to(self.classes)

    def largest(self, rows: Tensor) -> Tensor:
        # topk sorts: the first is the largest.
        return self.classes[rows.to(self.classes.device), 0].to(rows.device, torch.int64)

    def tensors(self) -> dict[str, Tensor]:
        return {"soft_targets": self.values, "soft_target_classes": self.classes}


def soft_targets(
    num_rows: int, num_classes: int, top_k: int | None, dtype: torch.dtype, device: torch.device
) -> SoftTargets:
    """Storage for R labels over C classes; whole where `top_k` is None."""
    if top_k is None:
        return DenseTargets(num_rows, num_classes, dtype, device)
    return TopKTargets(top_k, num_rows, num_classes, dtype, device)


def pieces(targets: SoftTargets, device: torch.device) -> Iterator[Tensor]:
    """All rows but the spare one, in order, a piece at a time, (m,) each."""
    size = max(1, PIECE // targets.num_classes)
    for start in range(0, targets.num_rows, size):
        yield torch.arange(start, min(start + size, targets.num_rows), device=device)
