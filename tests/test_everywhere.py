"""Label correction wherever the Trainer runs: precisions, compilers, adapters, Seq2Seq, users' classes.

Protects: float32 targets that equal a replay from the recorded logits, skipped steps that leave no trace, runs that end
alike with and without what must not change them, and a Seq2Seq form that is upstream's until asked.
"""

import os

import numpy as np
import pytest
import torch
from everywhere_runs import EACH_STEP, ON, assert_resumes, pad_to_ten, pairs, run_pairs, saved, t5
from small import (
    CLASSES,
    arguments,
    assert_same_tensors,
    bert,
    bert_tokens,
    make_trainer,
    pad,
    text_data,
    token_data,
    weights,
)
from test_step import Recording, check, replay
from transformers import BartConfig, BartForConditionalGeneration, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

from hf_sat import SATConfig, SATMixin, SATSeq2SeqConfig, SATSeq2SeqTrainer
from hf_sat.state import STATE_FILE

# ---- precision ------------------------------------------------------------------------------------------------------


PRECISIONS = {
    "autocast": (bert, {"bf16": True}),
    "weights": (lambda: bert().to(torch.bfloat16), {}),
    "weights, symmetric": (lambda: bert().to(torch.bfloat16), {"sat_loss": "sce"}),
    "accumulating": (bert, {"bf16": True, "gradient_accumulation_steps": 2}),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_bfloat16(runs, name):
    make, settings = PRECISIONS[name]
    settings, data = {**ON, **settings}, text_data(44)
    trainer = make_trainer(runs, make(), data, Recording, save_strategy="epoch", **settings)
    check(trainer, runs, np.eye(CLASSES)[data["labels"]], lambda example, k: example, settings)
    logits = np.concatenate([recorded[4] for recorded in trainer.passes])
    rounded = torch.from_numpy(logits).to(torch.bfloat16).double().numpy()
    assert np.array_equal(rounded, logits), "the run was not in bfloat16"


class Overflowing(Recording):
    """Some steps overflow: a prediction is infinite, and the scaler leaves the weights as they are."""

    overflowing = (2, 5, 9)

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.spoil = model.training and self.state.global_step in self.overflowing
        return super().compute_loss(model, inputs, *args, **kwargs)


@pytest.mark.parametrize("k", [1, 2])
def test_a_skipped_step_leaves_no_trace(runs, monkeypatch, k):
    from accelerate.optimizer import AcceleratedOptimizer

    settings, data, model = {**ON, "gradient_accumulation_steps": k}, text_data(44), bert()
    trainer = make_trainer(runs, model, data, Overflowing, save_strategy="epoch", logging_steps=1, **settings)
    taken = AcceleratedOptimizer.step

    def step(optimizer, closure=None):
        optimizer._is_overflow = trainer.state.global_step in trainer.overflowing
        if not optimizer._is_overflow:
            taken(optimizer, closure)

    monkeypatch.setattr(AcceleratedOptimizer, "step", step)
    infinite = torch.tensor([[float("inf")] + [0.0] * (CLASSES - 1)])
    model.classifier.register_forward_hook(
        lambda module, args, out: torch.cat([infinite, out[1:]]) if trainer.spoil else out
    )
    trainer.train()
    passes = [recorded for recorded in trainer.passes if recorded[0] not in trainer.overflowing]
    targets, _ = replay(passes, np.eye(CLASSES)[data["labels"]], lambda example, k: example, settings)
    np.testing.assert_allclose(saved(trainer)["soft_targets"].numpy(), targets, atol=2e-6)
    visits = np.bincount(np.concatenate([recorded[2] for recorded in passes]), minlength=44)
    assert trainer.label_report().to_pandas()["n_visits"].tolist() == visits.tolist() and visits.min() < 3
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert sum(log.get("sat/nonfinite_rows", 0.0) for log in logs) == 0
    assert logs[-1]["sat/corrected"] == (targets.argmax(1) != np.array(data["labels"])).sum()


# ---- what must not change a run -------------------------------------------------------------------------------------


SAME = {
    "activation checkpointing": {"gradient_checkpointing": True},
    "reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "tokens not averaged": {"average_tokens_across_devices": False},
    "compiled, eager": {"torch_compile": True, "torch_compile_backend": "eager"},
    "compiled, aot_eager": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("make, data", [(bert, text_data), (bert_tokens, token_data)], ids=["examples", "tokens"])
def test_a_run_ends_as_one_without(tmp_path, name, make, data):
    compiled = "torch_compile" in SAME[name]
    if compiled and data is token_data:
        pytest.skip("compiled once is enough")
    # Dropout where the random numbers are promised to be the same.
    dropout = 0.0 if compiled else 0.1
    common = {**ON, "save_strategy": "epoch", "gradient_accumulation_steps": 2, "optim": "sgd", "learning_rate": 0.1}
    collator = pad_to_ten if compiled else pad
    ends = []
    for settings in ({}, SAME[name]):
        folder = str(tmp_path / str(len(ends)))
        trainer = make_trainer(folder, make(dropout=dropout), data(48), collator=collator, **common, **settings)
        trainer.train()
        ends.append((weights(trainer), saved(trainer)))
    for plain, other in zip(*ends):
        torch.testing.assert_close(other, plain, atol=1e-5 if compiled else 0.0, rtol=0.0)
    assert (ends[0][1]["soft_targets"].max(dim=1).values < 1).all()


# ---- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, data", [(bert, text_data), (bert_tokens, token_data)], ids=["examples", "tokens"])
def test_adapters_resume(tmp_path, make, data):
    peft = pytest.importorskip("peft")

    def trainer(folder, callbacks):
        model = make()
        task = "SEQ_CLS" if make is bert else "TOKEN_CLS"
        lora = peft.LoraConfig(task, r=2, lora_dropout=0.1, target_modules=["query"], modules_to_save=["classifier"])
        torch.manual_seed(1)
        model = peft.get_peft_model(model, lora)
        return make_trainer(folder, model, data(), callbacks=callbacks, **ON, **EACH_STEP, learning_rate=1e-2)

    resumed = assert_resumes(tmp_path, 4, trainer)
    files = os.listdir(os.path.join(resumed.args.output_dir, "checkpoint-5"))
    assert {STATE_FILE, "adapter_model.safetensors"} <= set(files) and "model.safetensors" not in files
    assert (saved(resumed)["soft_targets"].max(dim=1).values < 1).all()


# ---- Seq2Seq and users' classes -------------------------------------------------------------------------------------


def bart():
    torch.manual_seed(0)
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in SIDES.items()}
    return BartForConditionalGeneration(BartConfig(vocab_size=40, d_model=16, max_position_embeddings=32, **sides))


SIDES = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}


@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize("config", [SATSeq2SeqConfig, Seq2SeqTrainingArguments])
def test_the_seq2seq_form_is_upstreams_until_asked(tmp_path, make, config):
    common = {"save_strategy": "epoch", "gradient_accumulation_steps": 2}
    plain = run_pairs(str(tmp_path / "plain"), make, Seq2SeqTrainer, Seq2SeqTrainingArguments, **common)
    ours = run_pairs(str(tmp_path / "ours"), make, SATSeq2SeqTrainer, config, **common)
    assert_same_tensors(weights(plain[0]), weights(ours[0]))
    assert plain[1] == ours[1] and "eval_made" in ours[1]
    last = f"checkpoint-{plain[0].state.global_step}"
    assert set(os.listdir(tmp_path / "plain" / last)) == set(os.listdir(tmp_path / "ours" / last))
    with pytest.raises(ValueError, match="label_correction"):
        ours[0].label_report()


@pytest.mark.parametrize("make", [t5, bart])
def test_targets_of_target_tokens(runs, make):
    settings = {"label_correction": "sat", **ON, "save_strategy": "epoch"}
    trainer, metrics = run_pairs(runs, make, SATSeq2SeqTrainer, SATSeq2SeqConfig, **settings)
    report, data = trainer.label_report().to_pandas(), pairs()
    assert report["given_label"].tolist() == [label for row in data["labels"] for label in row]
    assert (report["n_visits"] == 2).all() and report["token_index"].tolist() == list(range(6)) * len(data)
    targets = saved(trainer)["soft_targets"]
    vocabulary = trainer.model.get_output_embeddings().weight.shape[0]
    assert targets.shape == (6 * len(data), vocabulary) and (targets.max(dim=1).values < 1).all()
    assert "eval_made" in metrics


def test_a_users_trainer_with_tokens(tmp_path):
    """The user's penalty and batch order stay: before the onset the run is theirs."""

    class Theirs(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
            loss = loss + 0.01 * sum(p.square().sum() for p in model.parameters())
            return (loss, outputs) if return_outputs else loss

    class Ours(SATMixin, Theirs):
        pass

    data, ends = token_data(), []
    for cls, settings in ((Theirs, {}), (Ours, {"sat_start_epoch": 99}), (Ours, {**ON, "save_strategy": "epoch"})):
        config = SATConfig if settings else Seq2SeqTrainingArguments
        args = arguments(str(tmp_path / str(len(ends))), config, **settings)
        trainer = cls(bert_tokens(), args, train_dataset=data, data_collator=pad)
        trainer.train()
        ends.append(weights(trainer))
    torch.testing.assert_close(ends[1], ends[0], atol=1e-5, rtol=1e-4)
    report = trainer.label_report().to_pandas()
    assert report["given_label"].tolist() == [label for row in data["labels"] for label in row if label != -100]
    assert (report["n_visits"] == 3).all() and (report["p_given"] < 1).all()
