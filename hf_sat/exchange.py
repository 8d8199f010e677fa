"""Rows from all processes, by one collective that runs beside what follows it."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# Rows that a message has room for at first; it doubles when some process has more.
FIRST_CAPACITY = 64


class Exchange:
    """Gathers float32 rows whose number differs from process to process.

    A message has room for as many rows as any process has had so far, and says in its first row how many it holds. So
    sizes need no collective of their own: where some process has more rows than there is room, all of them see it in
    what they receive, and send once more with room for all.

    Args:
        width: columns of a row.
    """

    def __init__(self, width: int):
        self.width = width
        self.capacity = FIRST_CAPACITY

    def start(self, rows: Tensor) -> "InFlight":
        """Send this process's rows (M, width); every process must call it in the same order."""
        message = rows.new_zeros(self.capacity + 1, self.width)
        message[0, 0] = len(rows)  # exact in float32 up to 16 million
        sent = rows[: self.capacity]
        message[1 : len(sent) + 1] = sent
        received = message.new_empty(dist.get_world_size(), *message.shape)
        work = dist.all_gather(list(received.unbind()), message, async_op=True)
        return InFlight(self, rows, received, work)


@dataclass
class InFlight:
    """A message under way."""

    exchange: Exchange
    rows: Tensor
    received: Tensor
    work: dist.Work

    def wait(self) -> Tensor:
        """The rows of all processes, in rank order, (sum of M, width); every process must call it."""
        self.work.wait()
        sizes = [int(size) for size in self.received[:, 0, 0].tolist()]
        if max(sizes) > self.received.shape[1] - 1:
            self.exchange.capacity = 1 << (max(sizes) - 1).bit_length()
            return self.exchange.start(self.rows).wait()
        return torch.cat([message[1 : size + 1] for message, size in zip(self.received, sizes, strict=True)])
