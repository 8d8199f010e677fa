"""Tasks and runs that the tests of label correction everywhere share."""

import os

import datasets
import numpy as np
import torch
from safetensors.torch import load_file
from small import Steps, arguments, assert_same_tensors, pad, text_rows, weights
from transformers import T5Config, T5ForConditionalGeneration

from hf_sat.state import STATE_FILE

ON = {"sat_start_epoch": 0.5, "sat_momentum": 0.5}
EACH_STEP = {"save_strategy": "steps", "save_steps": 1}


def saved(trainer) -> dict[str, torch.Tensor]:
    """What label correction left in the last checkpoint."""
    return load_file(os.path.join(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}", STATE_FILE))


def assert_same_end(one, other):
    assert one.state.global_step == other.state.global_step
    assert_same_tensors(weights(one), weights(other))
    assert_same_tensors(saved(one), saved(other))
    assert one.label_report().to_pandas().equals(other.label_report().to_pandas())


def assert_resumes(tmp_path, stop_at, make):
    """`make(folder, callbacks)` gives the trainer of a new process."""
    whole = make(str(tmp_path / "whole"), [])
    whole.train()
    make(str(tmp_path / "parts"), [Steps(stop_at)]).train()
    resumed = make(str(tmp_path / "parts"), [])
    resumed.train(resume_from_checkpoint=True)
    assert whole.state.global_step > stop_at
    assert_same_end(whole, resumed)
    return resumed


def pad_to_ten(items):
    """All batches of one width, so that a compiler compiles once."""
    return {name: value[:-1] for name, value in pad([*items, {"input_ids": [0] * 10, "labels": 0}]).items()}


def t5():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=40, **sizes))


def pairs(n=24):
    """Sentences, and their first words doubled."""
    rows = text_rows(n)["input_ids"]
    return datasets.Dataset.from_dict(
        {"input_ids": rows, "labels": [[w for w in row[:3] for _ in "ab"] for row in rows]}
    )


def run_pairs(folder, make, trainer, config, **settings):
    settings = {"num_train_epochs": 2, "predict_with_generate": True, "generation_max_length": 8, **settings}
    data = pairs()
    run = trainer(
        make(),
        arguments(folder, config, **settings),
        train_dataset=data,
        eval_dataset=data.select(range(8)),
        data_collator=pad,
        compute_metrics=lambda prediction: {"made": float(np.sum(prediction.predictions))},
    )
    run.train()
    metrics = {key: value for key, value in run.evaluate().items() if "second" not in key and "runtime" not in key}
    return run, metrics
