"""The automatic settings: labels that the model steadily contradicts are corrected before any run ends."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_sat.methods.predictions import CONFIDENCES, Period, has_learned, has_settled, shares_right
from hf_sat.methods.schedule import Schedule, auto_momentum, auto_sce_beta, last_resort, latest_start


def steps(total_epochs, per_epoch=10):
    return [step / per_epoch for step in range(round(total_epochs * per_epoch))]


def sure(place, epoch):
    return torch.ones_like(place)


def run(schedule, total_epochs, agreement, changes, per_epoch=10, batch=20, confidence=sure):
    """Go through a run in which the model agrees and changes its mind at given rates of each epoch.

    `confidence` is that of each prediction by its place in the batch, 0 to 1, and the epoch; the first agree with the
    given labels.
    """
    correcting = []
    for epoch in steps(total_epochs, per_epoch):
        schedule.begin_step(epoch)
        correcting.append(schedule.correcting)
        labels = torch.arange(batch) % 4
        agreeing = torch.arange(batch) < round(batch * agreement(int(epoch)))
        changed = torch.arange(batch) < round(batch * changes(int(epoch)))
        seen = torch.ones(batch, dtype=torch.bool)
        sureness = confidence(torch.arange(batch) / batch, epoch)
        schedule.see(seen, agreeing, changed, labels, num_classes=4, confidence=sureness)
    return correcting


@pytest.mark.parametrize("total_epochs", [2, 3, 4, 5, 10, 30, 300, 1.9])
@pytest.mark.parametrize("agreement", [0.4, 0.7, 1.0])
def test_a_steadily_contradicted_label_is_corrected_before_the_end(total_epochs, agreement):
    schedule = Schedule("auto", "auto", total_epochs)
    correcting = run(schedule, total_epochs, lambda epoch: agreement, lambda epoch: 0.5**epoch)
    target = np.array([1.0, 0.0])
    for epoch in range(int(np.ceil(total_epochs))):
        # Each row is visited once an epoch; take one in the middle of it.
        if epoch + 0.5 < total_epochs and correcting[round((epoch + 0.5) * 10)]:
            a = schedule.current_momentum
            target = a * target + (1 - a) * np.array([0.2, 0.8])
    assert target.argmax() == 1


@pytest.mark.parametrize("total_epochs", [3, 8, 40])
def test_latest_start(total_epochs):
    """Predictions that never settle: the fallback."""
    schedule = Schedule("auto", "auto", total_epochs)
    run(schedule, total_epochs, lambda epoch: 0.7, lambda epoch: 0.25**epoch if epoch < 4 else 0.0)
    assert schedule.onset <= latest_start(total_epochs)


@pytest.mark.parametrize("total_epochs", [10, 12, 20, 28])
def test_a_longer_fine_tuning_is_not_corrected_later(total_epochs):
    """Wrong labels are learned by heart in the same epoch of each."""
    schedule = Schedule("auto", "auto", total_epochs)
    run(schedule, total_epochs, lambda epoch: 0.7, lambda epoch: 0.25**epoch if epoch < 4 else 0.0)
    assert schedule.onset == latest_start(total_epochs) == 2.0 and latest_start(total_epochs, num_classes=2) == 1.5


@pytest.mark.parametrize("total_epochs", [3, 8, 40])
def test_predictions_that_are_not_steady_are_waited_for(total_epochs):
    """As of an image model from scratch: most change from epoch to epoch, and it looks as if they had settled."""
    schedule = Schedule("auto", "auto", total_epochs)
    run(schedule, total_epochs, lambda epoch: 0.4, lambda epoch: 0.8)
    left = total_epochs - schedule.onset
    assert schedule.onset == last_resort(total_epochs)
    assert schedule.current_momentum <= (1 / 3) ** (1.5 / left) if left > 1 else schedule.current_momentum == 0.37
    schedule = Schedule("auto", "auto", 40)
    run(schedule, 40, lambda epoch: 0.5, lambda epoch: 0.95 if epoch < 13 else 0.2)
    assert 13.0 < schedule.onset <= 14.0


def test_predictions_that_flicker_are_averaged_over_more_visits():
    """What changes because the model learns does not count, what changes all the same does."""
    momenta, betas = [], []
    for changes in ([1.0, 1.0, 0.3, 0.3], [1.0, 0.8, 0.55, 0.55]):
        schedule = Schedule("auto", "auto", 12)
        run(schedule, 12, lambda epoch: 0.5, lambda epoch, changes=changes: changes[min(epoch, 3)])
        momenta.append(schedule.current_momentum)
        betas.append(schedule.sce_beta)
    # The second starts at 3.6, and may take two thirds of the visits left to flip a label.
    assert momenta == pytest.approx([(1 / 3) ** (1 / 0.9), (1 / 3) ** (1.5 / 8.4)], abs=1e-3) and betas == [0.0, 1.0]


@pytest.mark.parametrize("total_epochs", [20, 40, 200])
def test_a_model_that_learns_from_scratch_has_the_constants_of_the_paper(total_epochs):
    """Half of its predictions change from epoch to epoch, with no end to it."""
    schedule = Schedule("auto", "auto", total_epochs)
    run(schedule, total_epochs, lambda epoch: 0.3, lambda epoch: max(0.45, 0.6 - 0.01 * epoch))
    assert (schedule.onset, schedule.current_momentum) == (0.3 * total_epochs, pytest.approx(0.9, abs=0.02))
    assert schedule.sce_beta == pytest.approx({20: 0.86, 40: 0.37, 200: 0.3}[total_epochs])


@pytest.mark.parametrize(
    "agreement, batch, surest_agree, expected",
    [
        (0.5, 60, True, 0.99),
        (0.8, 60, True, 0.99),
        (0.85, 60, True, 0.85**2),
        (0.5, 60, False, 1 / 3),
        (0.5, 40, True, 1 / 3),  # of 400 visits an epoch the surest are too few to tell
    ],
)
def test_labels_are_kept_while_they_are_right_more_often_than_predictions(agreement, batch, surest_agree, expected):
    """The labels contradict none of the surest; so where they contradict many others, these predictions are wrong."""
    schedule, slope = Schedule("auto", "auto", 12), -0.4 if surest_agree else 0.4
    confidence = lambda place, epoch: 0.8 + slope * (place - 0.5)  # noqa: E731
    run(schedule, 12, lambda _: agreement, lambda epoch: 0.5**epoch, batch=batch, confidence=confidence)
    assert schedule.current_momentum == pytest.approx(expected, abs=2e-3)
    assert schedule.sce_beta == 0.0


@pytest.mark.parametrize("changes, expected", [([1.0, 0.5, 0.2, 0.1], 1 / 3), ([1.0, 0.8, 0.55, 0.55], 0.99)])
def test_labels_that_look_right_because_they_are_known_by_heart_are_corrected(changes, expected):
    """Contradicted by the surest predictions of the first pass, by none later; unless predictions still flicker."""
    schedule = Schedule("auto", "auto", 12)
    slope = lambda epoch: 0.4 if epoch < 1 else -0.4  # noqa: E731
    confidence = lambda place, epoch: 0.8 + slope(epoch) * (place - 0.5)  # noqa: E731
    run(schedule, 12, lambda _: 0.5, lambda epoch: changes[min(epoch, 3)], batch=60, confidence=confidence)
    assert schedule.current_momentum == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("confidence, expected", [(0.3, 0.8), (0.45, 0.8), (0.52, 0.36), (0.9, 0.36)])
def test_labels_are_kept_while_the_model_is_unsure_of_what_it_knows(confidence, expected):
    """As with many classes: right in 60 % of the cases, and sure of it to 30 %."""
    schedule = Schedule("auto", "auto", 12)
    unsure = lambda place, epoch: torch.full_like(place, confidence)  # noqa: E731
    run(schedule, 12, lambda _: 0.6, lambda epoch: 0.5**epoch, confidence=unsure)
    assert schedule.current_momentum == pytest.approx(expected, abs=1e-6) and schedule.sce_beta == 0.0
    assert schedule.trusts_neighbors is (expected < 0.8)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=CONFIDENCES, max_size=CONFIDENCES))
def test_shares_right_follow_from_the_surest_tenth(bins):
    """By sorting single visits instead of cutting a histogram."""
    visits, agreeing = [n for n, _ in bins], [round(n * share) for n, share in bins]
    labels, predictions = shares_right(Period(sum(visits), sum(agreeing), 0, 0, [visits, agreeing]))
    each = [agree / n for n, agree in zip(visits, agreeing) for _ in range(n)][::-1]
    surest = len(each) / 10
    expected = np.interp(surest, np.arange(len(each) + 1), np.cumsum([0.0, *each])) / max(surest, 1.0)
    assert labels == pytest.approx(expected, abs=1e-9)
    assert predictions == pytest.approx(min(1.0, np.mean(each) / expected) if expected > 0 else 1.0, abs=1e-9)


def test_onset_where_predictions_settle():
    changes = [1.0, 0.5, 0.2, 0.2, 0.3]
    schedule = Schedule("auto", "auto", 60)
    run(schedule, 60, lambda epoch: 0.7, lambda epoch: changes[min(epoch, 4)])
    assert schedule.onset == 4.0


def test_no_onset_before_anything_is_learned():
    """A model that names the largest class alone is not to be believed."""
    schedule = Schedule("auto", "auto", 8)
    assert not any(run(schedule, 8, lambda epoch: 0.25, lambda epoch: 0.0))
    schedule = Schedule("auto", "auto", 8)
    correcting = run(schedule, 8, lambda epoch: 0.25 if epoch < 4 else 0.6, lambda epoch: 0.0)
    assert correcting[50:] == [True] * 30 and not any(correcting[:45])


@pytest.mark.parametrize("start", [0, 0.5, 2])
def test_numbers_that_are_set_are_kept(start):
    schedule = Schedule(start, 0.9, 3)
    correcting = run(schedule, 3, lambda epoch: 0.7, lambda epoch: 0.1)
    assert correcting == [epoch >= start for epoch in steps(3)]
    assert schedule.logs() == {"sat/onset_epoch": start, "sat/momentum": 0.9}


def test_momentum_bounds():
    lefts = np.linspace(0, 400, 50)
    momenta = [auto_momentum(left, 1.0) for left in lefts]
    assert momenta == sorted(momenta) and momenta[-1] == 0.9 and momenta[0] == 0.37
    # The momentum of few visits follows from agreement and steadiness, that of many from their number.
    assert [auto_momentum(left, 0.6) for left in (4, 8, 10)] == pytest.approx([0.36, 0.36, 0.36])
    flickering = [auto_momentum(20, 0.0, flicker=flicker) for flicker in (0.3, 0.35, 0.4, 1.0)]
    assert flickering == pytest.approx([0.675, 0.7875, 0.9, 0.9]) and auto_momentum(2, 0.0) == 0.2
    assert auto_momentum(400, 0.0) == 0.9 and auto_momentum(2, 0.3, lead=0.2) == 0.9
    # Where labels lead it is as large as they are right, within bounds.
    assert [auto_momentum(2, 0.3, lead=0.2, right=right) for right in (0.5, 0.95, 1.0)] == [0.9, 0.95, 0.99]
    assert auto_momentum(10, 0.6, lead=0.1, right=0.95) == pytest.approx(0.36)
    # Unsure models keep more of the labels, which yet can flip in time.
    kept = [auto_momentum(8, 0.55, sure=sure) for sure in (0.0, 0.78, 0.8, 0.82, 0.84, 0.86, 1.5)]
    assert kept == pytest.approx([0.8, 0.8, 0.65, 0.5, 0.35, 0.3025, 0.3025])
    assert [auto_momentum(left, 0.6, sure=0.5) for left in (1, 2, 400)] == pytest.approx([0.37, 0.439, 0.9], abs=1e-3)
    assert auto_momentum(10, 0.6, lead=0.2, right=1.0, sure=0.5) == 0.99
    # The last visit keeps more of the given label, and still corrects one that is contradicted with probability 0.8.
    assert [auto_momentum(left, 0.0) for left in (0, 1, 1.5, 2)] == pytest.approx([0.37, 0.37, 0.285, 0.2])
    assert [auto_momentum(left, 1.0) for left in (1, 1.5)] == pytest.approx([0.37, 1 / 3])


@pytest.mark.parametrize(
    "left, expected", [(0, 0.0), (1, 0.0), (1.5, 0.5), (2, 1.0), (10, 1.0), (20, 0.65), (30, 0.3), (80, 0.3)]
)
def test_the_weight_of_the_reverse_cross_entropy(left, expected):
    assert auto_sce_beta(left, 0.0, 4) == 0.0
    by_classes = [auto_sce_beta(left, 1e-9, classes) for classes in (2, 10, 20, 1000)]
    assert by_classes == pytest.approx([expected, expected, expected / 2, expected / 100])


@pytest.mark.parametrize("surest, expected", [(97, 0.97), (85, 0.9)])
def test_labels_that_are_right_where_the_model_is_sure_are_kept(surest, expected):
    """Of 1,000 predictions the model is sure of a tenth; of the others it has half."""
    half = [[0] * CONFIDENCES, [0] * CONFIDENCES]
    half[0][20], half[1][20], half[0][45], half[1][45] = 450, 225, 50, surest / 2
    schedule = Schedule("auto", "auto", 10)
    schedule.periods = [Period(500, 225 + surest / 2, 0, 50, half)] * 2
    schedule._decide_by_predictions(1.0)
    assert (schedule.current_momentum, schedule.sce_beta) == (pytest.approx(expected), 0.0)


@pytest.mark.parametrize("left", [3, 8, 30, 60, 90])
@pytest.mark.parametrize("agreement, flicker", [(0.1, 0.0), (0.4, 0.7), (1.0, 0.0)])
def test_a_contradicted_label_flips_in_a_tenth_to_two_thirds_of_the_visits_left(left, agreement, flicker):
    momentum = auto_momentum(left, agreement, flicker)
    # As the prediction says 3/4 for another class, the given label is the smaller once a^n < 1/3.
    visits = np.log(1 / 3) / np.log(momentum)
    assert 0.1 * left - 1e-9 <= visits <= 2 / 3 * left + 1e-9


@pytest.mark.parametrize("agreeing, expected", [(25, False), (28, False), (30, True), (100, True)])
def test_has_learned(agreeing, expected):
    assert has_learned(Period(visits=100, agreeing=agreeing, changed=0, largest_class=25)) is expected


@pytest.mark.parametrize("before, after, expected", [(100, 50, False), (100, 89, False), (100, 90, True), (0, 0, True)])
def test_has_settled(before, after, expected):
    periods = [Period(visits=200, agreeing=0, changed=changed, largest_class=0) for changed in (before, after)]
    assert has_settled(*periods) is expected


@pytest.mark.parametrize("stop", [3, 12, 27, 45])
def test_state_goes_on_where_it_was(stop):
    """Saved and loaded between any two steps, a schedule decides as if nothing had been."""
    generator = torch.Generator().manual_seed(0)
    seen = [torch.rand(3, 20, generator=generator) < 0.6 for _ in range(80)]
    histories = []
    for interrupted in (False, True):
        schedule, history = Schedule("auto", "auto", 8), []
        for step, (fresh, agreeing, changed) in enumerate(seen):
            if interrupted and step == stop:
                state = schedule.state_dict()
                schedule = Schedule("auto", "auto", 8)
                schedule.load_state_dict(state, torch.device("cpu"))
            schedule.begin_step(step / 10)
            history.append((schedule.correcting, schedule.current_momentum, schedule.onset))
            surest = torch.linspace(0.3, 0.9, 20)
            schedule.see(fresh, agreeing, changed & fresh, torch.arange(20) % 4, num_classes=4, confidence=surest)
        histories.append(history)
    assert histories[0] == histories[1]
