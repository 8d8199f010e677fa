"""The noise by confident learning: counts against an independent float64 replay, by one visit and by several."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import bert, make_trainer, text_data
from test_neighbors import CASES, one_sided_data
from test_step import Recording, softmax

from hf_sat.confident_joint import ConfidentJoint
from hf_sat.methods.confident_learning import lasting
from hf_sat.noise import inject_label_noise

# ---- formulas of the tests' own -------------------------------------------------------------------------------------


def confident_pairs(passes, labels, visit, num_classes):
    """Given and confidently predicted class of each such visit, counted one by one as Northcutt et al. define them."""
    visits = np.zeros(len(labels), int)
    totals, numbers, pairs = np.zeros((2, num_classes)), np.zeros((2, num_classes)), np.zeros((num_classes,) * 2)
    for _, _, examples, _, logits, _ in passes:
        earlier = totals[0] / np.maximum(numbers[0], 1)
        averages = (totals[1] + 20 * earlier) / (numbers[1] + 20)
        for row, probabilities in zip(examples, softmax(logits)):
            confident = np.flatnonzero(probabilities >= averages)
            visits[row] += 1
            if visits[row] == visit and len(confident):
                pairs[labels[row], confident[probabilities[confident].argmax()]] += 1
            if visits[row] in (visit - 1, visit):
                totals[visits[row] - visit + 1, labels[row]] += probabilities[labels[row]]
                numbers[visits[row] - visit + 1, labels[row]] += 1
    return pairs


def shares(pairs):
    return pairs / pairs.sum(axis=1, keepdims=True)


# ---- in the Trainer -------------------------------------------------------------------------------------------------


def test_the_noise_is_estimated_by_the_confident_joint_of_the_third_visits(runs):
    data = inject_label_noise(text_data(60), 0.3, label_column="labels", seed=0)
    trainer = make_trainer(runs, data=data, trainer=Recording, num_train_epochs=5, learning_rate=2e-2)
    trainer.train()
    report, labels = trainer.label_report(), np.array(data["labels"])
    joint = shares(confident_pairs(trainer.passes, labels, 3, 4)) * np.bincount(labels)[:, None]
    assert 0 < np.trace(joint) < 59
    assert report.noise_rate.rate == pytest.approx(1 - np.trace(joint) / 60)
    assert report.noise_rate.low < report.noise_rate.rate < report.noise_rate.high
    assert np.abs(report.noise.transition - joint.T).max() <= 0.5
    assert [rate.rate for rate in report.noise.by_class] == pytest.approx(1 - np.diag(joint) / joint.sum(axis=1))
    table = report.to_pandas()
    for label, rate in enumerate(report.noise.by_class):
        mine = table[table["given_label"] == label].sort_values("label_quality", kind="stable")
        assert mine["is_label_issue"].tolist() == [i < round(rate.rate * len(mine)) for i in range(len(mine))]


@pytest.mark.parametrize("onset", [1.5, 2.5])
def test_the_noise_of_two_classes_is_estimated_by_several_visits(runs, onset):
    """By the first after the onset, and at most by the last over 0.7 a visit."""
    classes, settings = CASES["by features"]
    data = one_sided_data(classes=classes)
    kind = {"trainer": Recording, "model": bert(classes=classes), "data": data}
    trainer = make_trainer(runs, **kind, **{**settings, "sat_start_epoch": onset})
    trainer.train()
    labels, early = np.array(data["labels"]), int(onset) + 1
    counted = {visit: confident_pairs(trainer.passes, labels, visit, classes) for visit in (2, 3, 4)}
    joint = trainer._correction.joint
    assert joint.counts[:3].tolist() == [counted[visit].tolist() for visit in (2, 3, 4)] and not joint.counts[3].any()
    at_first, at_last = (1 - np.diag(shares(counted[visit])) for visit in (early, 4))
    wrong = np.minimum(at_first, at_last / 0.7 ** (4 - early))
    report = trainer.label_report()
    assert [rate.rate for rate in report.noise.by_class] == pytest.approx(wrong)
    assert report.noise_rate.rate == pytest.approx(wrong @ np.bincount(labels) / len(labels)) and wrong.max() > 0


def test_a_run_of_two_classes_that_goes_on_for_longer_keeps_its_counts(runs):
    classes, settings = CASES["by features"]
    kind = {"data": one_sided_data(classes=classes), "save_strategy": "epoch"}
    first = make_trainer(runs, bert(classes=classes), **{**settings, **kind, "num_train_epochs": 3})
    first.train()
    second = make_trainer(runs, bert(classes=classes), **{**settings, **kind, "num_train_epochs": 5})
    second.train(resume_from_checkpoint=True)
    counts = second._correction.joint.counts
    assert counts[:2].equal(first._correction.joint.counts[:2]) and counts[2].any() and counts[3].any()


# ---- the counts -----------------------------------------------------------------------------------------------------


def seen(joint, before, given, confident):
    """Labels with `before` visits, all told with certainty."""
    before, given = torch.full((len(given),), before), torch.tensor(given)
    joint.see(before, given, torch.tensor(confident), torch.ones(len(given)), given >= 0)


def test_many_classes_are_estimated_by_the_labels_proposed():
    joint = ConfidentJoint(1001, torch.device("cpu"))
    before, given = torch.tensor([2, 2]), torch.tensor([0, 1000])
    joint.see(before, given, joint.confident(torch.eye(1001)[given], before), torch.ones(2), given >= 0)
    assert joint.estimate(np.bincount(given.numpy())) is None
    assert sum(value.numel() for value in joint.tensors().values()) == 0


def test_a_class_without_a_confident_prediction_is_held_to_be_right():
    joint = ConfidentJoint(2, torch.device("cpu"))
    seen(joint, 2, [0, 1], [1, -1])
    assert joint.estimate(np.array([1, 1])).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_of_several_visits_two_are_needed_that_half_of_the_labels_had():
    joint = ConfidentJoint(2, torch.device("cpu"), range(2, 6))
    totals = np.array([2, 2])
    seen(joint, 1, [0, 0, 1, 1], [1, 0, 1, 1])
    assert joint.estimate(totals) is None
    seen(joint, 2, [0], [1])
    assert joint.estimate(totals) is None
    seen(joint, 2, [1], [1])
    assert joint.estimate(totals).tolist() == [[1.0, 1.0], [0.0, 2.0]]
    assert joint.estimate(totals, onset=2.0).tolist() == [[0.0, 2.0], [0.0, 2.0]]  # the third visits alone
    assert joint.estimate(totals, onset=7.0).tolist() == [[0.0, 2.0], [0.0, 2.0]]


SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=2).map(
    lambda wrong: np.array([[1 - wrong[0], wrong[0]], [wrong[1], 1 - wrong[1]]])
)


@given(SHARES, SHARES, st.integers(0, 3))
def test_what_lasts_is_a_share_of_what_was_contradicted_early(early, late, visits):
    found = lasting(early, late, visits)
    wrong = 1 - np.diag(found)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert ((found >= 0) & (found <= 1)).all() and (wrong <= 1 - np.diag(early) + 1e-12).all()
    assert (wrong <= (1 - np.diag(late)) / 0.7**visits + 1e-12).all()
    np.testing.assert_allclose(lasting(early, early, visits), early, atol=1e-12)
