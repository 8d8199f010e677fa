"""How the benchmarks measure time and memory."""

import json

import cost
import pytest
import sam_cost
import torch
from noisy_labels import audit_text, cost_text, image_text
from noisy_labels.methods import method
from peak_memory import peak_bytes
from per_parameter_sam import PerParameterSAM
from small import arguments, assert_same_tensors, bert, pad, text_data, weights
from transformers import Trainer, TrainingArguments
from turns import Turns, in_turn, ratio

from hf_sat import SATConfig, SATTrainer


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


def test_the_table_of_learning_from_scratch_is_of_its_results(tmp_path):
    assert image_text.from_scratch_tables(tmp_path) == cost_text.NOT_MEASURED
    same = {"seed": 0, "samples": 4000, "epochs": 40, "noise": "symmetric40", "width": 16, "device": "CPU of a kind"}
    runs = [
        {**same, "method": "ce", "augmented": True, "accuracy": 0.5, "log": {}},
        {**same, "method": "ce", "augmented": True, "seed": 1, "accuracy": 0.6, "log": {}},
        {**same, "method": "sat", "augmented": True, "accuracy": 0.7, "log": {"sat/onset_epoch": 12.0}},
        {**same, "method": "sat", "augmented": False, "accuracy": 0.4, "log": {"sat/onset_epoch": 15.5}},
        {**same, "method": "ce", "epochs": 10, "augmented": True, "accuracy": 0.3, "log": {}},
    ]
    (tmp_path / "from_scratch.json").write_text(json.dumps({"runs": runs}))
    table = image_text.from_scratch_tables(tmp_path)
    assert "4,000 pictures of CIFAR-10 with symmetric40 noise" in table and "CPU of a kind" in table
    assert "| `ce` | 55.0 | - | - | 2, 0 |" in table and "| `sat` | 70.0 | 40.0 | 12, 15.5 | 1, 1 |" in table
    assert "10 epochs of SGD" in table and "| `ce` | 30.0 | - | - | 1, 0 |" in table


def test_the_audit_table_is_of_its_results(tmp_path):
    assert audit_text.audit_table(tmp_path) == cost_text.NOT_MEASURED
    about = {"samples": 1500, "epochs": 5, "layers": 3, "device": "CPU of a kind, 1 threads", "num_train": 1500}
    about["source"] = "files"
    found = {"auroc": 0.8, "average_precision": 0.6, "rate": 0.25, "cpu_seconds": 10.0}
    clean = {"rate": 0.01, "cpu_seconds": 10.0}
    runs = [
        {"column": "a/pair20", "seed": 0, "wrong": 0.2, "report": found, "cleanlab": {**found, "cpu_seconds": 40.0}},
        {"column": "a/pair20", "seed": 1, "wrong": 0.2, "report": {**found, "auroc": 0.9}, "cleanlab": found},
        {"column": "a/clean", "seed": 0, "wrong": 0.0, "report": clean, "cleanlab": {**clean, "rate": 0.05}},
        {"column": "a/clean", "seed": 0, "wrong": 0.0, "report": clean, "cleanlab": clean, "source": "hub"},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"runs": [{**about, **run} for run in runs]}))
    caption, _, _, _, *rows = audit_text.audit_table(tmp_path).splitlines()
    assert "means over the seeds" in caption and "take 1.0 times" in caption and "CPU of a kind." in caption
    assert rows == [
        "| a/pair20 | 0.850 / 0.800 | 0.600 / 0.600 | 20.0 | 25.0 / 25.0 | 2 |",
        "| a/clean | - | - | 0.0 | 1.0 / 5.0 | 1 |",
        "| a/clean from the Hub | - | - | 0.0 | 1.0 / 1.0 | 1 |",
    ]
    audit_text.draw(tmp_path, tmp_path / "figures" / "audit.png")
    assert (tmp_path / "figures" / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_the_time_of_an_audit_is_of_its_result(tmp_path):
    assert audit_text.audit_time_sentence(tmp_path) == cost_text.NOT_MEASURED
    result = {
        "column": "sst/clean",
        "rows": 5000,
        "seconds": 150.0,
        "cores": 2,
        "training": "4 epochs",
        "device": "CPU",
    }
    (tmp_path / "audit_time.json").write_text(json.dumps(result))
    sentence = audit_text.audit_time_sentence(tmp_path)
    assert sentence.startswith("5,000 sentences of SST take 2.5 minutes on 2 cores") and "(4 epochs; CPU;" in sentence
