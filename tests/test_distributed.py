"""Two processes against one on the same global batches; one launch serves all tests.

Protects: equal targets on both ranks and equal to one process's to 1e-4, visit counts where the last batches repeat
samples, weights, losses and counts in the logs, the report of rank 0. This file is also the script that is launched.
"""

import json
import os
import sys
from functools import partial

import launched
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import Steps, bert, bert_tokens, make_trainer, pad, text_data, token_data, weights
from test_augment_training import augmented
from test_neighbors import one_sided_data

from hf_sat.state import STATE_FILE

COMMON = {
    "num_train_epochs": 3,
    "sat_reweight": False,
    "learning_rate": 1e-2,
    # The gradient of a key's bias is 0 but for rounding, which Adam would make steps of.
    "adam_epsilon": 1e-6,
    "save_strategy": "steps",
    "save_steps": 1000,
}
CORRECTING = {"sat_momentum": 0.5, "sat_start_epoch": 0.5}
# name -> (model, data, settings); the divisible ones have the same global batches on one process and on two
RUNS = {
    "random": (bert, text_data(48), CORRECTING),
    "automatic": (bert, text_data(48), {}),
    "accumulating": (
        bert,
        text_data(48),
        {**CORRECTING, "gradient_accumulation_steps": 2, "train_sampling_strategy": "sequential"},
    ),
    "tokens": (bert_tokens, token_data(32), CORRECTING),
    "per process": (bert, text_data(48), {**CORRECTING, "average_tokens_across_devices": False}),
    "augmented": (bert, augmented(48), CORRECTING),
    "neighbors": (bert, one_sided_data(96), {"sat_momentum": 0.5, "sat_start_epoch": 2, "sat_neighbors": 16}),
    "two classes": (
        partial(bert, classes=2),
        one_sided_data(96, classes=2),
        {
            "sat_momentum": 0.5,
            "sat_start_epoch": 1.5,
            "sat_neighbors": 16,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-8,
        },
    ),
    "uneven": (bert, text_data(45), CORRECTING),
    "tiny": (bert, text_data(3), CORRECTING),
    "uneven tokens": (bert_tokens, token_data(29), CORRECTING),
}
DIVISIBLE = ["random", "automatic", "accumulating", "tokens", "per process", "augmented", "neighbors", "two classes"]


def run(folder: str, name: str, batch_size: int) -> None:
    """Train, and leave what the tests compare: a file for each rank."""
    make, data, settings = RUNS[name]
    steps = Steps()
    trainer = make_trainer(
        os.path.join(folder, name),
        make(dropout=0.0),
        data,
        collator=pad,
        callbacks=[steps],
        per_device_train_batch_size=batch_size,
        **{**COMMON, **settings},
    )
    trainer.train()
    rank, world = trainer.args.process_index, trainer.args.world_size
    out = os.path.join(folder, f"{name}-{rank}")
    state = {f"state.{key}": value.contiguous() for key, value in trainer._correction.state.tensors().items()}
    save_file({**{f"weights.{key}": value for key, value in weights(trainer).items()}, **state}, f"{out}.safetensors")
    trainer.label_report().to_pandas().to_parquet(f"{out}.parquet")
    with open(f"{out}.json", "w") as file:
        json.dump({"world": world, "logs": steps.logs, "steps": trainer.state.global_step}, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in RUNS:
        run(sys.argv[1], each, 4)
    launched.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left."""
    folder = str(tmp_path_factory.mktemp("two"))
    launched.assert_succeeded(launched.launch(__file__, folder))
    return folder


def left(folder, name, rank):
    import pandas as pd

    out = os.path.join(folder, f"{name}-{rank}")
    with open(f"{out}.json") as file:
        about = json.load(file)
    return load_file(f"{out}.safetensors"), pd.read_parquet(f"{out}.parquet"), about


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same(folder, name):
    (one, report, about), (other, same, _) = left(folder, name, 0), left(folder, name, 1)
    assert about["world"] == 2
    assert one.keys() == other.keys()
    assert not [key for key in one if not torch.equal(one[key], other[key])]
    assert report.equals(same)
    assert len(report) == (one["state.soft_targets"].shape[0])
    saved = load_file(os.path.join(folder, name, f"checkpoint-{about['steps']}", STATE_FILE))
    assert torch.equal(saved["soft_targets"], one["state.soft_targets"])


@pytest.mark.parametrize("name", RUNS)
def test_repeated_samples_count_once(folder, name):
    _, report, _ = left(folder, name, 0)
    assert (report["n_visits"] == 3).all()
    assert (report["p_given"] < 1).all()


@pytest.mark.parametrize("name", DIVISIBLE)
def test_two_processes_end_where_one_does(folder, tmp_path, name):
    run(str(tmp_path), name, 8)
    (two, report, about), (one, expected, alone) = left(folder, name, 0), left(str(tmp_path), name, 0)
    assert about["steps"] == alone["steps"]
    np.testing.assert_allclose(two["state.soft_targets"], one["state.soft_targets"], atol=1e-4)
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-4, rtol=1e-3)
    assert report["corrected_label"].equals(expected["corrected_label"])
    for ours, theirs in zip(about["logs"], alone["logs"], strict=True):
        ours.pop("total_flos", None), theirs.pop("total_flos", None)  # counts padding, which the cut moves
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
