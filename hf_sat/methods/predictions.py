"""What the predictions of an epoch tell: whether the model has learned something, and how far it can be believed.

Training makes them anyway; what is counted of them is little, and no validation set is needed.
"""

from dataclasses import dataclass, field, fields

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
# The surest share of the predictions, by which the labels are judged, and how finely confidence is counted.
SUREST = 0.1
CONFIDENCES = 50
# From so many of them on they tell something: a share of fifty is known to six points.
LEAST_SUREST = 50


@dataclass
class Period:
    """Counts over a part of an epoch.

    Args:
        visits: predictions seen.
        agreeing: those that were the given label.
        changed: those that differ from the prediction of the same row at its last visit, first ones included.
        largest_class: visits to rows of the most frequent given label.
        by_confidence: visits and agreeing ones with a largest probability in each fiftieth, the least first.
    """

    visits: int
    agreeing: int
    changed: int
    largest_class: int
    by_confidence: list[list[int]] = field(default_factory=lambda: [[0] * CONFIDENCES, [0] * CONFIDENCES])

    @classmethod
    def sum(cls, periods: list["Period"]) -> "Period":
        *numbers, histograms = ([getattr(period, f.name) for period in periods] for f in fields(cls))
        return cls(*map(sum, numbers), [[sum(bins) for bins in zip(*rows)] for rows in zip(*histograms)])


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


def sureness(epoch: Period) -> float:
    """Mean confidence as a part of the agreement with the given labels.

    Cross-entropy calibrates to the labels it is trained on, so learning brings both together, and learning by heart
    makes a model surer than that. Before, its probabilities are flatter than what it knows.
    """
    visits, agreeing = (sum(counts) for counts in epoch.by_confidence)
    confidence = sum((place + 0.5) / CONFIDENCES * count for place, count in enumerate(epoch.by_confidence[0]))
    return confidence / agreeing if visits and agreeing else 1.0


def shares_right(epoch: Period) -> tuple[float, float]:
    """Estimated shares of the given labels and of the predictions that are right.

    A tenth of the predictions, those of the largest probability, are taken to be right, so how far labels agree with
    them tells how many labels are. Predictions agree with labels where both are right: as often as the product says.

    Example:
        >>> by_confidence = [[0] * CONFIDENCES, [0] * CONFIDENCES]
        >>> by_confidence[0][20], by_confidence[1][20] = 180, 64
        >>> by_confidence[0][45], by_confidence[1][45] = 20, 16
        >>> shares_right(Period(visits=200, agreeing=80, changed=0, largest_class=50, by_confidence=by_confidence))
        (0.8, 0.5)
    """
    agreement = epoch.agreeing / max(epoch.visits, 1)
    left = surest = SUREST * sum(epoch.by_confidence[0])
    agreeing = 0.0
    for visits, agree in zip(*map(reversed, epoch.by_confidence)):
        taken = min(visits, left)
        agreeing += agree * taken / max(visits, 1)
        left -= taken
    labels = agreeing / max(surest, 1.0)
    return labels, min(1.0, agreement / labels) if labels > 0.0 else 1.0


def lead_of_labels(epoch: Period) -> float:
    """By how much the share of the given labels that are right exceeds that of the predictions; 0 where few tell."""
    if SUREST * sum(epoch.by_confidence[0]) < LEAST_SUREST:
        return 0.0
    labels, predictions = shares_right(epoch)
    return labels - predictions
