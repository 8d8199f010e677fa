"""What the predictions of an epoch tell: whether the model has learned something, and whether they hold still.

Training makes them anyway; what is counted of them is little, and no validation set is needed.
"""

from dataclasses import dataclass, fields

# Predictions have settled when an epoch changes at least this share of what the epoch before changed.
SETTLED_RATIO = 0.9
# Predictions are steady when an epoch changes at most this share of them. (On TREC a second epoch changes .40 of them
# with clean labels and .51 with 40 % pair noise, on a few hundred docstrings .59; MobileNetV2 on CIFAR-10N .63, a ViT
# from scratch .86, and .24 in its eighth epoch.)
STEADY_SHARE = 0.6
# They flicker when an epoch changes at least this share of what the epoch before changed. (TREC .55 at the onset, as a
# model that learns fast is soon sure; MobileNetV2 on CIFAR-10N .69.)
FLICKER_RATIO = 0.65
# Agreement beyond the largest class, as a share of what is possible, below which the model has learned nothing yet.
LEARNED_SHARE = 0.05


@dataclass
class Period:
    """Counts over a part of an epoch.

    Args:
        visits: predictions seen.
        agreeing: those that were the given label.
        changed: those that differ from the prediction of the same row at its last visit.
        largest_class: visits to rows of the most frequent given label.
    """

    visits: int
    agreeing: int
    changed: int
    largest_class: int

    @classmethod
    def sum(cls, periods: list["Period"]) -> "Period":
        return cls(*(sum(getattr(period, f.name) for period in periods) for f in fields(cls)))


def has_learned(epoch: Period) -> bool:
    """Whether the model does better than to name the most frequent label, by more than chance would."""
    best = epoch.visits - epoch.largest_class
    return epoch.agreeing - epoch.largest_class > LEARNED_SHARE * best


def has_settled(before: Period, epoch: Period) -> bool:
    """Whether predictions have stopped settling, as Label Wave sees it (Yuan et al., ICLR 2024).

    While a model learns what examples have in common, fewer predictions change from epoch to epoch; where their number
    reaches its first minimum, it begins to learn wrong labels by heart.
    """
    return epoch.changed >= SETTLED_RATIO * before.changed


def is_steady(epoch: Period) -> bool:
    """Whether the predictions of the epoch are much those of the epoch before."""
    return epoch.changed <= STEADY_SHARE * epoch.visits


def flickering(before: Period, epoch: Period) -> float:
    """Share of the predictions that the epoch changed, if it is hardly less than in the epoch before; else 0."""
    return epoch.changed / max(epoch.visits, 1) if epoch.changed >= FLICKER_RATIO * before.changed else 0.0
