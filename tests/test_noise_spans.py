"""Noise of whole entities."""

import datasets
import numpy as np
import pytest

from hf_sat.metrics.spans import spans_of
from hf_sat.noise import inject_span_noise

NAMES = ["O", "B-A", "I-A", "B-B", "I-B", "B-C"]


def tagged(rows=None, names=NAMES) -> datasets.Dataset:
    rows = rows or [[1, 2, 0, 3, 4], [0, 0], [5, 1, -100, 1], [3, 4, 4, 0]] * 5
    feature = datasets.List(datasets.ClassLabel(names=names))
    return datasets.Dataset.from_dict({"tags": rows}, features=datasets.Features(tags=feature))


def spans(dataset: datasets.Dataset, column: str) -> list[tuple]:
    rows = [[NAMES[max(tag, 0)] for tag in row] for row in dataset[column]]
    return [(number, *span) for number, row in enumerate(rows) for span in spans_of(row)]


@pytest.mark.parametrize("kind", ["missed", "mistyped"])
def test_so_many_entities_end_wrong_as_a_whole(kind):
    clean = tagged().with_format("numpy")
    noisy = inject_span_noise(clean, 0.4, kind, "tags", seed=3)
    assert noisy.features["tags"] == clean.features["tags"] and noisy.format["type"] == "numpy"
    assert [list(row) for row in noisy["clean_tags"]] == [list(row) for row in clean["tags"]]
    before, after = spans(noisy, "clean_tags"), spans(noisy, "tags")
    changed = set(before) - set(after)
    assert len(before) == 30 and len(changed) == 12
    places = {(row, *place) for row, _, *place in after} & {(row, *place) for row, _, *place in changed}
    assert len(places) == (0 if kind == "missed" else 12)
    outside = np.concatenate(noisy["clean_tags"][:]) <= 0
    assert (np.concatenate(noisy["tags"][:])[outside] == np.concatenate(noisy["clean_tags"][:])[outside]).all()


def test_the_seed_alone_decides():
    runs = [inject_span_noise(tagged(), 0.4, "mistyped", "tags", seed=seed)["tags"][:] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_kind_without_the_tags_it_takes_is_no_choice():
    """ "C" has no inner tag, so that entities of two words cannot become one."""
    noisy = inject_span_noise(tagged([[1, 2], [3, 4]] * 10), 0.9, "mistyped", "tags")
    assert {tag for row in noisy["tags"] for tag in row} == {1, 2, 3, 4}


def test_tags_without_prefixes():
    noisy = inject_span_noise(tagged([[1, 1, 0], [2, 0, 0]], ["O", "A", "C"]), 0.5, "mistyped", "tags")
    assert sorted(noisy["tags"][:]) in ([[1, 0, 0], [1, 1, 0]], [[2, 0, 0], [2, 2, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "instance"}, "kind='instance'.*missed, mistyped"),
        ({"rate": 1.0}, r"rate=1\.0"),
        ({"label_column": "tag"}, "did you mean 'tags'"),
        ({"dataset": tagged(names=["X", *NAMES[1:]])}, "'O' among the names"),
        ({"dataset": tagged([[1], [1]], ["O", "B-A"]), "kind": "mistyped"}, "no other kind for 'B-A'"),
        ({"dataset": tagged([[1, 2], [0, 1]], ["O", "B", "I"]), "kind": "mistyped"}, "no other kind for 'B'"),
        ({"dataset": datasets.Dataset.from_dict({"tags": [[0], [1]]})}, "lists of ClassLabel"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    settings = {"dataset": tagged(), "rate": 0.5, "kind": "missed", "label_column": "tags", **change}
    with pytest.raises(ValueError, match=message):
        inject_span_noise(**settings)
