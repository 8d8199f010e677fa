"""The benchmark in recipes/benchmarks: its data, its grid, the arithmetic of its report, and what README says of it."""

import doctest
import json
import math
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

BENCHMARKS = Path(__file__).parents[1] / "recipes" / "benchmarks"
DATA = Path(__file__).parents[2] / "shared" / "data"
sys.path.insert(0, str(BENCHMARKS))

import cost  # noqa: E402
import grid as grid_command  # noqa: E402
import report  # noqa: E402
import sam_cost  # noqa: E402
import turns as turns_module  # noqa: E402
from noisy_labels import (  # noqa: E402
    audit_text,
    blocks,
    cell,
    columns,
    cost_text,
    figure,
    hub,
    image_text,
    methods,
    results,
    summary,
    tables,
)
from noisy_labels.columns import ALL, CHOOSE, REPORT, Column, select  # noqa: E402
from noisy_labels.data import Examples, read  # noqa: E402
from noisy_labels.data import tables as tables_of  # noqa: E402
from noisy_labels.methods import METHODS, method  # noqa: E402
from noisy_labels.models import Prepared, Setting, TextClassifier  # noqa: E402
from noisy_labels.training import run_method  # noqa: E402
from peak_memory import peak_bytes  # noqa: E402
from per_parameter_sam import PerParameterSAM  # noqa: E402
from small import arguments, assert_same_tensors, bert, pad, text_data, weights  # noqa: E402
from turns import Turns, in_turn, ratio  # noqa: E402

from hf_sat import SATConfig, SATTrainer  # noqa: E402

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


def fake_cell(one: cell.Cell, accuracy: float = 0.5, **outcome) -> dict:
    curve = [accuracy] * one.epochs
    outcome = {"auroc": None, "average_precision": None, **outcome}
    return {
        "cell": vars(one),
        "accuracy": accuracy,
        "accuracy_by_epoch": curve,
        "seconds": 1.0,
        "device": "CPU, 1 thread",
    } | outcome


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


# ---- the report -----------------------------------------------------------------------------------------------------

# Accuracies by column, then method, a number a seed.
ACCURACIES = {
    "ag/symmetric40": {"ce": [0.5, 0.6], "gce": [0.6, 0.6], "sat": [0.7, 0.8]},
    "ag/pair40": {"ce": [0.4, 0.4], "gce": [0.5, 0.3], "sat": [0.4, 0.8], "cleanlab": [0.9, 0.9]},
    "ag/clean": {"ce": [0.9, 0.8], "gce": [0.91, 0.81], "sat": [0.89, 0.84]},
    "subj/clean": {"ce": [0.95], "sat": [0.96]},
}


def stored_cells(path: Path, accuracies: dict = ACCURACIES, **outcome) -> pd.DataFrame:
    for column, by_method in accuracies.items():
        for name, values in by_method.items():
            for seed, accuracy in enumerate(values):
                one = cell.make_cell(column, name, 3, 96, "test", 1000, epochs=10, seed=seed, samples=1500, bf16=True)
                results.append(path, fake_cell(one, accuracy, **outcome))
    return results.load(path)


@pytest.fixture
def cells(tmp_path) -> pd.DataFrame:
    return stored_cells(tmp_path / "noisy_labels.jsonl")


def test_oracles_are_ce_on_the_clean_labels_of_the_same_seed(cells):
    oracles = cells[cells["method"] == "oracle"].set_index(["column", "seed"])["accuracy"]
    assert oracles["ag/symmetric40"].tolist() == oracles["ag/pair40"].tolist() == [0.9, 0.8]
    assert oracles["subj/clean"].tolist() == [0.95] and len(oracles) == 7


def test_cells_of_an_older_version_do_not_count(tmp_path):
    path = tmp_path / "noisy_labels.jsonl"
    stored_cells(path, {"ag/pair40": {"ce": [0.5]}})
    row = json.loads(path.read_text())
    for change in ({"version": "0.1"}, {"method": "gone"}):
        results.append(path, {**row, "cell": {**row["cell"], **change}})
    assert results.load(path)["method"].tolist() == ["ce"]
    assert results.load(tmp_path / "none").empty


def test_ranks_are_over_columns_and_seeds_that_all_have(cells):
    ranks, columns = summary.average_ranks(cells)
    # Means: symmetric .55 .6 .75; pair .4 .4 .6 (a tie); clean .85 .86 .865. SUBJ lacks GCE; cleanlab is not ranked.
    assert columns == 3 and ranks.to_dict() == {"ce": pytest.approx(8.5 / 3), "gce": pytest.approx(6.5 / 3), "sat": 1}


def test_gap_recovered(cells):
    # CE .55, oracle .85, SAT .75; and CE .4, SAT .6.
    assert summary.gap_recovered(cells, "sat", "symmetric40") == pytest.approx(2 / 3)
    assert summary.gap_recovered(cells, "sat", "pair40") == pytest.approx(0.2 / 0.45)
    assert math.isnan(summary.gap_recovered(cells, "elr", "pair40"))
    assert math.isnan(summary.gap_recovered(cells, "sat", "symmetric80"))


def test_difference_on_clean_labels_is_pooled_over_data_and_seeds(cells):
    found = summary.difference_on_clean(cells, "sat")  # -.01, +.04, +.01: deviation .02517, t(2) = 4.3027
    half = 4.3027 * 0.025166 / math.sqrt(3)
    assert found.count == 3 and found.mean == pytest.approx(0.04 / 3)
    assert (found.low, found.high) == pytest.approx((0.04 / 3 - half, 0.04 / 3 + half), abs=1e-5)
    assert summary.points(found) == "+1.33 (-4.92 to +7.58; 3 pairs)"
    same = summary.difference_on_clean(cells, "gce")
    assert (same.mean, same.count) == (pytest.approx(0.01), 2)
    assert summary.points(summary.interval([0.01])) == "+1.00 (1 pair)" and summary.points(summary.interval([])) == "-"
    assert summary.interval([0.5, 0.5]).low == summary.interval([0.5, 0.5]).high == 0.5


def test_wrong_labels_found_are_averaged_over_common_cells(tmp_path):
    path = tmp_path / "x"
    stored_cells(path, {"ag/pair40": {"sat": [0.5, 0.5], "elr": [0.5]}}, auroc=0.8, average_precision=0.6)
    both = stored_cells(path, {"ag/symmetric40": {"sat": [0.5], "elr": [0.5]}}, auroc=0.9, average_precision=0.7)
    assert summary.detection(both)["auroc"].to_dict() == pytest.approx({"elr": 0.85, "sat": 0.85})


def lines(table: str) -> list[list[str]]:
    return [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()]


def test_accuracy_table_copes_with_missing_cells(cells):
    header, _, *rows = lines(tables.accuracy_table(cells))
    assert header == ["data/noise", "ce", "gce", "sat", "cleanlab", "oracle", "seeds"]
    assert rows == [
        ["subj/clean", "95.0", "-", "**96.0**", "-", "95.0", "1"],
        ["ag/symmetric40", "55.0", "60.0", "**75.0**", "-", "85.0", "2"],
        ["ag/pair40", "40.0", "40.0", "**60.0**", "90.0", "85.0", "2"],
        ["ag/clean", "85.0", "86.0", "**86.5**", "-", "85.0", "2"],
    ]


def test_summary_has_a_row_for_each_method(cells):
    header, _, *rows = lines(summary.summary_table(cells, {"sat": 1.034}))
    assert [row[0] for row in rows] == ["ce", "gce", "sat", "cleanlab"]
    by_name = {row[0]: dict(zip(header, row)) for row in rows}
    assert by_name["sat"]["average rank"] == "1.0" and by_name["cleanlab"]["average rank"] == "-"
    assert [by_name[name]["cost of a step"] for name in ("ce", "gce", "sat", "cleanlab")] == ["1", "-", "1.03", "6"]
    assert summary.measured_costs([{"method": "sat", "ratio": 1.0}, {"method": "sat:x=1", "ratio": 1.1}]) == {
        "sat": 1.1
    }


def test_ablations_stand_under_the_method_as_it_is(tmp_path):
    accuracies = {
        "trec/pair40": {"sat": [0.7, 0.6], "sat:sat_momentum=0.5": [0.8]},
        "trec/clean": {"sat": [0.9], "sat:sat_momentum=0.5": [0.88], "ce": [0.9]},
    }
    cells = stored_cells(tmp_path / "x", accuracies)
    _, _, *rows = lines(tables.ablation_table(cells))
    assert rows == [
        ["`sat`", "65.0", "90.0", "-", "3"],
        ["`sat:sat_momentum=0.5`", "80.0", "88.0", "+4.0", "2"],
    ]
    assert "momentum" not in tables.accuracy_table(cells)


def test_every_grid_and_half_has_a_section_that_says_which_it_is(tmp_path):
    path = tmp_path / "noisy_labels.jsonl"
    stored_cells(path)
    same = {"epochs": 10, "seed": 0, "bf16": False}
    for name in ("ce", "sat"):  # another grid, of the other half
        one = cell.make_cell("trec/pair40", name, 6, 96, "held_out", 0, samples=0, **same)
        results.append(path, fake_cell(one, 0.5))
    text = report.all_blocks(results.load(path), tmp_path)["accuracy"]
    first, second = (line for line in text.splitlines() if line.startswith("**"))
    assert first == (
        "**Reporting half, 10 epochs** (1,500 training examples, measured on at most 1,000 examples of the test file; "
        "first 3 layers of MiniLM-L6; bfloat16 autocast; seeds 0, 1; CPU):"
    )
    assert second.startswith("**Choosing half, 10 epochs** (all training examples, measured on 1,000 held out")
    assert "6 layers" in second and "float32; seeds 0" in second
    main = report.main_blocks(results.load(path), tmp_path)
    assert "trec" not in main["accuracy"] and main["figure"].startswith("![")
    assert report.all_blocks(results.load(path), tmp_path)["best_epoch"].count("at the best epoch") == 2


def test_curves_are_means_over_common_cells(cells):
    panels = figure.curves(cells)
    assert list(panels) == ["symmetric40 (AG News)", "pair40 (AG News)", "clean (AG News, SUBJ)"]
    assert panels["pair40 (AG News)"].loc[10].to_dict() == pytest.approx({"ce": 0.4, "sat": 0.6, "oracle": 0.85})


def test_without_results_the_texts_say_so(tmp_path):
    empty = results.load(tmp_path / "none")
    assert report.main_blocks(empty, tmp_path)["accuracy"] == report.NOTHING
    assert set(report.all_blocks(empty, tmp_path).values()) == {report.NOTHING, "Not measured yet."}


def test_blocks_are_found_or_asked_for():
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb"
    once = blocks.with_blocks(text, {"x": r"new \1"})
    assert once == "a\n<!-- x: begin -->\nnew \\1\n<!-- x: end -->\nb" == blocks.with_blocks(once, {"x": r"new \1"})
    with pytest.raises(ValueError, match="block 'y'"):
        blocks.with_blocks(text, {"y": ""})


def test_readme_is_what_the_results_give(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report.py", "--check"])
    with pytest.raises(SystemExit) as left:
        report.main()
    assert left.value.code == 0


@pytest.mark.parametrize("module", [blocks, columns, cost_text, methods, summary, turns_module])
def test_examples_run(module):
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


# ---- cost -----------------------------------------------------------------------------------------------------------


def small_trainer(folder: str, kind: type = Trainer, config: type = TrainingArguments, **settings) -> Trainer:
    args = arguments(folder, config, max_steps=5, **settings)
    return kind(bert(dropout=0.0), args, train_dataset=text_data(), data_collator=pad)


def test_trainers_take_turns_and_end_where_they_would_alone(runs):
    alone = small_trainer(runs)
    alone.train()
    played = []

    def watch(turns: Turns, player: int) -> None:
        for _ in range(5):
            played.append(len(turns.seconds[0]))
            turns.hand_over(player)

    trainers = [small_trainer(runs), small_trainer(runs, SATTrainer)]
    seconds = in_turn(trainers, watch)
    assert [len(one) for one in seconds] == [5, 5, 5] and played == [1, 2, 3, 4, 5]
    assert ratio(seconds[0], seconds[0]) == 1 and ratio([2, 3, 8], [1, 1, 2]) == 3
    assert_same_tensors(weights(alone), weights(trainers[0]))


def test_an_error_ends_the_turns_of_one_alone():
    turns = Turns(2)

    def fails() -> None:
        raise KeyError("first")

    def plays() -> None:
        for _ in range(3):
            turns.hand_over(1)

    with pytest.raises(KeyError, match="first"):
        turns.run([fails, plays])
    assert len(turns.seconds[1]) == 3


def test_the_loop_over_parameters_is_sam(runs):
    """The same weights as the library's SAM, so that their costs are of the same thing."""
    loop = small_trainer(runs, PerParameterSAM)
    library = small_trainer(runs, SATTrainer, SATConfig, label_correction="none", sam="sam")
    for trainer in (loop, library):
        trainer.train()
    for name, value in weights(library).items():
        torch.testing.assert_close(weights(loop)[name], value, rtol=1e-4, atol=1e-4)


def test_peak_memory_is_the_largest_sum():
    def run() -> None:
        first = torch.zeros(1000)
        second = torch.zeros(2000)
        del first
        torch.zeros(500)
        del second

    assert 12_000 <= peak_bytes(run) < 13_000


def test_cost_of_a_method_is_measured(runs):
    few = cost.Options(steps=3, memory_steps=1, batch_size=2, examples=50)
    measured = cost.time_over_plain("sat:sat_start_epoch=0", few, runs)
    assert measured["plain_ms"] > 0 and 0.1 < measured["ratio"] < 10
    assert cost.peak_memory("elr", few, runs) > 50 * 2**20  # bytes, of a process that holds torch
    for name in cost.METHODS.split(","):
        assert method(name).trainings == 1


def test_late_sam_is_weighed_by_its_share_of_the_run():
    # Ten steps, the first not counted: nine plain ones, and the last of SAM.
    assert sam_cost.over_plain_late({"late sam": [1.0] * 8 + [3.0], "plain": [1.0] * 9}, steps=10) == pytest.approx(1.2)


def test_cost_is_told_from_the_files(tmp_path):
    def write(name: str, **content) -> None:
        (tmp_path / name).write_text(json.dumps({"device": "CPU, 1 thread", **content}))

    rows = [
        {"rows": n, "ratio": r, "sat_ms": 80.4, "message_bytes": 2600, "wait_ms": 0.123}
        for n, r in ((10**4, 1.0), (10**6, 1.04))
    ]
    write("step_time.json", rows=rows, clock="from batch to batch", batch_size=8)
    write("step_time_2_processes.json", rows=rows)
    write("cost.json", rows=[{"method": "sat", "ratio": 1.023}, {"method": "elr", "ratio": 1.0}])
    write("top_k.json", rows=[{"k": 8, "mean": 0.048, "same_label": 1.0}], examples=1000, classes=50)
    told = cost_text.cost_paragraph(tmp_path)
    assert "from batch to batch, takes 1.00 and 1.04 times the plain Trainer's at 10,000 and 1,000,000 examples" in told
    assert "2,600 bytes a step and waits for 0.12 ms" in told and "`elr` 1.00 and `sat` 1.02" in told
    assert "50 fine classes 8 entries differ from all of them by 0.05" in cost_text.top_k_sentence(tmp_path)
    assert "not been measured" in cost_text.cost_paragraph(tmp_path / "none")


def test_words_about_images(tmp_path):
    assert image_text.cifar10n_sentence(tmp_path) == cost_text.NOT_MEASURED
    told = {"train_samples": 10_000, "eval_samples": 500, "image_size": 48, "epochs": 8.0}
    plain = {"name": "plain Trainer", "score": 0.5, "recall": None, "precision": None}
    sat = {"name": "SATTrainer", "score": 0.625, "recall": 0.25, "precision": 0.75}
    result = {"device": "CPU, 1 thread", "settings": told, "rows": [plain, sat]}
    (tmp_path / "cifar10n.json").write_text(json.dumps(result))
    sentence = image_text.cifar10n_sentence(tmp_path)
    assert "8 epochs: 50.0 % of 500 test pictures" in sentence and "62.5 % with SATTrainer" in sentence
    assert "25.0 % of the wrong labels and is right in 75.0 %" in sentence and "(1 seed;" in sentence


def test_the_audit_table_is_of_its_results(tmp_path):
    assert audit_text.audit_table(tmp_path) == cost_text.NOT_MEASURED
    about = {"samples": 1500, "epochs": 5, "layers": 3, "device": "CPU of a kind, 1 threads", "num_train": 1500}
    found = {"auroc": 0.8, "average_precision": 0.6, "rate": 0.25, "cpu_seconds": 10.0}
    clean = {"rate": 0.01, "cpu_seconds": 10.0}
    runs = [
        {"column": "a/pair20", "seed": 0, "wrong": 0.2, "report": found, "cleanlab": {**found, "cpu_seconds": 40.0}},
        {"column": "a/pair20", "seed": 1, "wrong": 0.2, "report": {**found, "auroc": 0.9}, "cleanlab": found},
        {"column": "a/clean", "seed": 0, "wrong": 0.0, "report": clean, "cleanlab": {**clean, "rate": 0.05}},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"runs": [{**about, **run} for run in runs]}))
    caption, _, _, _, *rows = audit_text.audit_table(tmp_path).splitlines()
    assert "means over 2 seeds" in caption and "take 1.0 times" in caption and "CPU of a kind." in caption
    assert rows == [
        "| a/pair20 | 0.850 / 0.800 | 0.600 / 0.600 | 20.0 | 25.0 / 25.0 |",
        "| a/clean | - | - | 0.0 | 1.0 / 5.0 |",
    ]
    audit_text.draw(tmp_path, tmp_path / "figures" / "audit.png")
    assert (tmp_path / "figures" / "audit.png").read_bytes().startswith(b"\x89PNG")
