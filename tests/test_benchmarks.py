"""The benchmark in recipes/benchmarks: its data, its grid and its methods."""

from pathlib import Path

import datasets
import grid as grid_command
import numpy as np
import pytest
import torch
from benchmark_runs import fake_cell
from noisy_labels import cell, hub, results
from noisy_labels.columns import ALL, CHOOSE, REPORT, Column, select
from noisy_labels.data import Examples, read
from noisy_labels.data import tables as tables_of
from noisy_labels.methods import METHODS, method
from noisy_labels.models import Prepared, Setting, TextClassifier
from noisy_labels.training import run_method
from PIL import Image
from small import pad
from transformers import BertConfig, BertModel

DATA = Path(__file__).parents[2] / "shared" / "data"

# ---- data -----------------------------------------------------------------------------------------------------------


def test_halves_are_apart_and_both_have_every_kind_of_data():
    assert not set(CHOOSE) & set(REPORT)
    for half in (CHOOSE, REPORT):
        assert {"trec", "ag", "cifar"} <= {Column.parse(name).data for name in half}
    assert select("choose:images,ag/cl*,trec/pair10") == ["cifar/symmetric40", "cifar/worse", "ag/clean", "trec/pair10"]
    with pytest.raises(ValueError, match="trec/pears"):
        select("trec/pears")


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark's data are not here: ../shared/data")
@pytest.mark.parametrize("name", [name for name in ALL if not Column.parse(name).is_image])
def test_reader_gives_the_columns_and_their_clean_labels(name):
    column = Column.parse(name)
    train, held_out = read(column, str(DATA), seed=3, samples=200)
    assert (len(train), len(held_out)) == (200, 1000)
    assert not set(train.inputs) & set(held_out.inputs) and not held_out.is_wrong.any()
    assert set(train.clean) <= set(range(len(train.classes)))
    if column.is_real:
        assert 0.1 < train.is_wrong.mean() < 0.6
    else:
        clean, _ = read(Column(column.data, "clean"), str(DATA), seed=3, samples=200)
        assert train.inputs == clean.inputs and (train.clean == clean.labels).all()
        assert train.is_wrong.mean() == (column.injected[1] if column.injected else 0)
    if column.injected and column.injected[0] == "pair":
        assert ((train.labels - train.clean) % len(train.classes) <= 1).all()


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark's data are not here: ../shared/data")
def test_reader_takes_a_test_file_whole_that_is_shorter_than_the_limit():
    _, test = read(Column("trec", "pair20"), str(DATA), seed=0, samples=100, split="test", eval_samples=1000)
    assert len(test) == 500


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark's data are not here: ../shared/data")
def test_reader_samples_by_seed_and_tests_on_the_same_rows():
    one, test = read(Column("trec", "pair20"), str(DATA), seed=0, samples=100, split="test", eval_samples=50)
    other, same_test = read(Column("trec", "pair20"), str(DATA), seed=1, samples=100, split="test", eval_samples=50)
    again, _ = read(Column("trec", "pair20"), str(DATA), seed=0, samples=100, split="test", eval_samples=50)
    assert one.inputs != other.inputs and one.inputs == again.inputs and (one.labels == again.labels).all()
    assert test.inputs == same_test.inputs and len(test) == 50
    with pytest.raises(ValueError, match="no labels"):
        read(Column("sst", "weak"), str(DATA), seed=0)
    with pytest.raises(ValueError, match="samples=9999"):
        read(Column("trec", "clean"), str(DATA), seed=0, samples=9999)


def hub_split(data: str, rows: int) -> datasets.Dataset:
    """Rows as the data set has them on the Hub: class numbers with names, names in a column of their own, or images."""
    if data == "cifar":
        images = [Image.new("RGB", (4, 4), (k, 0, rows)) for k in range(rows)]
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ant"])})
        return datasets.Dataset.from_dict({"img": images, "label": [k % 2 for k in range(rows)]}, features)
    texts, numbers = [f"text {k} of {rows}" for k in range(rows)], [k % 2 for k in range(rows)]
    if data == "ag":
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["W", "B"])})
        return datasets.Dataset.from_dict({"text": texts, "label": numbers}, features)
    names = {name: [("LOC", "HUM")[k] for k in numbers] for name in ("label_text", "label_coarse_original")}
    return datasets.Dataset.from_dict({"text": texts, "label": numbers, **names})


@pytest.mark.parametrize("data", ["trec", "sst", "subj", "ag", "cifar"])
def test_reader_takes_the_names_on_the_hub(monkeypatch, data):
    asked = []
    splits = datasets.DatasetDict(train=hub_split(data, 40), test=hub_split(data, 7))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or splits)
    tables_of.cache_clear()
    train, test = read(Column(data, "symmetric20"), "hub", seed=0, samples=30, split="test")
    tables_of.cache_clear()
    assert asked == [hub.SOURCES[data].name]
    assert (len(train), len(test), train.is_wrong.sum(), test.is_wrong.sum()) == (30, 7, 6, 0)
    assert train.classes == {"ag": ["B", "W"], "cifar": ["ant", "cat"]}.get(data, ["HUM", "LOC"])
    first = int(test.inputs[0, 0, 0, 0]) if data == "cifar" else int(test.inputs[0].split()[1])
    assert test.clean[0] == 1 - first % 2  # the classes stand by name, and the first here is the second of them
    if data == "trec":
        with pytest.raises(ValueError, match="'weak' on the Hub; name a data_dir"):
            read(Column("trec", "weak"), "hub", seed=0)
        tables_of.cache_clear()


def test_data_that_are_not_there_are_named():
    with pytest.raises(FileNotFoundError, match="data_dir='nowhere': there is no subj/subj"):
        read(Column("subj", "clean"), "nowhere", seed=0)


# ---- the grid -------------------------------------------------------------------------------------------------------


def options(path: Path, **changes) -> grid_command.Grid:
    defaults = {"columns": "trec/pair40,trec/clean", "methods": "ce,sat,oracle", "epochs": "2", "results": str(path)}
    return grid_command.Grid(**{**defaults, **changes})


def test_keys_differ_by_all_that_matters_and_by_nothing_else(tmp_path):
    def keys(**changes) -> list[str]:
        return [one.key for one in grid_command.cells(options(tmp_path, **changes))]

    base = keys()
    # The oracle of both columns is CE on the clean one.
    assert len(base) == len(set(base)) == 4
    every = [base, keys(epochs="3"), keys(seeds="1"), keys(samples=10), keys(layers=2), keys(bf16=False)]
    every += [
        keys(data_dir="hub"),
        keys(split="test"),
        keys(split="test", eval_samples=7),
        keys(methods="sat:sat_momentum=0.5"),
    ]
    assert len({key for of_grid in every for key in of_grid}) == sum(map(len, every))
    assert keys(eval_samples=7) == keys(image_size=32) == base


def test_a_second_run_does_nothing_and_a_killed_one_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setattr(cell, "run_cell", lambda one, data_dir: fake_cell(one))
    assert grid_command.run(options(path, shard="0/2")) == grid_command.run(options(path, shard="1/2")) == 2
    before = path.read_text()
    assert grid_command.run(options(path)) == 0 and path.read_text() == before
    path.write_text(before[:-30])  # a kill in the middle of the last line
    assert grid_command.run(options(path)) == 1
    assert len(list(results.stored(path))) == 4 and grid_command.run(options(path)) == 0
    assert grid_command.run(options(path, seeds="1", time_limit=-1.0)) == 0


def test_unknown_methods_are_refused_before_anything_runs(tmp_path):
    for names, message in {"ce,scat": "scat", "sat:sat_momentum": "setting=value"}.items():
        with pytest.raises(ValueError, match=message):
            grid_command.run(options(tmp_path / "x", methods=names))
    assert not (tmp_path / "x").exists()


# ---- the methods ----------------------------------------------------------------------------------------------------


def tiny_setting() -> Setting:
    def make_model() -> TextClassifier:
        torch.manual_seed(0)
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        return TextClassifier(BertModel(BertConfig(vocab_size=40, num_labels=3, **size), add_pooling_layer=False))

    def prepare(examples: Examples) -> Prepared:
        return Prepared(
            [{"input_ids": [int(word) for word in text.split()]} for text in examples.inputs], examples.labels
        )

    return Setting(make_model, prepare, pad)


def tiny_examples(n: int = 64) -> Examples:
    clean = np.arange(n) % 3
    texts = [f"{5 + y} {10 + i % 7} {20 + i % 5}" for i, y in enumerate(clean)]
    labels = np.where(np.arange(n) % 4 == 0, (clean + 1) % 3, clean)
    return Examples(texts, labels, clean, ["a", "b", "c"])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_runs(name):
    if method(name).labels == "filtered":
        pytest.importorskip("cleanlab")
    examples = tiny_examples()
    outcome = run_method(name, tiny_setting(), examples, examples.with_clean_labels(), epochs=1, seed=0, bf16=False)
    assert outcome.num_train == 64 and outcome.wrong == 0.25  # two steps
    assert 0 <= outcome.accuracy == outcome.accuracy_by_epoch[-1] <= 1
    finds = method(name).labels == "filtered" or not (
        method(name).plain or method(name).settings.get("label_correction") == "none"
    )
    assert (outcome.auroc is not None) == (outcome.average_precision is not None) == finds
