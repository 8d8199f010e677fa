"""Features of the Trainer, and users' subclasses, under SAT."""

import os

import pytest
import torch
from drop_in_runs import EVALUATING, NEVER, ON, OwnHead, accuracy, own_loss, own_step
from small import arguments, assert_same_tensors, bert, make_trainer, pad, text_data, weights
from torch.utils.data import DataLoader, SequentialSampler, WeightedRandomSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from hf_sat import SATConfig, SATMixin, SATTrainer


@pytest.mark.parametrize("args", [TrainingArguments, SATConfig])
def test_correction_is_on_by_default(runs, args):
    trainer = SATTrainer(bert(), arguments(runs, args), train_dataset=text_data(), data_collator=pad)
    trainer.train()
    assert any("sat/onset_epoch" in log for log in trainer.state.log_history)
    assert (trainer.label_report().to_pandas()["p_given"] < 1).all()


def test_best_model_is_loaded_at_the_end(runs):
    settings = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True, **EVALUATING, **ON}
    trainer = make_trainer(runs, eval_dataset=text_data(16, seed=5), compute_metrics=accuracy, **settings)
    trainer.train()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert trainer.evaluate()["eval_loss"] == min(losses)
    assert (trainer.label_report().to_pandas()["n_visits"] == 3).all()


def test_early_stopping_leaves_whole_steps(runs):
    settings = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True, **EVALUATING, **ON}
    stop = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1e9)
    trainer = make_trainer(runs, eval_dataset=text_data(16, seed=5), callbacks=[stop], **settings)
    trainer.train()
    assert trainer.state.global_step == 4
    assert trainer.label_report().to_pandas()["n_visits"].sum() == 4 * 8


def test_model_init_and_a_second_run_start_anew(runs):
    trainer = make_trainer(runs, model_init=lambda: bert(0.0), **ON)
    ends = []
    for _ in range(2):
        trainer.train()
        ends.append((weights(trainer), trainer.label_report().to_pandas()))
    assert_same_tensors(ends[0][0], ends[1][0])
    assert ends[0][1].equals(ends[1][1])


def test_save_only_model_saves_the_model_only(runs):
    make_trainer(runs, save_strategy="epoch", save_only_model=True, **ON).train()
    assert "sat_state.safetensors" not in os.listdir(f"{runs}/checkpoint-18")


def own_loader(base):
    class OwnLoader(base):
        def get_train_dataloader(self):
            data = self.train_dataset
            sampler = SequentialSampler(data)
            loader = DataLoader(data, batch_size=8, sampler=sampler, collate_fn=self.data_collator)
            return self.accelerator.prepare(loader)

    return OwnLoader


def balancing_sampler(base):
    """Reads the label column, as class-balancing samplers do."""

    class BalancingSampler(base):
        def _get_train_sampler(self, train_dataset=None):
            labels = torch.tensor(list(self.train_dataset["labels"]))
            share = (1 / torch.bincount(labels))[labels]
            return WeightedRandomSampler(share, len(labels), False, torch.Generator().manual_seed(7))

    return BalancingSampler


SUBCLASSES = [own_loader, balancing_sampler, own_loss, own_step]


@pytest.mark.parametrize("subclass", SUBCLASSES)
@pytest.mark.parametrize("how", ["import swapped", "mixin over"])
def test_subclasses_of_users(tmp_path, subclass, how):
    """Before the onset like the user's own Trainer; with correction every row is seen, and moves."""
    theirs = subclass(Trainer)
    ours = subclass(SATTrainer) if how == "import swapped" else type("Ours", (SATMixin, theirs), {})
    ends = {}
    for name, cls, settings in (("plain", theirs, {}), ("before", ours, NEVER), ("on", ours, ON)):
        config = TrainingArguments if name == "plain" else SATConfig
        args = arguments(str(tmp_path / name), config, num_train_epochs=2, logging_steps=4, **settings)
        trainer = cls(bert(), args, train_dataset=text_data(), data_collator=pad)
        trainer.train()
        ends[name] = weights(trainer)
    torch.testing.assert_close(ends["before"], ends["plain"], atol=1e-5, rtol=1e-4)
    report = trainer.label_report().to_pandas()
    assert (report["n_visits"] == 2).all() and (report["p_given"] < 1).all()


def test_a_callback_may_look_at_the_training_loader(runs):
    """Upstream hands the loader to every callback; its batches fit the model."""

    class Looking(TrainerCallback):
        looked = 0

        def on_epoch_end(self, args, state, control, model=None, train_dataloader=None, **kwargs):
            model.eval()
            for batch in train_dataloader:
                self.looked += len(model(**batch)["logits"])

    looking = Looking()
    make_trainer(runs, OwnHead(), callbacks=[looking], **ON).train()
    assert looking.looked == 3 * 48


def test_a_loss_that_leaves_ours_out_is_refused(runs):
    class Bypassing(SATTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    trainer = make_trainer(runs, trainer=Bypassing)
    before = weights(trainer)
    with pytest.raises(ValueError, match=r"Bypassing.compute_loss.*super\(\).compute_loss.*label_correction"):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    assert trainer.state.global_step == 0
