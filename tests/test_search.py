"""Search spaces, and a search over settings that may be "auto"."""

import pytest
import torch
from small import bert, pad, text_data
from transformers import TrainingArguments
from transformers.trainer_utils import HPSearchBackend

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.search import SPACES, search_space


class First:
    """A trial that proposes the first or last of all choices."""

    def __init__(self, index=0):
        self.index = index
        self.params = {}

    def suggest_categorical(self, name, choices):
        return self.params.setdefault(name, choices[self.index])

    def suggest_float(self, name, low, high, log=False):
        return self.params.setdefault(name, (low, high)[self.index])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("index", [0, -1])
def test_what_is_proposed_are_settings(name, index, runs):
    trial = First(index)
    proposed = SPACES[name](trial)
    assert proposed == trial.params
    args = SATConfig(output_dir=runs, **proposed)
    assert {setting: getattr(args, setting) for setting in proposed} == proposed


def test_spaces_together():
    assert set(search_space("training", "sat")(First())) == {
        "learning_rate",
        "sat_momentum",
        "sat_start_epoch",
        "sat_loss",
        "sat_reweight",
    }
    for names, message in ((["sta"], "search_space='sta'.*sat"), (["sam", "asam"], "the same settings")):
        with pytest.raises(ValueError, match=message):
            search_space(*names)


@pytest.mark.parametrize("name", SPACES)
def test_optuna_takes_them(name):
    optuna = pytest.importorskip("optuna")
    values = SPACES[name](First())
    assert SPACES[name](optuna.trial.FixedTrial(values)) == values
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(8)]
    assert len({tuple(SPACES[name](trial).values()) for trial in trials}) > 2


def make_trainer(runs, args=SATConfig, **more):
    def model_init():
        torch.manual_seed(0)
        return bert()

    settings = {
        "max_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
        **more,
    }
    return SATTrainer(
        args=args(output_dir=runs, **settings),
        model_init=model_init,
        data_collator=pad,
        train_dataset=text_data(16),
        eval_dataset=text_data(8),
    )


def test_a_search_goes_from_a_number_to_auto_and_back(runs):
    trainer = make_trainer(runs, sat_momentum=0.3)
    trainer.hp_search_backend = HPSearchBackend.OPTUNA
    seen = []
    for momentum in (0.7, "auto", 0.9):
        trainer.hp_space = lambda trial, momentum=momentum: {"sat_momentum": momentum, "sat_start_epoch": 1.0}
        trainer._hp_search_setup(First())
        seen.append((trainer.args.sat_momentum, trainer.args.sat_start_epoch))
    assert seen == [(0.7, 1.0), ("auto", 1.0), (0.9, 1.0)]
    trainer.hp_space = lambda trial: {"sat_momentum": 2.0}
    with pytest.raises(ValueError, match=r"sat_momentum=.2\.0."):
        trainer._hp_search_setup(First())
    plain = make_trainer(runs, TrainingArguments)
    plain._hp_search_setup(None)
    assert not hasattr(plain.args, "sat_momentum")


def test_a_whole_search(runs):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trainer = make_trainer(runs)
    sampler = optuna.samplers.GridSampler({"sat_momentum": [0.5, "auto", 0.9]}, seed=1)
    used = []

    def space(trial):
        return {"sat_momentum": trial.suggest_categorical("sat_momentum", [0.5, "auto", 0.9])}

    def objective(metrics):
        used.append(trainer.args.sat_momentum)
        return metrics["eval_loss"]

    best = trainer.hyperparameter_search(space, objective, n_trials=3, backend="optuna", sampler=sampler)
    assert sorted(map(str, used)) == ["0.5", "0.9", "auto"]
    assert SATConfig(output_dir=runs, **best.hyperparameters).sat_momentum in (0.5, "auto", 0.9)
