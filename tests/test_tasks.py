"""What recipes and commands share: options, text, and the comparison of both Trainers."""

import json
import os
import re

import datasets
import numpy as np
import pandas as pd
import pytest
from animals import ANIMALS, rows, save_encoder
from rich.console import Console
from transformers import Trainer

from hf_sat import SATConfig
from hf_sat.tasks import machine
from hf_sat.tasks.compare import compare
from hf_sat.tasks.corpus import LIBRARIES, docstring_corpus, sentences_of
from hf_sat.tasks.data import class_names, take_sample, warn_of_slips, with_labels
from hf_sat.tasks.machine import require
from hf_sat.tasks.options import OptionParser
from hf_sat.tasks.results import Result, results_table
from hf_sat.tasks.text import TextOptions, read_text_options, text_task
from hf_sat.tasks.text_data import find_columns, load_text

# ---- the offline text -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus():
    return docstring_corpus(num_train=40, num_held_out=20)


def test_corpus_is_deterministic_and_moves_with_the_seed(corpus):
    again, other = docstring_corpus(40, 20), docstring_corpus(40, 20, seed=1)
    assert all(again[split].to_dict() == corpus[split].to_dict() for split in corpus)
    assert other["train"]["text"][:] != corpus["train"]["text"][:]


def test_corpus_is_balanced_and_held_out_sentences_are_new(corpus):
    for split, count in {"train": 10, "test": 5}.items():
        assert np.bincount(corpus[split]["label"][:]).tolist() == [count] * len(LIBRARIES)
    texts = corpus["train"]["text"][:] + corpus["test"]["text"][:]
    assert len(set(texts)) == len(texts)


def test_corpus_does_not_name_the_libraries(corpus):
    aliases = r"(?<![a-z])(np|pd|nx|hf|torch|" + "|".join(LIBRARIES) + r")(?![a-z])"
    assert not [text for text in corpus["train"]["text"] if re.search(aliases, text, re.IGNORECASE)]


def test_sentences_are_prose_alone():
    source = '''
def f(x):
    """Return the number of things that are in the given box.

    With numpy arrays this function is a good deal faster than it would be. Too short.
    The result is *always* a :class:`Box` of the same size as before the call.

    Parameters
    ----------
    x : int
        The number of the things that are in the box before the call.
    """
'''
    assert list(sentences_of(source)) == [
        "Return the number of things that are in the given box.",
        "The result is always a Box of the same size as before the call.",
    ]


def test_corpus_refuses_a_library_that_is_not_there():
    with pytest.raises(ValueError, match="'nolibrary' is not installed"):
        docstring_corpus(4, 2, libraries=("pandas", "nolibrary"))


# ---- options --------------------------------------------------------------------------------------------------------


def test_command_line_wins_over_file_over_presets(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-4\nsave_strategy: no\nseed: 3\nsat_momentum: 0.3\nsat_reweight: false\n")
    argv = ["--config", str(file), "--sat_momentum", "0.6"]
    (args,) = OptionParser([SATConfig]).read(argv, {"seed": 1, "num_train_epochs": 7, "output_dir": str(tmp_path)})
    assert (args.learning_rate, args.save_strategy, args.sat_reweight) == (1e-4, "no", False)
    assert (args.num_train_epochs, args.seed, args.sat_momentum) == (7, 3, 0.6)


def test_lists_and_mappings_of_a_file_arrive(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("report_to: [none]\nlr_scheduler_kwargs: {num_cycles: 2}\nrun_name: null\n")
    (args,) = OptionParser([SATConfig]).read(["--config", str(file), "--output_dir", str(tmp_path)])
    assert (args.report_to, args.lr_scheduler_kwargs) == ([], {"num_cycles": 2})


@pytest.mark.parametrize("argv", [["--sat_momentm", "0.5"], ["--sat-momentm=0.5"], ["--config", "run.yaml"]])
def test_unknown_settings_are_refused_with_the_nearest(argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("sat_momentm: 0.5\n")
    with pytest.raises(ValueError, match=r"sat.momentm.*did you mean 'sat_momentum'"):
        OptionParser([SATConfig]).read(argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "nowhere.yaml"], "config='nowhere.yaml'.*no such file"),
        (["--config", "list.yaml"], "holds a list"),
        (["--learning_rate", "fast"], "learning_rate.*'fast'"),
        (["--noise_rate", "1.5"], "noise_rate=1.5"),
        (["--max_train_samples", "0"], "max_train_samples=0"),
    ],
)
def test_wrong_values_are_refused(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=message):
        read_text_options(argv)


def test_defaults_add_noise_to_the_offline_text_alone():
    offline, _ = read_text_options([])
    own, args = read_text_options(["--train_file", "x.csv"])
    assert offline.noise_rate > 0 and offline.compare
    assert own.noise_rate == 0 and not own.compare
    assert args.num_train_epochs == SATConfig(output_dir="x").num_train_epochs
    assert not read_text_options(["--no_compare"])[0].compare
    assert read_text_options(["--dataset_name", "x", "--compare"])[0].compare


# ---- data -----------------------------------------------------------------------------------------------------------


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_every_kind(kind, tmp_path):
    path = str(tmp_path / f"train.{kind}")
    WRITERS[kind](rows(), path)
    train, validation = load_text(train_file=path, validation_file=path)
    assert train["review"][:] == validation["review"][:] == rows()["review"].tolist()
    assert train["animal"][:] == rows()["animal"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_file": "nowhere.csv"}, "train_file='nowhere.csv'.*no such file"),
        ({"train_file": "train.xlsx"}, "train_file='train.xlsx'.*csv"),
        ({"validation_file": "x.csv"}, "validation_file='x.csv'.*train_file"),
        ({"train_file": "x.csv", "dataset_name": "y"}, "train_file='x.csv'.*dataset_name='y'"),
    ],
)
def test_sources_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        load_text(**settings)


def test_columns_are_found_or_asked_for():
    data = datasets.Dataset.from_pandas(rows())
    assert find_columns(data, None, "animal") == ("review", "animal")
    assert find_columns(data.rename_columns({"review": "text", "animal": "label"}), None, None) == ("text", "label")
    for wanted, message in {
        ("reviw", "animal"): "text_column='reviw'.*Did you mean 'review'",
        ("review", "animals"): "label_column='animals'.*Did you mean 'animal'",
        (None, None): "label_column=None.*name one of",
        ("stars", "animal"): "text_column='stars'.*one of \\['review'\\]",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_columns(data, *wanted)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0, 2.0], "float64"),
        ([[0], [1], [1]], "not classes"),
        (["a", None, "b"], "row 1 has no label"),
        ([0, 1, -1], "row 2 has -1"),
        (["a", "a", "a"], "1 classes"),
        ([f"text {i}" for i in range(50)], "50 classes in 50 rows"),
    ],
)
def test_columns_that_hold_no_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=f"label_column='y'.*{message}"):
        class_names(datasets.Dataset.from_dict({"y": labels}), "y")


def test_labels_that_read_like_a_slip_are_told(caplog):
    def told(labels):
        caplog.clear()
        warn_of_slips(datasets.Dataset.from_dict({"y": labels}), "y")
        return caplog.text

    text = told(["subjective"] * 30 + ["objective"] * 30 + ["subjectve", "Objective"])
    assert "'subjectve' is a class of its own, of 1 in 62 rows; if 'subjective' is meant" in text
    assert "if 'objective' is meant" in text
    assert told(["a 1", "a 2", "positive", "negative"] * 30 + ["a 3", "rare"]) == ""
    assert told([0, 1, 11] * 30 + [111]) == told([f"class {k}" for k in range(400)] * 30 + ["class"]) == ""


@pytest.mark.parametrize("content", ["text,label\n", ""])
def test_a_file_without_rows_is_refused(tmp_path, content):
    file = tmp_path / "none.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"train_file='.*none.csv'"):
        load_text(train_file=str(file))


def test_labels_become_classes_and_unknown_ones_are_refused():
    data = datasets.Dataset.from_dict({"y": ["b", "a", "b"], "label": [7, 8, 9], "x": ["", "", ""]})
    assert class_names(data, "y") == ["a", "b"]
    labelled = with_labels(data, "y", ["a", "b"], "training data")
    assert labelled["labels"][:] == [1, 0, 1] and labelled.column_names == ["x", "labels"]
    assert class_names(datasets.Dataset.from_dict({"y": [0, 2, 2]}), "y") == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"held-out data.*'b' in row 0"):
        with_labels(data, "y", ["a", "c"], "held-out data")


def test_a_sample_keeps_the_rows_of_the_whole():
    data = datasets.Dataset.from_dict({"x": list(range(20))})
    sample = take_sample(data, 5, seed=0, keep_rows=True)
    assert sample["source_row"][:] == sample["x"][:] and len(sample) == 5
    assert take_sample(data, 20, seed=0) is data


# ---- both Trainers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a tokenizer of ten words and a tiny BERT."""
    return save_encoder(str(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def run(encoder, tmp_path):
    """Runs the recipe on 60 rows of a file; returns the results, the output folder and the task."""
    rows().to_csv(tmp_path / "train.csv", index=False)
    common = f"--model_name_or_path {encoder} --train_file {tmp_path}/train.csv --validation_file {tmp_path}/train.csv "
    common += f"--label_column animal --output_dir {tmp_path}/out --use_cpu --disable_tqdm true --learning_rate 3e-3 "

    def start(flags: str):
        options, args = read_text_options((common + flags).split())
        task = text_task(options, args)
        return compare(task, args, with_plain=options.compare), f"{tmp_path}/out", task

    return start


def test_comparison_end_to_end(run, capsys):
    (plain, sat), folder, task = run("--noise_rate 0.3 --compare --num_train_epochs 6 --save_strategy epoch")
    table = pd.read_parquet(os.path.join(folder, "labels.parquet"))
    clean, given = np.asarray(task.train["clean_labels"][:]), table["given_label"]
    changed = table["corrected_label"] != table["given_label"]
    right = changed & (table["corrected_label"] == clean)
    assert (given != clean).sum() == 18
    assert sat.corrected == changed.sum() > 0
    assert sat.precision == pytest.approx(right.sum() / sat.corrected) and sat.recall == pytest.approx(right.sum() / 18)
    assert plain.corrected is None and 0 <= plain.score <= 1 and sat.score >= 0.5

    with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
        assert [entry["score"] for entry in json.load(file)] == [plain.score, sat.score]
    printed = capsys.readouterr().out
    assert "1/2 plain Trainer" in printed and "2/2 SATTrainer" in printed
    assert f"{100 * sat.score:.1f} %" in printed and f"{100 * sat.precision:.1f} %" in printed
    assert "labels.parquet" in printed

    (plain_again, sat_again), _, _ = run(
        "--noise_rate 0.3 --compare --num_train_epochs 6 --save_strategy epoch --resume_from_checkpoint true"
    )
    assert sat_again.resumed and plain_again.resumed
    assert (plain_again.score, sat_again.score) == (plain.score, sat.score)
    assert sat_again.corrected == sat.corrected


def test_own_labels_are_taken_as_they_are(run):
    (sat,), folder, task = run("--max_train_samples 20 --num_train_epochs 1 --save_strategy no")
    table = pd.read_parquet(os.path.join(folder, "labels.parquet"))
    whole = rows()["animal"]
    assert "clean_labels" not in task.train.column_names and sat.precision is None
    assert [ANIMALS[y] for y in table["given_label"]] == whole[table["sample_id"]].tolist()
    assert not os.path.exists(os.path.join(folder, "plain"))


def test_without_correction_there_is_no_report(run, capsys):
    (result,), folder, _ = run("--label_correction none --max_steps 2 --save_strategy no")
    assert result.corrected is None and not os.path.exists(os.path.join(folder, "labels.parquet"))
    assert "Label report" not in capsys.readouterr().out


def test_table_has_a_dash_for_what_is_not_known():
    console = Console(width=120)
    with console.capture() as capture:
        console.print(results_table([Result("SATTrainer", 12.4, corrected=3)], "title", 0))
    row = next(line for line in capture.get().splitlines() if "SATTrainer" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["SATTrainer", "-", "3", "-", "-", "12 s"]


def test_missing_package_names_the_install():
    with pytest.raises(ModuleNotFoundError, match=r"pip install no-such-package.*\[recipes\]"):
        require("no_such_package", extra="recipes")


def test_options_say_what_they_are():
    assert all(field.metadata["help"] for field in TextOptions.__dataclass_fields__.values())


def test_augmented_training_texts(run, monkeypatch):
    """Both Trainers see the same views, another in each epoch; held-out texts stay as they are."""
    seen = []

    def watched(compute_loss):
        def compute(self, model, inputs, *args, **kwargs):
            if model.training:
                seen.append((type(self).__name__, int(self.state.epoch or 0), inputs["input_ids"].tolist()))
            return compute_loss(self, model, inputs, *args, **kwargs)

        return compute

    monkeypatch.setattr(Trainer, "compute_loss", watched(Trainer.compute_loss))
    flags = "--augment swap:0.9 --noise_rate 0.3 --num_train_epochs 2 --save_strategy no --compare"
    results, folder, task = run(flags)
    assert task.views is not None and [result.name for result in results] == ["plain Trainer", "SATTrainer"]
    plain, sat = ([entry[1:] for entry in seen if entry[0] == name] for name in ("EpochTellingTrainer", "SATTrainer"))
    assert plain == sat and {epoch for epoch, _ in sat} == {0, 1}
    rows = [sorted(tuple(row) for epoch, batch in sat if epoch == number for row in batch) for number in (0, 1)]
    assert rows[0] != rows[1]
    assert results[1].precision is not None or results[1].corrected == 0
    assert len(pd.read_parquet(os.path.join(folder, "labels.parquet"))) == 60


@pytest.mark.parametrize("flags, message", [("--augment swop:0.1", "swap"), ("--augment swap:2", "swap")])
def test_wrong_operations_are_refused_before_anything_runs(run, flags, message):
    with pytest.raises(ValueError, match=message):
        run(flags)


# ---- the cores of the machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load, threads",
    [([0.0, 0.0, 0.0, 0.0], 4), ([100.0, 2.0, 100.0, 1.0], 2), ([48.0, 52.0, 0.0, 0.0], 3), ([100.0] * 4, 1)],
)
def test_threads_are_as_many_as_cores_are_idle(load, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine.psutil, "cpu_percent", lambda interval, percpu: load)
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 4)
    taken = []
    monkeypatch.setattr(machine.torch, "set_num_threads", taken.append)
    machine.use_idle_cores()
    assert taken == [threads]


def test_cores_that_cannot_be_looked_at_count_as_idle(monkeypatch):
    def hidden(**_):
        raise PermissionError("/proc/stat")

    monkeypatch.setattr(machine.psutil, "cpu_percent", hidden)
    assert machine.num_idle_cores() == machine.num_cores()


def test_cores_of_others_do_not_count(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {1, 2}, raising=False)
    monkeypatch.setattr(machine.psutil, "cpu_percent", lambda interval, percpu: [0.0, 0.0, 100.0, 0.0])
    assert machine.num_idle_cores() == 1
