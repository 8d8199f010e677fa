"""Operations of the user's own, and what augmentation refuses."""

import pickle

import numpy as np
import pytest
from augment_runs import sentence

from hf_sat.augment import OPERATIONS, TextAugmenter

# ---- operations of the user's own -----------------------------------------------------------------------------------


def reverse(words, rng):
    return words[::-1], list(range(len(words)))[::-1]


def drop_one(words, rng):
    return [word for at, word in enumerate(words) if at != rng.randrange(len(words)) or len(words) == 1]


def test_functions_are_operations():
    augmenter = TextAugmenter([reverse, ("swap", 0.0)])
    assert augmenter("a b, c") == "c b, a"
    assert augmenter.augment_words(list("abc")).origins == [2, 1, 0]
    assert augmenter("a b, c", locked=[(2, 3)]) == "a b, c"
    assert augmenter.augment_words(list("abcd"), locked=[False, False, True, False]).words == list("bacd")
    assert [TextAugmenter([drop_one], seed=1)(sentence(8)) for _ in range(2)] == [
        TextAugmenter([drop_one], seed=1)(sentence(8))
    ] * 2
    assert pickle.loads(pickle.dumps(augmenter))("a b") == "b a"
    assert TextAugmenter([lambda words, rng: ["x", *words, "y"]])("a, b.") == "x a, b y."


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operations, options, message",
    [
        ("deletoin:0.1", {}, "operations='deletoin'.*did you mean 'deletion'"),
        ("qqq:0.1", {}, "operations='qqq'.*deletion, swap"),
        ("deletion", {}, "operations='deletion'.*name:rate"),
        ("deletion=0.1", {}, "no name:rate"),
        ("deletion:much", {}, "no name:rate"),
        ("deletion:0.1,", {}, "no name:rate"),
        ("", {}, "no name:rate"),
        ([], {}, "operations=.*there is none"),
        (None, {}, "operations=None"),
        (["deletion"], {}, "operations='deletion'"),
        ([("deletion", 0.1, 3)], {}, "give .name, rate."),
        *[([("swap", rate)], {}, "swap=.*from 0 to 1") for rate in (-0.1, 1.5, float("nan"), "0.1", None, True)],
        ("swap:0.1", {"seed": 0.5}, "seed=0.5"),
        ("swap:0.1", {"seed": None}, "seed=None"),
        ("swap:0.1", {"locked": "("}, r"locked='\('.*urls"),
        ("swap:0.1", {"locked": "x*"}, "locked='x.*empty"),
        ("swap:0.1", {"locked": [3]}, "locked=3"),
        ("swap:0.1", {"insertion_words": []}, "insertion_words="),
    ],
)
def test_wrong_settings_are_refused(operations, options, message):
    with pytest.raises(ValueError, match=message):
        TextAugmenter(operations, **options)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a: a(["x", None]), "row 1 is None"),
        (lambda a: a(["x", "y", 3]), "row 2 is 3 of type int"),
        (lambda a: a([b"x"]), "row 0 is b'x'"),
        (lambda a: a(None), "texts=None"),
        (lambda a: a(b"x"), "texts=b'x'"),
        (lambda a: a(float("nan")), "texts=nan"),
        (lambda a: a("x", key=0.5), "key=0.5"),
        (lambda a: a("x", key=(1, "a")), "key="),
        (lambda a: a("x", keys=[1]), "keys="),
        (lambda a: a(["x"], key=1), "keys="),
        (lambda a: a(["x", "y"], keys=[1]), "keys='1 of them'.*give 2"),
        (lambda a: a("abc", locked=[(1, 9)]), r"locked=\(1, 9\).*text of 3"),
        (lambda a: a("abc", locked=[5]), "locked=5"),
        (lambda a: a.augment_words("abc"), "words='abc'"),
        (lambda a: a.augment_words(["a", None]), "row 1 is None"),
        (lambda a: a.augment_words(["a", "b"], locked=[True]), "locked='1 of them'"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(TextAugmenter("swap:0.5"))


def test_a_missing_nlpaug_says_what_to_install(monkeypatch):
    from hf_sat.augment import typos

    monkeypatch.setattr(typos.importlib.util, "find_spec", lambda name: None)
    for name in "keyboard", "ocr", "spelling":
        with pytest.raises(ImportError, match=rf"{name}.*pip install \"hf_sat\[augment\]\""):
            TextAugmenter([(name, 0.1)])
    assert TextAugmenter("split:1")("word")  # needs no table


def test_columns_and_other_sequences_are_lists():
    datasets = pytest.importorskip("datasets")
    column = datasets.Dataset.from_dict({"text": ["a b", "c d"]})["text"]
    augmenter = TextAugmenter("swap:1")
    assert augmenter(column) == augmenter(("a b", "c d")) == augmenter(np.array(["a b", "c d"])) == ["b a", "d c"]
    assert augmenter([]) == [] and augmenter("") == "" and augmenter([""]) == [""]
    assert "shuffle" in OPERATIONS
