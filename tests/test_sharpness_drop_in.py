"""SAM under and above what users bring: their classes, losses, steps, optimizers and arguments; evaluation."""

import pytest
import torch
from drop_in_runs import accuracy, history, optimizers, own_loss, own_step
from everywhere_runs import run_pairs, t5
from hand_loop import DEFAULTS, IN_ORDER, Net
from sharpness_runs import (
    ASAM,
    BY_MICRO_BATCH,
    CORRECTING,
    NONE,
    SAM,
    TWO,
    Watched,
    assert_as_by_hand,
    losses_of,
    replayed,
    targets,
)
from small import arguments, assert_same_tensors, bert, make_trainer, pad, text_data, weights
from test_refusals import refused
from transformers import Trainer, TrainingArguments

from hf_sat import SATMixin, SATSeq2SeqConfig, SATSeq2SeqTrainer, SATTrainer


@pytest.mark.parametrize("own", [own_loss, own_step])
@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_a_users_trainer_beneath(runs, own, kind):
    cls = type("Ours", (SATMixin, own(Trainer)), {})
    run, hand = replayed(runs, kind, trainer=cls, penalty=0.01 if own is own_loss else 0.0)
    assert_as_by_hand(run, hand)


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_users_loss_and_step_above(runs, settings):
    """The step above sees a step once, with the clean loss, and leaves the SAM gradient."""

    class Counting(own_loss(SATTrainer)):
        calls = 0

        def training_step(self, *args, **kwargs):
            self.calls += 1
            return super().training_step(*args, **kwargs)

    run, hand = replayed(runs, settings, trainer=Counting, penalty=0.01)
    assert_as_by_hand(run, hand)
    assert run.calls == 12


@pytest.mark.parametrize("settings", [CORRECTING, NONE])
def test_a_step_above_that_leaves_ours_out_is_refused(runs, settings):
    """Rather than trained without SAM and without a word."""
    refused(make_trainer(runs, Net(), trainer=own_step(SATTrainer), **settings, **SAM), "training_step", "sam='sam'")
    make_trainer(runs, Net(), trainer=own_step(SATTrainer), **settings).train()


def focal(outputs, labels, num_items_in_batch=None):
    p = outputs["logits"].log_softmax(dim=1).gather(1, labels[:, None]).exp()
    return -((1 - p) ** 2 * p.log()).sum() / num_items_in_batch


@pytest.mark.parametrize("settings", [SAM, {**ASAM, **TWO}, {**SAM, **TWO, **BY_MICRO_BATCH}])
def test_a_users_loss_function(tmp_path, settings):
    """As the same loss inside the model: the function serves both passes."""

    class Focal(Net):
        def forward(self, input_ids, attention_mask=None, labels=None, num_items_in_batch=None):
            out = super().forward(input_ids, attention_mask, labels)
            return {**out, "loss": focal(out, labels, num_items_in_batch)}

        accepts_loss_kwargs = True

    ends, settings = [], {**DEFAULTS, **NONE, **settings}
    for model, function in ((Net(), focal), (Focal(), None)):
        args = arguments(str(tmp_path / str(len(ends))), **settings, **IN_ORDER)
        trainer = SATTrainer(
            model.double(), args, train_dataset=text_data(44), data_collator=pad, compute_loss_func=function
        )
        # So that upstream takes the labels out of the batch itself, not out of a copy on the device.
        trainer._prepare_inputs = lambda inputs: inputs
        trainer.train()
        ends.append((weights(trainer), losses_of(history(trainer))))
    torch.testing.assert_close(ends[0][0], ends[1][0], atol=1e-9, rtol=0.0)
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert one == pytest.approx(other) and one["sam/sharpness"] != 0


@pytest.mark.parametrize("kind", [SAM, {**ASAM, **TWO, **BY_MICRO_BATCH}])
def test_optimizers_passed_in(tmp_path, kind):
    """A step of the optimizer is a step: its state, and the scheduler's, count no second pass."""
    model = Net().double()
    args = arguments(str(tmp_path), **{**DEFAULTS, **kind, "num_train_epochs": 1}, **IN_ORDER)
    given = optimizers(model)
    SATTrainer(model, args, train_dataset=text_data(48), data_collator=pad, optimizers=given).train()
    steps = 6 // kind.get("gradient_accumulation_steps", 1)
    assert given[1].last_epoch == steps
    assert {key for state in given[0].state.values() for key in state} == {"momentum_buffer"}


def test_plain_arguments_have_no_sam(runs):
    trainer = Watched(Net(), arguments(runs, TrainingArguments), train_dataset=text_data(16), data_collator=pad)
    trainer.train()
    assert all(not second for _, second in trainer.seen.values())
    assert not any(key.startswith("sam/") for log in trainer.state.log_history for key in log)


@pytest.mark.parametrize("correction", [NONE, {"label_correction": "sat", **CORRECTING}], ids=["none", "sat"])
def test_the_seq2seq_form(tmp_path, correction):
    ends = {}
    for rho in (None, 0.0, 0.5):
        sam = {} if rho is None else {"sam": "sam", "sam_rho": rho}
        common = {**correction, **TWO, **sam, "logging_steps": 1}
        run, metrics = run_pairs(str(tmp_path / str(rho)), t5, SATSeq2SeqTrainer, SATSeq2SeqConfig, **common)
        ends[rho] = weights(run), targets(run), metrics
    for one, other in zip(ends[None][:2], ends[0.0][:2]):
        assert_same_tensors(one, other)
    assert ends[None][2] == ends[0.0][2]
    assert not torch.equal(ends[0.5][0]["shared.weight"], ends[0.0][0]["shared.weight"])
    assert min(log["sam/sharpness"] for log in losses_of(run.state.log_history)) > 0


def test_evaluation_is_at_the_weights_and_moves_nothing(tmp_path):
    ends, data = [], text_data(16, seed=5)
    for name, settings in (("with", {"eval_strategy": "steps", "eval_steps": 1}), ("without", {})):
        folder = str(tmp_path / name)
        trainer = make_trainer(
            folder, bert(0.0), eval_dataset=data, save_strategy="steps", save_steps=1, compute_metrics=accuracy,
            **CORRECTING, **SAM, **TWO, **settings,
        )  # fmt: skip
        trainer.train()
        ends.append((weights(trainer), targets(trainer)))
        if name == "with":
            evaluated = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    assert_same_tensors(ends[0][0], ends[1][0])
    assert_same_tensors(ends[0][1], ends[1][1])
    for step in (1, 5):
        model = type(trainer.model).from_pretrained(f"{folder}/checkpoint-{step}")
        plain = Trainer(model, arguments(folder, TrainingArguments), data_collator=pad, eval_dataset=data)
        assert plain.evaluate()["eval_loss"] == pytest.approx(evaluated[step], rel=1e-6)
