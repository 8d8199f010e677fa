"""Means over optimizer steps, for the log."""

import torch
from accelerate.utils import gather
from torch import Tensor


class LoggedMeans:
    """Sums up on the device until the next log, without a wait; the mean is over all processes.

    Args:
        names: of the entries in the log.

    Example:
        >>> means = LoggedMeans("kd/loss")
        >>> means.add(torch.tensor(2.0), torch.tensor(3.0)), means.add(torch.tensor(2.0), torch.tensor(1.0))
        (None, None)
        >>> means.read(num_processes=1)
        {'kd/loss': 1.0}
    """

    def __init__(self, *names: str):
        self.names = names
        self.sums: Tensor | None = None

    def add(self, count: Tensor, *values: Tensor) -> None:
        """Add what `count` items have together; nothing where something of it is not finite."""
        seen = torch.stack([count.detach().float(), *(value.detach().to(count.device).float() for value in values)])
        seen = torch.where(torch.isfinite(seen).all(), seen, torch.zeros_like(seen))
        self.sums = seen if self.sums is None else self.sums + seen

    def read(self, num_processes: int) -> dict[str, float]:
        """The means since the last reading; every process comes by here at the same points."""
        if self.sums is None:
            return {}
        sums, self.sums = self.sums, None
        if num_processes > 1:
            sums = gather(sums[None]).sum(dim=0)
        count, *values = sums.tolist()
        return {name: value / count for name, value in zip(self.names, values, strict=True)} if count else {}
