"""The examples that label correction remembers as neighbors of those to come."""

import torch
from torch import Tensor

from .methods.neighbors import (
    direction_distances,
    logit_distances,
    neighbor_votes,
    one_sidedness,
    transitions,
    true_label_posterior,
)
from .methods.self_adaptive import log_softmax

# More would be slow to search; of larger data, a place holds the last example of those that share it.
MOST_REMEMBERED = 8192
# Features are hundreds of numbers where logits are a few.
MOST_WITH_FEATURES = 2048
# Of a class as large as the average one, the neighbors are at most this share. On TREC (250 to a class) 200 did better
# than 50 and 100, which model and noise can still overrule, and than 300.
SHARE_OF_CLASS = 0.8
MOST_NEIGHBORS = 200
# With fewer labels to a class "auto" has none: 640 docstrings of four classes, half of them mislabelled, ended at 55.8
# per cent with 128 neighbors and at 69.8 without.
LEAST_OF_CLASS = 200
# Of the estimate, where wrong labels are of one kind. Where they are spread the prediction knows better: neighbors at
# half lost 3.6 points on AG News with 40 % symmetric noise, and won 11.1 with pair noise. (One-sidedness was estimated
# as 0.76 to 0.81 under pair noise, 0.09 to 0.16 under symmetric and instance-dependent noise.)
LARGEST_SHARE = 0.5
# Less one-sided than the first it is spread, and neighbors do not count at all; from the second on they do in full.
# (TREC, 60 % symmetric noise, two seeds, accuracy where they counted by 0.11 or 0.12 and where they did not: in 3
# epochs 59.4, 68.0 and 63.5, 70.6, in 5 epochs 58.2, 68.2 and 66.0, 70.5.)
SPREAD, OF_ONE_KIND = 0.2, 0.3
# Neighbors vote from the second pass on; the passes that it takes until they can be believed, and the shortest run in
# which "auto" asks them.
VOTES_FROM = 1.0
PASSES_BEFORE = 1.5
LEAST_EPOCHS = 3.0
# How labels go wrong is read from the votes of the last part of an epoch. (From all of an epoch clean labels of TREC
# were held to be 10 % wrong, from its second half 5.)
RECENT = 0.5
EMPTY = -1


def suggested_neighbors(num_rows: int, num_classes: int, has_features: bool = False) -> int:
    """Neighbors that suit so many labels and classes; 0 where there are too few labels to a class.

    Two logits differ in one direction alone, so neighbors by logits say what the prediction says (SST-2 with 40 %
    symmetric noise ended at 63.9 % with them and at 65.0 % without): two classes need features.

    Example:
        >>> [suggested_neighbors(rows, classes) for rows, classes in ((1500, 6), (2000, 10), (640, 4), (1500, 2))]
        [200, 160, 0, 0]
        >>> suggested_neighbors(1500, 2, has_features=True)
        200
    """
    of_class = min(num_rows, MOST_REMEMBERED) / num_classes
    if (num_classes <= 2 and not has_features) or of_class < LEAST_OF_CLASS:
        return 0
    return min(round(SHARE_OF_CLASS * of_class), MOST_NEIGHBORS)


class Neighborhood:
    """The examples seen last: where they lie, their labels and votes, and what these say of the noise.

    Attributes:
        rows: (Q + 1,) int32, which label lies at each place, -1 for none; the last place takes what must not count.
        labels: (Q + 1,) int32, given labels.
        positions: (Q + 1, D) float32, logits or features of the last visit.
        votes: (Q + 1, C) float32, shares of labels among the neighbors at the last visit, zero before the second pass.
        epochs: (Q + 1,) float32, when that visit was.
        transition, prior: how labels go wrong, and how large classes are, see [`transitions`]; zero until it is known.
        share: weight of what the neighbors tell, beside the prediction, (): how one-sided the noise is, at most a half,
            and 0 where it is spread.

    Args:
        num_rows: labels of the run.
        num_classes: C.
        k: neighbors that vote.
        device: where it lies and is searched.
        width: D of features. Default: neighbors are found by logits.
    """

    def __init__(self, num_rows: int, num_classes: int, k: int, device: torch.device, width: int | None = None):
        self.k = k
        self.by_features = width is not None
        self.num_places = min(num_rows, MOST_REMEMBERED if width is None else MOST_WITH_FEATURES)
        self.knows_noise = False
        size = self.num_places + 1
        self.rows = torch.full((size,), EMPTY, dtype=torch.int32, device=device)
        self.labels = torch.full((size,), EMPTY, dtype=torch.int32, device=device)
        self.positions = torch.zeros(size, width or num_classes, device=device)
        self.votes = torch.zeros(size, num_classes, device=device)
        self.epochs = torch.zeros(size, device=device)
        self.transition = torch.zeros(num_classes, num_classes, device=device)
        self.prior = torch.zeros(num_classes, device=device)
        self.share = torch.zeros((), device=device)

    def ask(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Shares of labels among the neighbors of these, (M, C); see [`neighbor_votes`]."""
        theirs, where, labels = self.rows[:-1].long(), self.positions[:-1], self.labels[:-1].long()
        if self.by_features:
            distances = direction_distances(positions, where, theirs >= 0)
        else:
            distances = logit_distances(positions, where)
        return neighbor_votes(distances, rows, theirs, labels, self.k, self.votes.shape[1])

    def learn_noise(self, since: float) -> None:
        """Estimate, once, how labels go wrong, from the votes cast from epoch `since` on.

        Later, a model that is trained on corrected labels gathers examples around those that stayed wrong, and their
        votes would make them look right: estimated anew at each pass, 45 % noise became 13.
        """
        voted = self.votes.sum(dim=1) > 0
        recent = voted & (self.epochs >= since)
        told = torch.where(recent.any(), recent, voted)  # an epoch may be a single step
        labels = torch.where(told, self.labels, EMPTY)[:-1].long()
        transition, prior = transitions(self.votes[:-1], labels)
        # Into the memory they are loaded into: products round by how a matrix lies there.
        self.transition.copy_(transition)
        self.prior.copy_(prior)
        self.share.copy_(self._share())
        self.knows_noise = True

    def _share(self) -> Tensor:
        if len(self.prior) == 2:  # wrong labels are of one kind by necessity: as many as tell nothing
            return (2.0 - self.transition.trace()).clamp(0.0, LARGEST_SHARE)
        one_sided = one_sidedness(self.transition, self.prior).nan_to_num(0.0)  # nobody voted
        counts = ((one_sided - SPREAD) / (OF_ONE_KIND - SPREAD)).clamp(0.0, 1.0)
        return (counts * one_sided).clamp_max(LARGEST_SHARE)

    def noise_rate(self) -> float:
        """Share of wrong labels by that estimate."""
        return 1.0 - float(self.prior @ self.transition.diagonal())

    def estimate(self, votes: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """What is known of the true class of each, (M, C): by the model's own prediction and by what the neighbors
        tell, as they share it; by the prediction alone where nobody voted."""
        own = log_softmax(logits).exp()
        told = true_label_posterior(votes, labels, self.transition, self.prior).to(own)
        both = (1.0 - self.share) * own + self.share * told
        return torch.where(votes.sum(dim=1, keepdim=True) > 0, both, own)

    def remember(
        self, fresh: Tensor, rows: Tensor, labels: Tensor, positions: Tensor, votes: Tensor, epoch: float
    ) -> None:
        """Take in visits, (M,), (M, D) or (M, C) each; those that are not `fresh` are left out."""
        places = torch.where(fresh, rows % self.num_places, self.num_places)
        # Of several for one place the one of the highest number, in whatever order processes send them.
        highest = torch.full_like(self.rows, EMPTY, dtype=torch.int64).scatter_reduce(0, places, rows, "amax")
        at = torch.where(fresh & (highest[places] == rows), places, self.num_places)
        self.rows[at] = rows.to(self.rows)
        self.labels[at] = labels.to(self.labels)
        self.positions[at] = positions.to(self.positions)
        self.votes[at] = votes.to(self.votes)
        self.epochs[at] = epoch

    def forget(self, rows: Tensor) -> None:
        """Leave these out: their labels were edited."""
        places = rows % self.num_places
        gone = places[self.rows[places] == rows]
        self.rows[gone] = EMPTY
        self.labels[gone] = EMPTY
        self.votes[gone] = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {f"neighbors.{name}": value for name, value in own.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])
        self.knows_noise = bool(self.prior.sum() > 0)
