"""The token recipe: its files, columns and tags, what falls off on the way to tokens, and a run of both Trainers."""

import json
import os

import datasets
import numpy as np
import pandas as pd
import pytest
from animals import ANIMALS, WORDS, save_encoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, RobertaTokenizer

from hf_sat.tasks.compare import compare
from hf_sat.tasks.run_options import read_run_options
from hf_sat.tasks.token_corpus import TAGS, Names, name_corpus, tagged_sentences
from hf_sat.tasks.token_data import TokenColumns, find_token_columns, load_tokens, tag_names, with_tags
from hf_sat.tasks.token_files import load_token_file
from hf_sat.tasks.tokens import OFFLINE, OWN_DATA, TokenOptions, read_token_options, token_task, word_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# ---- the offline sentences ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus():
    return name_corpus(40, 20, libraries=("networkx", "numpy"))


def test_corpus_is_deterministic_and_moves_with_the_seed(corpus):
    again, other = (name_corpus(40, 20, ("networkx", "numpy"), seed=seed) for seed in (0, 1))
    assert all(again[split].to_dict() == corpus[split].to_dict() for split in corpus)
    assert other["train"]["tokens"][:] != corpus["train"]["tokens"][:]


def test_corpus_has_names_in_each_sentence_and_no_marks(corpus):
    assert (len(corpus["train"]), len(corpus["test"])) == (40, 20)
    for row in [*corpus["train"], *corpus["test"]]:
        tags = [TAGS[tag] for tag in row["tags"]]
        assert any(tag != "O" for tag in tags) and len(tags) == len(row["tokens"])
        assert not {"`", "_", "="} & set("".join(w for w, tag in zip(row["tokens"], tags) if tag == "O"))


def test_tags_follow_from_the_source():
    source = '''
class Box:
    """A box."""

def fill(weight, other=None):
    """Fill it.

    Parameters
    ----------
    weight : str
        The size of ``weight`` in :class:`~boxes.Box` is None.
    other : int
        See `unknown` for more about what is done. Where `weight` is negative the weight is none of it.
    """
'''
    (sentence,) = tagged_sentences(source, Names({"Box"}, {"fill"}))
    words = ["The", "size", "of", "weight", "in", "boxes", ".", "Box", "is", "None", "."]
    tags = ["O", "O", "O", "B-PARAMETER", "O", "B-CLASS", "I-CLASS", "I-CLASS", "O", "O", "O"]
    assert sentence == list(zip(words, tags))


def test_corpus_refuses_what_there_is_too_little_of():
    with pytest.raises(ValueError, match="'rich' has too few sentences"):
        name_corpus(4000, 2, libraries=("rich",))


# ---- files ----------------------------------------------------------------------------------------------------------

COLUMNS = [["the", "O", "O"], ["cat", "B-A", "O"], ["#", "O", "O"]], [["owl", "B-A", "B-A"]]


def write(path, text: str) -> str:
    path.write_bytes(text.encode("utf-8"))
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "# word\tgold\tdistant\nthe\tO\tO\ncat\tB-A\tO\n#\tO\tO\n\nowl\tB-A\tB-A\n",
        "# word gold distant\r\n-DOCSTART- O O\r\n\r\nthe O O\r\ncat B-A  O\r\n# O O\r\n \r\n# text\r\nowl B-A B-A",
        "\ufeff# word gold distant\n\n\nthe O O\ncat B-A O\n# O O\n\n\nowl B-A B-A\n",
    ],
)
def test_lines_with_columns(text, tmp_path):
    rows = load_token_file("train_file", write(tmp_path / "train.conll", text))
    assert rows.column_names == ["word", "gold", "distant"]
    for at, name in enumerate(rows.column_names):
        assert rows[name][:] == [[fields[at] for fields in sentence] for sentence in COLUMNS]


def test_lines_without_names_of_columns(tmp_path):
    rows = load_token_file("train_file", write(tmp_path / "a.txt", "EU NNP I-NP B-ORG\n. . O O\n\nx\u2028y NN O O\n"))
    assert rows.to_dict() == {
        "tokens": [["EU", "."], ["x\u2028y"]],
        "column_2": [["NNP", "."], ["NN"]],
        "column_3": [["I-NP", "O"], ["O"]],
        "tags": [["B-ORG", "O"], ["O"]],
    }


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_tables_of_lists(ending, tmp_path):
    frame = pd.DataFrame({"tokens": [["a", "b"], []], "tags": [["O", "B-X"], []]})
    path = str(tmp_path / f"train.{ending}")
    frame.to_parquet(path) if ending == "parquet" else frame.to_json(path, orient="records", lines=ending == "jsonl")
    train, validation = load_tokens(train_file=path)
    assert validation is None and train.to_dict() == frame.to_dict("list")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", b"the O\ncat\n", r"line 2 has 1 columns, not 2 \(tokens, tags\)"),
        ("a.conll", b"\n\n", "no sentence"),
        ("a.conll", b"caf\xe9 O\n", "not UTF-8"),
        ("a.csv", b"", r"\.conll.*\.parquet"),
    ],
)
def test_files_that_cannot_be_read_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"train_file=.*{message}"):
        load_token_file("train_file", str(tmp_path / name))
    with pytest.raises(ValueError, match="no such file"):
        load_token_file("train_file", str(tmp_path / "none.conll"))


# ---- columns and tags -----------------------------------------------------------------------------------------------


def sentences(**columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"tokens": [["a", "b"], ["c"]], **columns})


def test_columns_are_found_or_asked_for():
    tags = [["O", "B-X"], ["O"]]
    data = sentences(ner_tags=tags, clean_ner_tags=tags, n=[1, 2])
    columns = find_token_columns(data, None, None)
    assert (columns.tokens, columns.tags, columns.clean) == ("tokens", "ner_tags", "clean_ner_tags")
    data = sentences(distant=tags, gold=tags, n=[1, 2])
    assert find_token_columns(data, None, "distant").clean is None
    assert find_token_columns(data, None, "distant", "gold").clean == "gold"
    for wanted, message in {
        ("token", None): "tokens_column='token'.*Did you mean 'tokens'",
        (None, None): "label_column=None.*name one of",
        (None, "n"): "label_column='n'.*not lists",
        ("n", "gold"): "tokens_column='n'.*not lists",
        (None, "distant", "golden"): "clean_label_column='golden'.*Did you mean 'gold'",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_token_columns(data, *wanted)


def test_tags_of_every_kind_become_the_same_classes():
    names = ["O", "B-X", "I-X"]
    strings = sentences(tags=[["B-X", "I-X"], ["O"]])
    numbers = sentences(tags=[[1, 2], [0]])
    feature = datasets.List(datasets.ClassLabel(names=["I-X", "O", "B-X"]))
    classes = sentences().add_column("tags", [[2, 0], [1]], feature=feature)
    tags = TokenColumns("tokens", "tags")
    assert tag_names(strings, tags) == ["O", "B-X", "I-X"]
    assert tag_names(numbers, tags) == ["O", "1", "2"] and tag_names(numbers, tags, names) == names
    assert tag_names(classes, tags) == ["I-X", "O", "B-X"]
    missed = strings.add_column("gold", [["B-Y", "O"], ["O"]])
    assert tag_names(missed, TokenColumns("tokens", "tags", "gold")) == ["O", "B-X", "B-Y", "I-X"]
    for data in (strings, numbers, classes):
        made = with_tags(data, find_token_columns(data, None, None), names)
        assert made["labels"][:] == [[1, 2], [0]] and made.features["labels"].feature.names == names
    with pytest.raises(ValueError, match=r"tag_names='O,B-X'.*has the tag 2"):
        tag_names(numbers, tags, ["O", "B-X"])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([["O", "B-X"], ["O", "O"]], "2 tags for 1 words in row 1"),
        ([["O", "B-X"], None], "no tags for 1 words in row 1"),
        ([["O", "B-Y"], ["O"]], "'B-Y' in row 0"),
        ([["O", None], ["O"]], "None in row 0"),
        ([[0, 5], [0]], "5 in row 0"),
    ],
)
def test_tags_that_cannot_be_are_refused_with_their_row(tags, message):
    data = sentences(tags=tags)
    with pytest.raises(ValueError, match=f"held-out data.*'tags' has {message}"):
        with_tags(data, find_token_columns(data, None, "tags"), ["O", "B-X"], "the held-out data")


def test_columns_without_tags_are_refused():
    for tags, message in ([[0.5, 1.0], [0.0]], "float64"), ([["O", "O"], ["O"]], r"\['O'\]"):
        with pytest.raises(ValueError, match=f"label_column='tags'.*{message}"):
            tag_names(sentences(tags=tags), TokenColumns("tokens", "tags"))
    missing = datasets.Dataset.from_dict({"tokens": [["a"], ["b", None]], "tags": [["O"], ["O", "O"]]})
    with pytest.raises(ValueError, match="'tokens' lacks words in row 1"):
        with_tags(missing, find_token_columns(missing, None, None), ["O", "B-X"])


# ---- options --------------------------------------------------------------------------------------------------------


def test_defaults_add_noise_to_the_offline_sentences_alone():
    offline, args = read_token_options([])
    assert offline.noise_rate > 0 and offline.compare and args.output_dir == OFFLINE["output_dir"]
    own, _ = read_run_options(["--train_file", "x.conll"], [TokenOptions], OFFLINE, OWN_DATA)
    assert own.noise_rate == 0 and not own.compare
    assert all(field.metadata["help"] for field in TokenOptions.__dataclass_fields__.values())
    for argv, message in {
        ("--noise_type", "instance"): "noise_type.*instance",
        ("--token_column", "x"): "did you mean 'tokens_column'",
        ("--max_length", "1"): "max_length=1",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_token_options(argv)


# ---- from words to tokens, and both Trainers ------------------------------------------------------------------------

KINDS = {"cat": "B-PET", "dog": "B-PET", "owl": "B-BIRD"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(str(tmp_path_factory.mktemp("encoder")))


def animal_sentences(n: int = 60) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    rows = [[*rng.choice(WORDS[5:], 2), ANIMALS[i % 3], *rng.choice(WORDS[2:], 2)] for i in range(n)]
    return datasets.Dataset.from_dict(
        {"tokens": rows, "tags": [[KINDS.get(word, "O") for word in row] for row in rows]}
    )


@pytest.fixture
def run(encoder, tmp_path):
    """Runs the recipe on 60 sentences of a file; returns the results, the output folder and the task."""
    animal_sentences().to_json(f"{tmp_path}/train.jsonl")
    common = (
        f"--model_name_or_path {encoder} --train_file {tmp_path}/train.jsonl --output_dir {tmp_path}/out --use_cpu "
    )
    common += f"--validation_file {tmp_path}/train.jsonl --disable_tqdm true --learning_rate 3e-3 "

    def start(flags: str):
        options, args = read_token_options((common + flags).split())
        task = token_task(options, args)
        return compare(task, args, with_plain=options.compare), f"{tmp_path}/out", task

    return start


def flat(column) -> np.ndarray:
    return np.concatenate(column[:])


def test_comparison_end_to_end(run, capsys):
    flags = "--noise_rate 0.3 --noise_type mistyped --compare --num_train_epochs 6 --save_strategy epoch"
    (plain, sat), folder, task = run(flags)
    table = pd.read_parquet(os.path.join(folder, "labels.parquet"))
    given, clean = flat(task.train["labels"]), flat(task.train["clean_labels"])
    counted = given != -100
    assert table["given_label"].tolist() == given[counted].tolist() and "token_index" in table
    wrong = given[counted] != clean[counted]
    entities = sum(tag != "O" for tag in flat(animal_sentences()["tags"]))
    assert wrong.sum() == round(0.3 * entities)
    changed = table["corrected_label"] != table["given_label"]
    right = changed & (table["corrected_label"] == clean[counted])
    assert sat.corrected == changed.sum() > 0
    assert sat.precision == pytest.approx(right.sum() / sat.corrected)
    assert sat.recall == pytest.approx(right.sum() / wrong.sum())
    assert plain.metric == sat.metric == "f1" and 0 <= plain.score <= 1 and sat.score > 0.5
    with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
        assert [entry["score"] for entry in json.load(file)] == [plain.score, sat.score]
    assert "f1 at the end" in capsys.readouterr().out

    (plain_again, sat_again), _, _ = run(f"{flags} --resume_from_checkpoint true")
    assert (plain_again.score, sat_again.score) == (plain.score, sat.score)
    assert sat_again.resumed and sat_again.corrected == sat.corrected


def test_distant_and_clean_tags_of_a_file(encoder, tmp_path):
    """The clean tags are never trained on; held-out sentences are measured by theirs."""
    train = write(
        tmp_path / "train.conll", "# word\tgold\tdistant\n" + "the\tO\tO\ncat\tB-A\tO\n\nowl\tB-A\tB-A\n\n" * 4
    )
    held_out = write(tmp_path / "held_out.conll", "# word\tgold\nthe\tO\nowl\tB-A\n")
    flags = f"--model_name_or_path {encoder} --train_file {train} --validation_file {held_out} --output_dir {tmp_path} "
    flags += "--tokens_column word --label_column distant --clean_label_column gold --use_cpu "
    task = token_task(*read_token_options(flags.split()))
    assert task.train["labels"][:2] == [[0, 0], [1]] and task.train["clean_labels"][:2] == [[0, 1], [1]]
    assert task.validation["labels"][:] == [[0, 1]]
    with pytest.raises(ValueError, match=r"noise_rate=0\.2.*'gold'"):
        token_task(*read_token_options(f"{flags} --noise_rate 0.2".split()))


@pytest.fixture
def pieces(tmp_path):
    """A folder with a tokenizer that cuts words in two, and drops what it does not know the letters of."""
    words = ["[PAD]", "[UNK]", "th", "##e", "ca", "##t", "owl"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("\u200b", "")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = save_encoder(str(tmp_path / "pieces"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_what_falls_off_is_counted(pieces, tmp_path, capsys):
    rows = [["the", "\u200b", "cat"], [], ["\u200b"], ["cat", "cat", "cat"]]
    tags = [["O", "O", "B-A"], [], ["B-A"], ["B-A", "O", "O"]]
    datasets.Dataset.from_dict({"tokens": rows, "tags": tags}).to_json(f"{tmp_path}/train.jsonl")
    flags = f"--model_name_or_path {pieces} --train_file {tmp_path}/train.jsonl --output_dir {tmp_path} --max_length 5"
    options, args = read_token_options(f"{flags} --use_cpu".split())
    task = token_task(options, args)
    assert task.train["labels"][:] == [[0, -100, 1, -100], [1, -100, 0, -100, 0]]
    assert task.train["source_row"][:] == [0, 3] and args.sample_id_column == "source_row"
    told = capsys.readouterr().out
    assert "2 of 7 tags have no token, 0 beyond max_length=5, 2 of words" in told and "2 sentences" in told
    options.max_length = 3
    assert token_task(options, args).train["labels"][:] == [[0, -100, 1], [1, -100, 0]]
    assert "3 of 7 tags have no token, 2 beyond max_length=3" in capsys.readouterr().out


def test_augmented_sentences(run):
    flags = "--augment swap:0.9 --noise_rate 0.3 --noise_type missed --num_train_epochs 2 --save_strategy no"
    (sat,), folder, task = run(flags)
    assert task.views is not None and sat.recall is not None
    assert len(pd.read_parquet(os.path.join(folder, "labels.parquet"))) == (flat(task.train["labels"]) != -100).sum()


def test_views_need_the_tags_that_begin_entities(encoder, tmp_path):
    train = write(tmp_path / "train.conll", "the O\ncat I-A\n\nowl I-A\nowl I-A\n")
    flags = f"--model_name_or_path {encoder} --train_file {train} --output_dir {tmp_path} --use_cpu --augment swap:0.5"
    with pytest.raises(ValueError, match=r"augment='swap:0\.5'.*lack 'B-A'"):
        token_task(*read_token_options(flags.split()))


def test_byte_level_tokenizers_read_words_as_in_a_text(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, "Ġc", "ca", "Ġca"]
    merges = [("Ġ", "c"), ("c", "a"), ("Ġc", "a")]
    RobertaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges).save_pretrained(tmp_path)
    tokens = word_tokenizer(str(tmp_path))(["ca", "ca"], is_split_into_words=True)
    assert tokens.tokens() == ["<s>", "Ġca", "Ġca", "</s>"] and tokens.word_ids() == [None, 0, 1, None]
