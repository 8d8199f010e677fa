"""Labels of words: they follow, BIO tags stay valid, on CoNLL-style data with every operation."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sat.augment import OPERATIONS, TextAugmenter, labels_follow
from hf_sat.augment.checks import one_each

quick = settings(max_examples=80, deadline=None, database=None)
NER = Path(__file__).parents[2] / "shared" / "data" / "ner"
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
tags = st.lists(st.tuples(st.sampled_from(["O", "PER", "LOC"]), st.integers(1, 3)), max_size=8).map(
    lambda runs: [tag if tag == "O" else f"{'I' if at else 'B'}-{tag}" for tag, size in runs for at in range(size)]
)


def is_bio(labels):
    before = "O"
    for label in labels:
        if label[:2] == "I-" and before[1:] != label[1:]:
            return False
        before = label
    return True


def entities(words, labels):
    found = []
    for word, label in zip(words, labels, strict=True):
        if label[:2] == "B-":
            found.append([label[2:], word])
        elif label[:2] == "I-":
            found[-1].append(word)
    return [tuple(entity) for entity in found]


def sentences(name, limit):
    path = NER / name
    if not path.is_file():
        pytest.skip(f"{path} is not here: CoNLL data of the shared folder")
    rows = [[]]
    for line in path.read_text("utf-8").splitlines()[1:]:
        if line.strip():
            rows[-1].append(line.split("\t")[:2])
        elif rows[-1]:
            rows.append([])
    return [([word for word, _ in row], [tag for _, tag in row]) for row in rows[:limit] if row]


def available(name):
    try:
        return TextAugmenter([(name, 0.4)], seed=1)
    except (ValueError, ImportError) as error:
        pytest.skip(str(error))


# ---- on CoNLL data ----


@pytest.mark.parametrize("file", ["wikigold_train.conll", "wnut17_train.conll"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_entities_come_through_every_operation(name, file):
    augmenter, changed = available(name), 0
    for row, (words, labels) in enumerate(sentences(file, 150)):
        new_words, new_labels = augmenter.augment_labelled(words, labels, key=row)
        assert len(new_words) == len(new_labels) and all(new_words)
        assert is_bio(new_labels)
        if name == "shuffle_sentences":
            assert sorted(entities(new_words, new_labels)) == sorted(entities(words, labels))
        else:
            assert entities(new_words, new_labels) == entities(words, labels)
        changed += new_words != words
    assert changed > 0 or name == "shuffle_sentences"  # most rows are one sentence


@pytest.mark.parametrize("file", ["wikigold_train.conll", "wnut17_train.conll"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_tags_stay_valid_where_entities_change_too(name, file):
    augmenter = available(name)
    for row, (words, labels) in enumerate(sentences(file, 150)):
        result = augmenter.augment_words(words, key=row)
        new = labels_follow(labels, result.origins)
        assert is_bio(new)
        for origin, label in zip(result.origins, new, strict=True):
            assert label.partition("-")[2] == ("" if origin < 0 else labels[origin].partition("-")[2])
        assert (result.words, new) == augmenter.augment_labelled(words, labels, row, lock_entities=False)
        numbers = [sorted(set(labels)).index(label) for label in labels]
        if set(labels) == {"O"}:
            continue
        every = sorted({*labels, *(f"{p}-{label[2:]}" for label in labels if label != "O" for p in "BI"), "O"})
        numbers = [every.index(label) for label in labels]
        assert [every[n] for n in labels_follow(numbers, result.origins, every)] == new


# ---- by property ----


@quick
@given(labels=tags.filter(len), data=st.data())
def test_any_origins_give_valid_tags(labels, data):
    assert is_bio(labels)
    origins = data.draw(st.lists(st.integers(-1, max(len(labels) - 1, -1)), max_size=20))
    new = labels_follow(labels, origins)
    assert is_bio(new) and len(new) == len(origins)
    numbers = [NAMES.index(label) for label in labels]
    assert [NAMES[number] for number in labels_follow(numbers, origins, NAMES)] == new
    assert labels_follow(labels, range(len(labels))) == labels


@pytest.mark.parametrize(
    "labels, origins, expected",
    [
        (["B-PER", "I-PER", "O"], [1, 2], ["B-PER", "O"]),
        (["B-PER", "I-PER", "O"], [1, 0, 2], ["B-PER", "I-PER", "O"]),
        (["B-PER", "I-PER", "O"], [0, 2, 1], ["B-PER", "O", "B-PER"]),
        (["B-PER", "I-PER"], [0, -1, 1], ["B-PER", "O", "B-PER"]),
        (["B-PER", "O"], [0, 0, 1], ["B-PER", "I-PER", "O"]),
        (["B-PER", "B-PER"], [0, 1], ["B-PER", "B-PER"]),
        (["B-PER", "B-PER"], [1, 0], ["B-PER", "B-PER"]),
        (["B-PER", "I-LOC", "O"], [0, 1], ["B-PER", "B-LOC"]),
        (["S-PER", "B-LOC", "I-LOC", "E-LOC"], [0, 1, 3], ["S-PER", "B-LOC", "E-LOC"]),
        (["U-PER", "B-LOC", "L-LOC"], [0, 2, -1], ["U-PER", "U-LOC", "O"]),
        (["NN", "VB"], [1, -1, 0], ["VB", -100, "NN"]),
        ([7, 8, -100], [2, 0, -1], [-100, 7, -100]),
        ([], [], []),
    ],
)
def test_labels_follow_their_words(labels, origins, expected):
    assert labels_follow(labels, origins) == expected


def test_ignored_numbers_stay_and_inserted_words_are_outside():
    assert labels_follow([1, 2, -100, 0], [1, 2, -1, 3], NAMES) == [1, -100, 0, 0]
    assert labels_follow([1, 2], [0, -1, 1], NAMES, inserted=-100) == [1, -100, 1]
    assert labels_follow([1, 2], [1, 0]) == [2, 1]


def test_words_of_part_of_speech_data_are_not_locked():
    words, labels = TextAugmenter("swap:1").augment_labelled(["a", "b"], ["DT", "NN"])
    assert (words, labels) == (["b", "a"], ["NN", "DT"])


def test_punctuation_tokens_stay_among_their_words():
    words = ["Yes", ",", "he", "is", "(", "here", ")", "."]
    for key in range(60):
        new = TextAugmenter("swap:0.9,deletion:0.3,insertion:0.3,case:0.3").augment_words(words, key=key).words
        assert [word for word in new if word in {",", "(", ")", "."}] == [",", "(", ")", "."]


def test_sentences_of_tokens_change_places_and_a_word_stays():
    words = ["One", "came", ".", "Two", "left", "!"]
    seen = {" ".join(TextAugmenter("shuffle_sentences:1").augment_words(words, key=key).words) for key in range(9)}
    assert seen == {"Two left ! One came ."}
    assert TextAugmenter("deletion:1").augment_words(["a", ".", "b"]).words in (["a", "."], [".", "b"])
    assert TextAugmenter("deletion:1").augment_words(["a", "b"], locked=[True, False]).words == ["a"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: labels_follow(["O"], [0, 1]), "labels=.*2 or more"),
        (lambda: labels_follow([9], [-1, 0], NAMES), "labels=.*5 names"),
        (lambda: labels_follow([0, 0], [1, 1], ["U-PER"]), "names=.*'B-PER'"),
        (lambda: TextAugmenter("swap:1").augment_labelled(["a"], ["O", "O"]), "labels='2 of them'.*give 1"),
        (lambda: one_each("labels", "OO", 2), "labels='OO'"),
    ],
)
def test_wrong_labels_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
