"""`sat_loss="auto"`: the symmetric loss where predictions flicker, else the paper's."""

import pytest
from small import assert_same_tensors, bert_tokens, make_trainer, token_data, weights
from test_resume import assert_same_end, run

from hf_sat.methods import schedule

FIVE_EPOCHS = {"num_train_epochs": 5}


@pytest.fixture
def flickering(monkeypatch):
    monkeypatch.setattr(schedule, "flickering", lambda before, last: 0.5)


@pytest.fixture
def steady(monkeypatch):
    monkeypatch.setattr(schedule, "flickering", lambda before, last: 0.0)


def trained(folder, **settings):
    trainer = make_trainer(folder, **{**FIVE_EPOCHS, **settings})
    trainer.train()
    return trainer


def assert_same_run(one, other):
    assert_same_tensors(weights(one), weights(other))
    assert one.label_report().to_pandas().equals(other.label_report().to_pandas())


def betas(trainer):
    return [log.get("sat/sce_beta") for log in trainer.state.log_history if "loss" in log]


def test_where_predictions_flicker_it_is_the_symmetric_loss_from_the_onset_on(runs, flickering):
    automatic, symmetric = trained(runs), trained(runs, sat_loss="sce", sat_sce_beta=1.0)
    assert_same_run(automatic, symmetric)
    assert betas(automatic)[0] is None and betas(automatic)[-1] == 1.0
    plain = trained(runs, sat_loss="ce")
    assert any((weights(automatic)[name] != value).any() for name, value in weights(plain).items())


def test_where_they_do_not_it_is_the_papers(runs, steady):
    automatic = trained(runs)
    assert_same_run(automatic, trained(runs, sat_loss="ce"))
    assert automatic.state.log_history[-2]["sat/onset_epoch"] < 5 and set(betas(automatic)) == {None}


@pytest.mark.parametrize(
    "settings",
    [{"sat_momentum": 0.6}, {"sat_start_epoch": 1}, {"num_train_epochs": 2}],
    ids=["momentum", "onset", "one visit left"],
)
def test_numbers_and_a_last_visit_make_it_the_papers_all_the_same(runs, flickering, settings):
    assert_same_run(trained(runs, **settings), trained(runs, sat_loss="ce", **settings))


def test_tokens_have_the_papers_all_the_same(runs, flickering):
    made = [trained(runs, model=bert_tokens(), data=token_data(), **more) for more in ({}, {"sat_loss": "ce"})]
    assert_same_run(*made)


@pytest.mark.parametrize("stop_at", [4, 17, 25])
def test_it_resumes_before_and_after_the_onset(tmp_path, flickering, stop_at):
    whole = run(str(tmp_path / "whole"), FIVE_EPOCHS)
    assert 4 < whole[0].state.log_history[-2]["sat/onset_epoch"] * 6 < 17
    run(str(tmp_path / "parts"), FIVE_EPOCHS, stop_at=stop_at)
    assert_same_end(whole, run(str(tmp_path / "parts"), FIVE_EPOCHS, resume=True))
