"""Span F1: as conlleval and seqeval count, offline, and by another way of counting."""

import itertools
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sat
from hf_sat.metrics.spans import span_scores, spans_of

FOLDER = os.path.join(os.path.dirname(hf_sat.__file__), "metrics", "span_f1")
TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("A", "B"))]
sentences_of_tags = st.lists(st.sampled_from(TAGS), max_size=9)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-A I-A O B-B", [("A", 0, 2), ("B", 3, 4)]),  # IOB2
        ("I-A I-A O I-B B-B I-B", [("A", 0, 2), ("B", 3, 4), ("B", 4, 6)]),  # IOB1: B- parts neighbours alone
        ("A A O B", [("A", 0, 2), ("_", 3, 4)]),  # IO; a B alone is a prefix without a kind
        ("ORG ORG O PER", [("ORG", 0, 2), ("PER", 3, 4)]),
        ("art-film art-film O", [("art-film", 0, 2)]),
        ("B-A E-A S-A S-A E-A", [("A", 0, 2), ("A", 2, 3), ("A", 3, 4), ("A", 4, 5)]),  # IOBES
        ("B-A L-A U-A U-A", [("A", 0, 2), ("A", 2, 3), ("A", 3, 4)]),  # BILOU
        ("B-A I-B I-B B-B", [("A", 0, 1), ("B", 1, 3), ("B", 3, 4)]),
        ("B I O I", [("_", 0, 2), ("_", 3, 4)]),
        ("B-x-y I-x-y", [("x-y", 0, 2)]),
        ("", []),
    ],
)
def test_spans(tags, spans):
    assert spans_of(tags.split()) == spans


def begins(before: str, tag: str) -> bool:
    """Whether a span begins, as a table of conlleval's rules."""
    if tag == "O":
        return False
    return tag[0] in "BS" or before == "O" or before[0] in "ES" or before[2:] != tag[2:]


@settings(max_examples=300, deadline=None)
@given(sentences_of_tags)
def test_spans_by_another_way_of_counting(tags):
    starts = [at for at, tag in enumerate(tags) if begins(tags[at - 1] if at else "O", tag)]
    ends = [
        next((at for at in range(first + 1, len(tags)) if tags[at] == "O" or at in starts), len(tags))
        for first in starts
    ]
    assert spans_of(tags) == [(tags[first][2:], first, end) for first, end in zip(starts, ends)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), max_size=7), max_size=4))
def test_scores_are_those_of_sets_of_spans(pairs):
    guesses, truths = ([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))
    found, gold = ({(n, *span) for n, tags in enumerate(rows) for span in spans_of(tags)} for rows in (guesses, truths))
    scores = span_scores(guesses, truths)
    shared = len(found & gold)
    assert scores["overall_precision"] == (shared / len(found) if found else 0)
    assert scores["overall_recall"] == (shared / len(gold) if gold else 0)
    assert scores["overall_f1"] == pytest.approx(2 * shared / (len(found) + len(gold)) if found or gold else 0)
    both = list(zip(itertools.chain(*guesses), itertools.chain(*truths)))
    assert scores["overall_accuracy"] == (np.mean([a == b for a, b in both]) if both else 0)


def test_scores_are_seqevals():
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    labelling = sys.modules["seqeval.metrics.sequence_labeling"]
    rng = np.random.default_rng(0)
    for _ in range(200):
        truths = [rng.choice(TAGS, rng.integers(1, 8)).tolist() for _ in range(4)]
        guesses = [rng.choice(TAGS, len(row)).tolist() for row in truths]
        assert [(kind, a, b - 1) for kind, a, b in spans_of(truths[0])] == labelling.get_entities(truths[0])
        scores = span_scores(guesses, truths)
        for name in ("precision", "recall", "f1", "accuracy"):
            theirs = getattr(metrics, f"{name}_score")(truths, guesses)
            assert scores[f"overall_{name}"] == pytest.approx(theirs), name


def test_scores_recorded_of_seqeval():
    """seqeval 1.2.2 gave these; it is not installed everywhere."""
    truths = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["I-LOC", "B-LOC"]]
    guesses = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["I-LOC", "I-LOC"]]
    scores = span_scores(guesses, truths)
    assert {name: scores[f"overall_{name}"] for name in ("precision", "recall", "f1", "accuracy")} == pytest.approx(
        {"precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7, "accuracy": 9 / 12}
    )
    assert scores["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}


def test_sentences_that_do_not_line_up_are_refused():
    with pytest.raises(ValueError, match="2 sentences, references 1"):
        span_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 1 predictions and 2 references"):
        span_scores([["O"], ["O"]], [["O"], ["O", "O"]])


def test_evaluate_loads_it_from_its_folder(tmp_path, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path), raising=False)
    metric = evaluate.load(FOLDER, keep_in_memory=True)
    metric.add_batch(predictions=[["B-A", "O"]], references=[["B-A", "B-A"]])
    metric.add_batch(predictions=[["O"]], references=[["O"]])
    assert metric.compute() == span_scores([["B-A", "O"], ["O"]], [["B-A", "B-A"], ["O"]])
