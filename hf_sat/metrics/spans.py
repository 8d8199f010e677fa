"""Precision, recall and F1 of spans of tags, as conlleval counts them.

The package seqeval counts the same in its default mode. It has had no release since 2020, none as a wheel, and brings
scikit-learn along; what is needed of it is this file.
"""

from collections import Counter
from collections.abc import Sequence

OUTSIDE = "O"
# First, inner, last and only word of a span: BIO, IOBES, BMES, and BILOU's own letters for the last two.
PREFIXES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
NO_KIND = "_"


def split_tag(tag: str) -> tuple[str, str]:
    """Position in the span ("B", "I", "E", "S", or "O" outside) and kind of span.

    A tag without a prefix that is known, "PER" or "art-film", is of an IO scheme: words side by side are one span.

    Example:
        >>> split_tag("B-PER"), split_tag("U-PER"), split_tag("art-film"), split_tag("O")
        (('B', 'PER'), ('S', 'PER'), ('I', 'art-film'), ('O', '_'))
    """
    head, _, kind = tag.partition("-")
    if head == OUTSIDE:
        return OUTSIDE, NO_KIND
    if head in PREFIXES:
        return PREFIXES[head], kind or NO_KIND
    return "I", tag


def spans_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The spans of a sentence: kind, first word, and the word after the last.

    As in conlleval, an inner tag that follows nothing of its kind begins a span; so IOB1, IOB2 and IO are read alike.

    Example:
        >>> spans_of(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
        [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    spans, first = [], None
    before, kind_before = OUTSIDE, NO_KIND
    for at, tag in enumerate([*tags, OUTSIDE]):
        position, kind = split_tag(tag)
        goes_on = position in "IE" and before in "BI" and kind == kind_before
        if first is not None and not goes_on:
            spans.append((kind_before, first, at))
            first = None
        if position != OUTSIDE and not goes_on:
            first = at
        before, kind_before = position, kind
    return spans


def span_scores(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict:
    """Micro-averaged scores of exact spans, and those of each kind, under the names that `evaluate`'s seqeval uses.

    Args:
        predictions, references: the tags of each sentence.

    Returns:
        "overall_precision", "overall_recall", "overall_f1" and "overall_accuracy" (of single tags), in [0, 1], 0 where
        there is nothing to divide by; and for each kind of span its "precision", "recall", "f1" and "number".

    Raises:
        ValueError: for sentences that differ in number or length.

    Example:
        >>> scores = span_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "B-LOC"]])
        >>> scores["overall_f1"], scores["LOC"]
        (0.5, {'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'number': 1})
    """
    _check(predictions, references)
    guessed, gold, shared = Counter(), Counter(), Counter()
    right = total = 0
    for guess, truth in zip(predictions, references):
        spans, true_spans = set(spans_of(guess)), set(spans_of(truth))
        for count, found in ((guessed, spans), (gold, true_spans), (shared, spans & true_spans)):
            count.update(kind for kind, _, _ in found)
        right += sum(a == b for a, b in zip(guess, truth))
        total += len(truth)
    overall = _scores(shared.total(), guessed.total(), gold.total())
    by_kind = {
        kind: {**_scores(shared[kind], guessed[kind], gold[kind]), "number": gold[kind]}
        for kind in sorted(gold | guessed)
    }
    return {
        **by_kind,
        **{f"overall_{name}": value for name, value in overall.items()},
        "overall_accuracy": right / max(total, 1),
    }


def _scores(shared: int, guessed: int, gold: int) -> dict[str, float]:
    return {
        "precision": shared / max(guessed, 1),
        "recall": shared / max(gold, 1),
        "f1": 2 * shared / max(guessed + gold, 1),
    }


def _check(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"predictions has {len(predictions)} sentences, references {len(references)}; give one each.")
    for row, (guess, truth) in enumerate(zip(predictions, references)):
        if len(guess) != len(truth):
            raise ValueError(f"sentence {row} has {len(guess)} predictions and {len(truth)} references; give one each.")
