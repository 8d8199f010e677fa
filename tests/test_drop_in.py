"""The import swap: off, nothing differs from `transformers.Trainer`; on, nothing but the training loss does.

Protects: bit-identity with `label_correction="none"` (weights, logs, callbacks, checkpoint files), evaluation and
prediction while label correction is on, the order of the batches, and the Trainer features that must go on working.
"""

import copy

import pytest
import torch
from drop_in_runs import EVALUATING, NEVER, ON, TIMED, OwnHead, accuracy, files, history, lora, optimizers
from small import (
    MODELS,
    arguments,
    assert_same_tensors,
    bert,
    collator_for,
    data_for,
    make_trainer,
    pad,
    text_data,
    weights,
)
from transformers import Trainer, TrainingArguments

from hf_sat import SATConfig, SATMixin, SATTrainer

# ---- off ------------------------------------------------------------------------------------------------------------


PLAIN_RUNS = {
    "checkpoints": {"save_strategy": "steps", "save_steps": 5},
    "accumulating": {"gradient_accumulation_steps": 4, "save_strategy": "epoch"},
    "evaluating": {**EVALUATING, "save_strategy": "steps", "save_steps": 4, "load_best_model_at_end": True},
    "smoothed": {"label_smoothing_factor": 0.1},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "workers": {"dataloader_num_workers": 1, "dataloader_drop_last": True},
}


def plain_run(trainer: type, folder: str, model: str, settings: dict, times: int = 1, **own):
    """A run with everything of ours off, if there is anything of ours."""
    own = own or {"model": MODELS[model]()}
    config = TrainingArguments if trainer is Trainer else SATConfig
    off = {} if trainer is Trainer else {"label_correction": "none"}
    data = data_for(model, 44)
    made = trainer(
        args=arguments(folder, config, num_train_epochs=2, **off, **settings),
        train_dataset=data,
        eval_dataset=data.select(range(12)),
        data_collator=collator_for(model),
        compute_metrics=accuracy,
        **own,
    )
    for _ in range(times):
        made.train()
    return made


def assert_same_run(ours, theirs):
    assert_same_tensors(weights(ours), weights(theirs))
    assert history(ours) == history(theirs)
    assert [type(c) for c in ours.callback_handler.callbacks] == [type(c) for c in theirs.callback_handler.callbacks]
    mine, plain = files(ours.args.output_dir), files(theirs.args.output_dir)
    assert mine.keys() == plain.keys()
    assert not [name for name in plain if mine[name] != plain[name]]


@pytest.mark.parametrize(
    "model, name",
    [*(("bert", name) for name in PLAIN_RUNS), ("distilbert", "accumulating"), ("vit", "accumulating")],
)
def test_off_is_the_plain_trainer(tmp_path, model, name):
    runs = [plain_run(cls, str(tmp_path / cls.__name__), model, PLAIN_RUNS[name]) for cls in (SATTrainer, Trainer)]
    assert_same_run(*runs)
    with pytest.raises(ValueError, match="label_correction"):
        runs[0].label_report()


@pytest.mark.parametrize("own", [{}, {"model_init": lambda: bert()}], ids=["model", "model_init"])
def test_off_trains_twice_as_the_plain_trainer_does(tmp_path, own):
    settings, classes = {"save_strategy": "epoch"}, (SATTrainer, Trainer)
    assert_same_run(*(plain_run(cls, str(tmp_path / cls.__name__), "bert", settings, 2, **own) for cls in classes))


def test_off_resumes_a_checkpoint_of_the_plain_trainer(tmp_path):
    whole = plain_run(Trainer, str(tmp_path), "bert", {"save_strategy": "steps", "save_steps": 7})
    resumed = make_trainer(str(tmp_path), data=data_for("bert", 44), num_train_epochs=2, label_correction="none")
    resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-7")
    assert_same_tensors(weights(resumed), weights(whole))


# ---- on: what is around the loss is the plain Trainer's -------------------------------------------------------------


def tuples():
    return bert(return_dict=False)


FEATURES = {
    "nothing": {},
    "evaluating, smoothed": {**EVALUATING, "label_smoothing_factor": 0.1},
    "bf16": {"bf16": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "workers": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "lora": {"model": lora},
    "tuples": {"model": tuples},
    "own module": {"model": OwnHead},
    "own optimizers": {"optimizers": optimizers},
    "vit": {"model": MODELS["vit"], "data": "vit"},
    "columns kept": {"remove_unused_columns": False},
}


class Watching:
    """Keeps the inputs of every training pass."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            self.__dict__.setdefault("seen", []).append({k: v.clone() for k, v in inputs.items()})
        return super().compute_loss(model, inputs, *args, **kwargs)


class WatchingPlain(Watching, Trainer):
    pass


class WatchingSAT(Watching, SATTrainer):
    pass


def feature_run(trainer: type, folder: str, feature: dict, **ours):
    feature = {"model": bert, "data": "bert", **feature}
    model, data = feature.pop("model")(), data_for(feature.pop("data"))
    own = {"optimizers": feature.pop("optimizers")(model)} if "optimizers" in feature else {}
    config = SATConfig if issubclass(trainer, SATMixin) else TrainingArguments
    made = trainer(
        model=model,
        args=arguments(folder, config, num_train_epochs=2, logging_steps=4, **feature, **ours),
        train_dataset=data,
        eval_dataset=data.select(range(12)),
        data_collator=collator_for("vit" if "pixel_values" in data.column_names else "bert"),
        compute_metrics=accuracy,
        **own,
    )
    made.train()
    return made


@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_on_only_the_loss_differs(tmp_path, feature):
    """Same batches in the same order; before the onset also the same dropout, weights and logs, to rounding."""
    theirs = feature_run(WatchingPlain, str(tmp_path / "theirs"), feature)
    before = feature_run(WatchingSAT, str(tmp_path / "before"), feature, **NEVER)
    corrected = feature_run(WatchingSAT, str(tmp_path / "corrected"), feature, **ON)
    for ours in (before, corrected):
        for mine, plain in zip(ours.seen, theirs.seen, strict=True):
            assert_same_tensors(mine, plain)
        assert (ours.label_report().to_pandas()["n_visits"] == 2).all()
    tolerance = {"atol": 3e-3, "rtol": 0.05} if "bf16" in feature else {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(weights(before), weights(theirs), **tolerance)
    for mine, plain in zip(history(before), history(theirs), strict=True):
        assert {k: v for k, v in mine.items() if not k.startswith("sat/")} == pytest.approx(plain, rel=0.02, abs=1e-4)
    assert not before.label_report().to_pandas()["is_label_issue"].any()
    assert (corrected.label_report().to_pandas()["p_given"] < 1).all(), "a target has not moved"


# ---- on: evaluation -------------------------------------------------------------------------------------------------


class ComparingEvaluation(SATTrainer):
    """At every evaluation: the plain Trainer's numbers for the same weights, and a label state that stands still."""

    compared = 0

    def evaluate(self, *args, **kwargs):
        state = {} if self._correction is None or self._correction.state is None else self._correction.state.tensors()
        before = {name: value.clone() for name, value in state.items()}
        metrics = super().evaluate(*args, **kwargs)
        assert_same_tensors(before, state)
        with torch.random.fork_rng():
            plain_args = arguments(self.args.output_dir, TrainingArguments, label_smoothing_factor=0.1)
            plain = Trainer(copy.deepcopy(self.model), plain_args, data_collator=pad, compute_metrics=accuracy)
            expected, predicted = plain.evaluate(self.eval_dataset), plain.predict(self.eval_dataset)
            ours = self.predict(self.eval_dataset)
        passing = (*TIMED, "epoch", "model_preparation_time")
        mine, expected = ({k: v for k, v in log.items() if not k.endswith(passing)} for log in (metrics, expected))
        assert mine == expected
        assert (ours.predictions == predicted.predictions).all() and (ours.label_ids == predicted.label_ids).all()
        self.compared += 1
        return metrics


def test_evaluation_in_the_middle_is_the_plain_one_and_moves_nothing(runs):
    data = text_data(16, seed=5)
    trainer = make_trainer(
        runs,
        trainer=ComparingEvaluation,
        eval_dataset=data,
        compute_metrics=accuracy,
        label_smoothing_factor=0.1,
        eval_on_start=True,
        **{**EVALUATING, **ON},
    )
    trainer.train()
    trainer.evaluate()
    assert trainer.compared == 11  # at the start, nine times on the way, after training


def test_a_run_with_evaluations_ends_where_one_without_does(tmp_path):
    """Without dropout: making a loader draws from the global generator, in the plain Trainer too."""
    ends = []
    for name, settings in (("with", {"eval_strategy": "steps", "eval_steps": 1}), ("without", {})):
        data = text_data(16, seed=5)
        trainer = make_trainer(
            str(tmp_path / name), bert(0.0), eval_dataset=data, save_strategy="epoch", **ON, **settings
        )
        trainer.train()
        ends.append((weights(trainer), trainer._correction.state.tensors()))
    assert_same_tensors(ends[0][0], ends[1][0])
    assert_same_tensors(ends[0][1], ends[1][1])
