"""What distillation refuses before the first step, with the way out."""

import re

import pytest
from distillation_runs import refused, taught, teacher_for
from small import arguments, bert, make_trainer, pad, text_data
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from hf_sat import SATConfig, SATTrainer

nan, inf = float("nan"), float("inf")
WRONG = [("kd_weight", value) for value in (-0.1, 1.1, nan, inf, "half", True, [0.5])]
WRONG += [("kd_temperature", value) for value in (0, -1.0, nan, inf, "hot", None, True)]
WRONG += [("kd_loss", value) for value in ("KL", "ce", None)]
WRONG += [("kd_teacher_dtype", "half"), ("kd_teacher_dtype", None), ("kd_cache_dtype", "int8")]
WRONG += [("kd_teacher_device", value) for value in ("gpu9", "", 3)]
WRONG += [("kd_cache_top_k", value) for value in (0, -1, 2.5, True)]
WRONG += [("kd_cache_per_epoch", "yes"), ("kd_cache_dir", 3), ("kd_cache_dir", "")]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later."""
    settings = {"kd_weight": 0.5}
    if setting in ("kd_cache_top_k", "kd_cache_per_epoch"):
        settings["kd_cache_dir"] = runs + "-cache"
    with pytest.raises(ValueError, match=f"{setting}={re.escape(repr(value))}"):
        SATConfig(output_dir=runs, **{**settings, setting: value})
    trainer = make_trainer(runs, trainer=taught(teacher_for()), **settings)
    setattr(trainer.args, setting, value)
    refused(trainer, f"{setting}={re.escape(repr(value))}")


@pytest.mark.parametrize("setting, value", [("kd_cache_top_k", 2), ("kd_cache_per_epoch", True)])
def test_settings_of_a_cache_that_is_not_there(runs, setting, value):
    with pytest.raises(ValueError, match=f"{setting}={value}.*kd_cache_dir"):
        SATConfig(output_dir=runs, kd_weight=0.5, **{setting: value})


def test_a_teacher_without_weight_and_the_reverse(runs):
    refused(make_trainer(runs, trainer=taught(teacher_for())), "teacher_model", "kd_weight=None", "set kd_weight")
    refused(make_trainer(runs, kd_weight=0.5), r"kd_weight=0\.5", "no teacher_model")
    refused(make_trainer(runs, kd_weight=0.0, label_correction="none"), r"kd_weight=0\.0", "no teacher_model")


def test_plain_training_arguments_have_no_weight(runs):
    args = arguments(runs, TrainingArguments)
    trainer = SATTrainer(bert(), args, train_dataset=text_data(), data_collator=pad, teacher_model=teacher_for())
    refused(trainer, "teacher_model", "kd_weight", "leave teacher_model")
    args.kd_weight = 0.5
    trainer.train()
    assert trainer.state.global_step == 18


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2))


HEADS = {
    "regression": (lambda: bert(classes=1), ["num_labels=1", "leave teacher_model"]),
    "regression by type": (lambda: bert(problem_type="regression"), ["problem_type='regression'"]),
    "multi-label": (lambda: bert(problem_type="multi_label_classification"), ["multi_label_classification"]),
    "causal": (gpt2, ["GPT2LMHeadModel", "causal", "leave teacher_model"]),
}


@pytest.mark.parametrize("correction", ["none", "sat"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_without_classes_beside_their_labels(runs, name, correction):
    make, parts = HEADS[name]
    trainer = make_trainer(runs, make(), trainer=taught(teacher_for()), kd_weight=0.5, label_correction=correction)
    refused(trainer, *(parts if correction == "none" else parts[:1]))


def test_a_loss_function_of_the_users(runs):
    own = taught(teacher_for(), compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs["loss"])
    trainer = make_trainer(runs, trainer=own, kd_weight=0.5, label_correction="none")
    refused(trainer, "compute_loss_func", "distillation")


def test_a_subclass_that_does_not_ask_for_our_loss(runs):
    class Own(SATTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    trainer = make_trainer(runs, trainer=taught(teacher_for(), Own), kd_weight=0.5, label_correction="none")
    refused(trainer, r"Own\.compute_loss", r"super\(\)\.compute_loss")
