"""What the user sees: the log, the report, the corrected data."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import bert_tokens, make_trainer, text_data, token_data

from hf_sat import SATTrainer
from hf_sat.methods.label_quality import label_quality
from hf_sat.model_card import found_by_report
from hf_sat.noise import inject_label_noise
from hf_sat.noise_estimate import NoiseRate, estimate_noise, least_trusted

COLUMNS = [
    "sample_id",
    "given_label",
    "corrected_label",
    "label_quality",
    "is_label_issue",
    "p_given",
    "p_corrected",
    "n_visits",
    "mean_p_given",
    "area_under_margin",
    "forgetting_events",
    "first_agreement_epoch",
]


def noisy_data(n=80):
    return inject_label_noise(text_data(n), 0.3, label_column="labels", seed=0)


def trained(folder, data, **settings):
    defaults = {"num_train_epochs": 6, "sat_start_epoch": 2, "sat_momentum": 0.3, "learning_rate": 5e-3}
    trainer = make_trainer(folder, data=data, **{**defaults, **settings})
    trainer.train()
    return trainer


def test_report_of_examples(runs):
    data = noisy_data()
    trainer = trained(runs, data, save_strategy="epoch")
    table = trainer.label_report().to_pandas()
    assert list(table) == COLUMNS
    assert table["sample_id"].tolist() == list(range(80))
    assert table["given_label"].tolist() == data["labels"]
    targets = trainer._correction.state.tensors()["soft_targets"].numpy()
    assert table["corrected_label"].tolist() == targets.argmax(axis=1).tolist()
    np.testing.assert_array_equal(table["p_given"], targets[np.arange(80), data["labels"]].astype("float32"))
    np.testing.assert_array_equal(table["p_corrected"], targets.max(axis=1).astype("float32"))
    assert (table["is_label_issue"] == (table["given_label"] != table["corrected_label"])).all()
    assert (table["n_visits"] == 6).all() and table["label_quality"].between(0, 1).all()


def test_the_report_finds_wrong_labels(runs):
    """Better than chance by far; the rows it relabels are mostly wrong ones."""
    data = noisy_data(160)
    table = trained(runs, data, num_train_epochs=8).label_report().to_pandas()
    wrong = np.array(data["labels"]) != np.array(data["clean_labels"])
    suspects = table.sort_values("label_quality").index[: wrong.sum()]
    assert wrong[suspects].mean() > 0.7
    assert wrong[table["is_label_issue"]].mean() > 0.7


def test_before_the_onset_quality_comes_from_the_predictions(runs):
    data = text_data(40)
    trainer = trained(runs, data, num_train_epochs=2, sat_start_epoch=5)
    table = trainer.label_report().to_pandas()
    assert (table["p_given"] == 1).all() and not table["is_label_issue"].any()
    assert table["label_quality"].nunique() > 30 and (table["label_quality"] < 1).all()


def test_rows_without_a_visit_keep_their_label(runs):
    data = text_data(40)
    table = trained(runs, data, max_steps=2, sat_start_epoch=0).label_report().to_pandas()
    unseen = table[table["n_visits"] == 0]
    assert len(unseen) == 24
    assert (unseen["given_label"] == unseen["corrected_label"]).all() and unseen["label_quality"].isna().all()
    assert table["given_label"].tolist() == data["labels"]


class Watching(SATTrainer):
    """Writes down what each visit of an example predicted."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            examples = self._examples.tolist()
            loss, outputs = super().compute_loss(model, inputs, True, *args[1:], **kwargs)
            for example, logits in zip(examples, outputs["logits"].detach().double().numpy()):
                self.visits.setdefault(example, []).append((int(self.state.epoch or 0), logits))
            return loss
        return super().compute_loss(model, inputs, *args, **kwargs)


def test_scores_over_the_visits(runs):
    data = noisy_data(60)
    trainer = make_trainer(runs, data=data, trainer=Watching, num_train_epochs=5, learning_rate=2e-2)
    trainer.visits = {}
    trainer.train()
    table = trainer.label_report().to_pandas()
    seen, often = set(), np.log(np.bincount(data["labels"]) / 15)  # 60 labels of 4 classes
    assert np.ptp(often) > 0.1
    for row, label in enumerate(data["labels"]):
        epochs, logits = zip(*trainer.visits[row])
        logits = np.array(logits)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        margins = logits[:, label] - np.delete(logits, label, axis=1).max(axis=1)
        agrees = logits.argmax(axis=1) == label
        assert table["mean_p_given"][row] == pytest.approx(p[:, label].mean(), abs=1e-5)
        assert table["area_under_margin"][row] == pytest.approx(margins[1:].mean(), abs=1e-4)
        wanted = (4 / (1 + np.exp(0.4 * often[label] - margins[1:].mean())) + table["p_given"][row]) / 5
        assert table["label_quality"][row] == pytest.approx(wanted, abs=1e-4)
        assert table["forgetting_events"][row] == (agrees[:-1] & ~agrees[1:]).sum()
        assert table["first_agreement_epoch"][row] == (epochs[agrees.argmax()] if agrees.any() else -1)
        seen.add((table["forgetting_events"][row] > 0, table["first_agreement_epoch"][row] > 0))
    assert len(seen) > 2


LABELS = st.lists(st.tuples(st.integers(0, 4), st.floats(-1e4, 1e4), st.floats(0, 1)), min_size=1, max_size=40)


@given(LABELS)
def test_label_quality_rises_with_what_speaks_for_the_label_and_falls_with_how_often_its_class_was_given(labels):
    classes, margins, masses = (np.array(column) for column in zip(*labels))
    quality = label_quality(classes, margins, masses)
    assert ((quality >= 0) & (quality <= 1)).all()
    assert (label_quality(classes, margins + 1, masses) >= quality).all()
    assert (label_quality(classes, margins, np.minimum(masses + 0.1, 1)) >= quality).all()
    level = label_quality(classes, np.zeros(len(classes)), np.ones(len(classes)))
    counts = np.bincount(classes)[classes]
    assert (np.diff(level[np.argsort(counts, kind="stable")]) <= 1e-12).all()
    alike = np.repeat(classes, 2) * 2 + np.tile([0, 1], len(classes))  # halves of each class: shares stay as they were
    np.testing.assert_allclose(label_quality(alike, np.repeat(margins, 2), np.repeat(masses, 2))[::2], quality)


def test_label_quality_of_no_labels():
    assert len(label_quality(np.array([], dtype=int), np.array([]), np.array([]))) == 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_runs_estimate_the_noise_by_the_labels_they_propose(runs, epochs):
    report = trained(runs, noisy_data(), num_train_epochs=epochs, sat_start_epoch=0, sat_momentum=0).label_report()
    assert report.noise_rate.rate == pytest.approx(report.num_corrected / 80) and report.num_corrected > 0


@pytest.mark.parametrize("start", ["auto", 2])
def test_a_run_too_short_to_tell_holds_no_label_to_be_wrong_nor_claims_that_all_are_right(runs, start):
    trainer = trained(runs, noisy_data(), num_train_epochs=2, learning_rate=0.0, sat_start_epoch=start)
    report = trainer.label_report()
    assert report.noise is None and report.noise_rate is None and report.num_issues == 0
    page = report.to_html(f"{runs}/page.html")
    with open(page, encoding="utf-8") as file:
        assert "not estimated for this run" in file.read()
    assert "held to be wrong" not in found_by_report(report)


def test_nothing_is_estimated_from_nothing():
    nothing = estimate_noise(np.zeros((2, 2)))
    assert nothing.rate is None and nothing.by_class == [None, None] and nothing.transition.sum() == 0
    assert not least_trusted(np.array([0, 1]), np.array([0.1, 0.2]), nothing.by_class).any()
    assert NoiseRate.of(0, 50).low == 0 and NoiseRate.of(50, 50).high == 1


def test_to_cleanlab_and_to_html(runs):
    trainer = trained(runs, noisy_data())
    report = trainer.label_report()
    given = report.to_cleanlab()
    assert given["pred_probs"].shape == (80, 4) and given["labels"].tolist() == noisy_data()["labels"]
    np.testing.assert_allclose(given["pred_probs"].sum(axis=1), 1, atol=1e-5)
    path = report.to_html(f"{runs}/report.html", title="My labels", examples=[f"sentence {i}" for i in range(80)])
    page = Path(path).read_text(encoding="utf-8")
    assert "My labels" in page and "sentence 79" in page
    assert all(Path(plot).read_bytes()[:4] == b"\x89PNG" for plot in report.save_plots(f"{runs}/plots"))


class ShiftingCollator:
    """Labels that only the batches show: the data set's are one too high."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, items):
        batch = self.collate(items)
        batch["labels"] -= 1
        return batch


def test_labels_that_only_batches_show_are_fetched_for_the_report(runs):
    from small import pad

    data = text_data(40)
    shifted = data.map(lambda row: {"labels": row["labels"] + 1})
    trainer = make_trainer(runs, data=shifted, collator=ShiftingCollator(pad), max_steps=2, sat_start_epoch=0)
    trainer.train()
    assert trainer.label_report().to_pandas()["given_label"].tolist() == data["labels"]


def test_report_of_tokens(runs):
    data = token_data(20)
    table = trained(runs, data, model=bert_tokens(), num_train_epochs=3).label_report().to_pandas()
    counted = [[label for label in row if label != -100] for row in data["labels"]]
    assert table["given_label"].tolist() == [label for row in counted for label in row]
    assert table["sample_id"].tolist() == [i for i, row in enumerate(counted) for _ in row]
    assert table["token_index"].tolist() == [k for row in counted for k in range(len(row))]
    assert (table["n_visits"] == 3).all()


def test_save_and_to_dataset(runs, tmp_path):
    report = trained(runs, text_data(24)).label_report()
    path = report.save(str(tmp_path / "report"))
    pd.testing.assert_frame_equal(pd.read_parquet(path), report.to_pandas())
    assert report.to_dataset().num_rows == 24
    assert report.num_issues == report.to_pandas()["is_label_issue"].sum()


@pytest.mark.parametrize("name", ["labels", "label"])
def test_corrected_dataset_keeps_the_given_labels(runs, name):
    data = noisy_data().cast_column("labels", datasets.ClassLabel(names=list("abcd")))
    if name != "labels":
        data = data.rename_column("labels", name)
    trainer = trained(runs, data)
    corrected = trainer.corrected_dataset()
    assert corrected.features[name] == data.features[name]
    assert corrected[f"given_{name}"][:] == data[name][:]
    assert corrected[name][:] == trainer.label_report().to_pandas()["corrected_label"].tolist()
    assert trainer.label_report().num_corrected > 0


def test_policies_of_the_corrected_dataset(runs):
    data = noisy_data()
    trainer = trained(runs, data)
    table = trainer.label_report().to_pandas()
    relabelled, kept, soft = (trainer.corrected_dataset(policy) for policy in ("relabel", "drop", "soft"))
    assert relabelled["is_label_issue"][:] == table["is_label_issue"].tolist()
    assert kept["labels"][:] == table["given_label"][~table["is_label_issue"]].tolist() and 0 < len(kept) < 80
    assert soft["labels"][:] == data["labels"][:]
    assert np.argmax(soft["soft_labels"][:], axis=1).tolist() == table["corrected_label"].tolist()
    with pytest.raises(ValueError, match="policy='fix'"):
        trainer.corrected_dataset("fix")


def test_policies_of_the_corrected_dataset_of_tokens(runs):
    trainer = trained(runs, token_data(), model=bert_tokens(), sat_momentum=0.1)
    table, kept = trainer.label_report().to_pandas(), trainer.corrected_dataset("drop")
    assert (
        sum(label != -100 for row in kept["labels"] for label in row) == (~table["is_label_issue"]).sum() < len(table)
    )
    assert [mark for row in kept["is_label_issue"] for mark in row] == table["is_label_issue"].tolist()
    with pytest.raises(ValueError, match="policy='soft'"):
        trainer.corrected_dataset("soft")


def test_corrected_dataset_of_tokens_and_of_torch_data(runs, tmp_path):
    data = token_data(20)
    trainer = trained(runs, data, model=bert_tokens(), sat_start_epoch=0, sat_momentum=0.0)
    corrected, labels = trainer.corrected_dataset()["labels"], trainer.label_report().columns["corrected_label"]
    assert [label for row in corrected for label in row if label != -100] == labels.tolist()
    assert [[label == -100 for label in row] for row in corrected] == [
        [label == -100 for label in row] for row in data["labels"]
    ]
    rows = torch.utils.data.Subset(text_data(20), range(20))
    trainer = trained(str(tmp_path / "other"), rows, sat_start_epoch=0, sat_momentum=0.0)
    corrected = trainer.corrected_dataset()
    labels = trainer.label_report().columns["corrected_label"].tolist()
    assert [corrected[i]["labels"] for i in range(20)] == labels
    assert [corrected[i]["given_labels"] for i in range(20)] == [rows[i]["labels"] for i in range(20)]


def test_log_entries(runs):
    data = noisy_data()
    trainer = trained(runs, data, logging_strategy="epoch")
    logs = [log for log in trainer.state.log_history if "loss" in log]
    targets = trainer._correction.state.tensors()["soft_targets"].argmax(dim=1).numpy()
    given, clean = np.array(data["labels"]), np.array(data["clean_labels"])
    changed = targets != given
    last = logs[-1]
    predicted = trainer._correction.state.last_prediction[:-1].numpy()  # in the epoch that the last log is of
    assert last["sat/clean_agreement"] == pytest.approx((predicted == clean).mean())
    assert last["sat/agreement"] == pytest.approx((predicted == given).mean())
    assert last["sat/corrected"] == pytest.approx(changed.mean())
    assert last["sat/corrected_worst_class"] == pytest.approx(max(changed[given == c].mean() for c in range(4)))
    assert last["sat/precision"] == pytest.approx((targets == clean)[changed].mean())
    assert last["sat/recall"] == pytest.approx(((targets == clean) & changed).sum() / (given != clean).sum())
    assert last["sat/onset_epoch"] == 2 and last["sat/momentum"] == 0.3
    assert 0 < last["sat/target_confidence"] == last["sat/mean_weight"] < 1
    assert logs[0]["sat/corrected"] == 0 and logs[0]["sat/target_confidence"] == 1
    assert "sat/onset_epoch" not in logs[0] and "sat/onset_epoch" in logs[2]


def test_a_swallowed_class_is_told(runs, monkeypatch):
    """A classifier biased to one class empties the others."""
    from small import bert

    from hf_sat import monitor

    told = []
    monkeypatch.setattr(monitor.logger, "warning", told.append)
    model = bert()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    trained(
        runs, text_data(80), model=model, sat_start_epoch=0, sat_momentum=0.0, num_train_epochs=1, learning_rate=0.0
    )
    assert sorted(message.split()[1] for message in told) == ["1", "2", "3"]


def test_nothing_to_report_without_correction(runs):
    trainer = make_trainer(runs, label_correction="none", max_steps=1)
    trainer.train()
    with pytest.raises(ValueError, match="call train"):
        trainer.label_report()
