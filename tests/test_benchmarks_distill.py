"""The scripts that measure distillation, and what the pages say of their results."""

import doctest
import json
from pathlib import Path

import distillation
import distillation_cost
import pytest
from animals import WORDS, save_encoder
from noisy_labels import distillation_text

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark's data are not here: ../shared/data")
def test_a_seed_is_measured(tmp_path):
    encoder = save_encoder(str(tmp_path / "encoder"), layers=2, words=[*WORDS, "What", "is", "?", "the", "How"])
    few = distillation.Options(
        data_dir=str(DATA),
        samples=30,
        eval_samples=20,
        flags=f"--teacher_model_name_or_path {encoder} --max_steps 2 --disable_tqdm true --teacher_num_train_epochs 3",
    )
    row, told = distillation.one_seed(few, 0, str(tmp_path / "run"))
    assert row["kept"] == row["student"] / row["teacher"] and row["speed_up"] > 0
    assert (told["train"], told["held_out"], told["teacher_epochs"]) == (30, 20, 3)
    assert told["parameters"]["student"] < told["parameters"]["teacher"]


def test_costs_are_measured(tmp_path):
    few = distillation_cost.Options(steps=3, batch_size=2, cached_examples=6)
    for name, head in distillation_cost.HEADS.items():
        measured = distillation_cost.measure(head, few, str(tmp_path / name))
        assert set(measured["ms"]) == {"plain", "live teacher", "cached teacher", "bare teacher"}
        assert all(0.05 < measured[key] < 20 for key in distillation_text.COSTS), measured
        assert measured["cached_examples_per_second"] > 0


def test_results_are_told(tmp_path):
    same = {"student alone": 0.8, "kept": 0.95, "speed_up": 1.94}
    told = {
        "data": "trec",
        "source": "files",
        "split": "test",
        "train": 2000,
        "held_out": 500,
        "teacher_epochs": 4.0,
        "epochs": 8.0,
        "learning_rate": 2e-4,
        "batch_size": 16,
        "kd_weight": 0.9,
        "kd_temperature": 2.0,
        "precision": "bfloat16 autocast",
        "device": "CPU, 1 thread",
        "weight_bytes": {"teacher": 90.9e6, "student": 69.6e6},
        "rows": [
            {"seed": 0, "teacher": 0.9, "student": 0.85, **same},
            {"seed": 1, "teacher": 0.9, "student": 0.83, **same},
        ],
    }
    (tmp_path / "distillation.json").write_text(json.dumps(told))
    *_, first, _, mean = distillation_text.distillation_table(tmp_path).splitlines()
    assert first == "| 0 | 90.0 | 80.0 | 85.0 | 95.0 | +5.0 | 1.94 |"
    assert mean == "| **mean** | 90.0 | 80.0 | 84.0 | 93.3 | +4.0 | 1.94 |"
    sentence = distillation_text.distillation_sentence(tmp_path)
    assert (
        "keeps 93.3 % of its teacher's accuracy at 1.9 times its speed (70 instead of 91 MB), +4.0 points" in sentence
    )

    more = {"data": "subj", "source": "hub", "student_layers": [0, 1, 2], "student_start": "pretrained"}
    more |= {"teacher_learning_rate": 1e-4, "kd_hidden_weight": 10.0, "kd_hidden_loss": "cosine"}
    (tmp_path / "distillation_on_subj.json").write_text(json.dumps({**told, **more}))
    captions = [line for line in distillation_text.distillation_table(tmp_path).splitlines() if "MiniLM" in line]
    sentence = distillation_text.distillation_sentence(tmp_path)
    assert (
        "+4.0 points over the same student without the teacher; on SUBJ from the Hub 93.3 % and +4.0 points (means"
        in sentence
    )
    assert captions[0].startswith("TREC: ") and "half its layers start from its weights" in captions[0]
    assert (
        captions[1].startswith("SUBJ from the Hub: ")
        and 'perature=2`, `kd_hidden_weight=10`, `kd_hidden_loss="cosine"`;' in captions[1]
    )
    assert "half its layers (0, 1, 2, counted from 0) start from the pretrained weights and" in captions[1]
    assert "learning rate 0.0002 (the teacher's 0.0001), batch" in captions[1] and "(the" not in captions[0]

    ratios = dict.fromkeys(distillation_text.COSTS, 1.014)
    heads = {name: {"ms": {"plain": 70.0, "live teacher": 110.0}, **ratios} for name in ("sentences", "tokens")}
    cost = {
        "device": "CPU, 1 thread",
        "clock": "from batch to batch",
        "steps": 80,
        "batch_size": 8,
        "cached_examples": 1000,
        "heads": heads,
    }
    (tmp_path / "distillation_cost.json").write_text(json.dumps(cost))
    assert "| tokens | 70.0 | 110.0 | 1.014 |" in distillation_text.distillation_cost_table(tmp_path)
    assert "takes 1.01 and 1.01 times the plain" in distillation_text.distillation_cost_sentence(tmp_path)


def test_without_results_the_texts_say_so(tmp_path):
    names = ("distillation_table", "distillation_sentence", "distillation_cost_table", "distillation_cost_sentence")
    assert {getattr(distillation_text, name)(tmp_path) for name in names} == {"Not measured yet."}


def test_examples_run():
    assert doctest.testmod(distillation_text).failed == 0
