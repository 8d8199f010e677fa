"""What passes over labels leave to be committed, and how it travels between processes."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Visits:
    """What micro-batches leave to be committed with their optimizer step; M positions each.

    Positions, (M, D), and votes, (M, C), are there where neighbors are remembered; else (M, 0).
    """

    rows: Tensor
    labels: Tensor
    target: Tensor
    predicted: Tensor
    p_given: Tensor
    margin: Tensor
    finite: Tensor
    confident: Tensor
    positions: Tensor
    votes: Tensor

    @property
    def p_predicted(self) -> Tensor:
        """The largest predicted probability, (M,): that of the given label, times `exp` of what its logit is behind."""
        behind = (-self.margin).clamp_min(0.0)
        found = (self.p_given.log() + behind).exp().clamp_max(1.0)
        return torch.where(self.p_given > 0.0, found, 1.0)  # 0 is one that has underflown

    @classmethod
    def joined(cls, parts: list["Visits"]) -> "Visits":
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def packed(self) -> Tensor:
        """All of it as float32, (M, 6 + C) or (M, 6 + D + 2 C), to travel in one message; whole numbers bit by bit."""
        predicted = 2 * self.predicted + self.finite.long()
        whole = torch.stack([self.rows, self.labels, predicted, self.confident], dim=1)
        real = torch.cat(
            [self.p_given[:, None], self.margin[:, None], self.target, self.positions, self.votes], dim=1
        ).float()
        return torch.cat([whole.int().view(torch.float32), real], dim=1)

    @classmethod
    def unpacked(cls, packed: Tensor, num_classes: int) -> "Visits":
        """What `packed` made."""
        rows, labels, prediction, confident = packed[:, :4].contiguous().view(torch.int32).long().unbind(dim=1)
        p_given, margin, finite = packed[:, 4], packed[:, 5], (prediction & 1).bool()
        target, rest = packed[:, 6 : 6 + num_classes], packed[:, 6 + num_classes :]
        positions, votes = rest.tensor_split([max(0, rest.shape[1] - num_classes)], dim=1)
        return cls(rows, labels, target, prediction >> 1, p_given, margin, finite, confident, positions, votes)


def first_occurrence(rows: Tensor) -> Tensor:
    """Index of the first place where each row number stands, (M,); no host sync.

    Example:
        >>> import torch
        >>> first_occurrence(torch.tensor([7, 3, 7, 3, 5]))
        tensor([0, 1, 0, 1, 4])
    """
    ordered, places = torch.sort(rows, stable=True)
    index = torch.arange(len(rows), device=rows.device)
    starts = torch.cat([index.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
    group_start = torch.where(starts, index, 0).cummax(dim=0).values
    return torch.empty_like(index).scatter_(0, places, places[group_start])
