"""The arithmetic of the benchmark's report, and what README says of it."""

import doctest
import json
import math
import sys
from pathlib import Path

import pandas as pd
import pytest
import report
import turns as turns_module
from benchmark_runs import fake_cell
from noisy_labels import blocks, cell, columns, cost_text, figure, methods, results, summary, tables

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
    ranks = summary.column_ranks(cells)
    averages = summary.average_ranks(ranks)
    # Means: symmetric .55 .6 .75; pair .4 .4 .6 (a tie); clean .85 .86 .865. SUBJ lacks GCE; cleanlab is not ranked.
    assert len(ranks) == 3 and list(averages) == ["average rank"]
    expected = {"ce": pytest.approx(8.5 / 3), "gce": pytest.approx(6.5 / 3), "sat": 1}
    assert averages["average rank"].to_dict() == expected


def test_texts_and_images_have_ranks_of_their_own():
    ranks = pd.DataFrame({"ce": [1.0, 2.0, 2.0], "sat": [2.0, 1.0, 1.0]}, ["cifar/worse", "ag/pair40", "trec/pair40"])
    averages = summary.average_ranks(ranks)
    assert averages["on texts"].to_dict() == {"ce": 2.0, "sat": 1.0}
    assert averages["on images"].to_dict() == {"ce": 1.0, "sat": 2.0}
    assert averages["average rank"]["sat"] == pytest.approx(4 / 3)


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
    some = stored_cells(path, {"ag/pair40": {"cleanlab": [0.5]}}, auroc=0.7, average_precision=0.6)
    assert summary.detection(some)["auroc"].to_dict() == pytest.approx({"elr": 0.85, "sat": 0.85})
    every = stored_cells(path, {"ag/symmetric40": {"cleanlab": [0.5]}}, auroc=0.9, average_precision=0.7)
    assert summary.detection(every)["auroc"].to_dict() == pytest.approx({"elr": 0.85, "sat": 0.85, "cleanlab": 0.8})


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


def test_text_and_images_are_one_grid_with_the_model_of_each_that_has_most_cells(tmp_path):
    path = tmp_path / "noisy_labels.jsonl"
    stored_cells(path)
    text = len(results.load(path))
    sizes = [("ce", 48, 0), ("sat", 48, 0), ("ce", 48, 1), ("ce", 96, 0), ("sat", 96, 0)]
    for name, size, seed in sizes:
        one = cell.make_cell("cifar/worse", name, 3, size, "test", 1000, samples=1500, epochs=10, seed=seed, bf16=True)
        results.append(path, fake_cell(one, 0.5))
    first, second = results.grids(results.load(path))
    assert len(first) == text + 3 and set(first["model"]) == {"3 layers", "48 pixels"}
    assert len(second) == 2 and set(second["model"]) == {"96 pixels"}


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
