"""Two processes where `test_distributed.py` does not go: streams, resume, lengths that differ between the ranks.

Protects: the same state on both ranks, visit counts, resume to the bit, streams that end where one process ends, and
the refusal of processes that do not see each other. This file is also the script that is launched.
"""

import json
import os
import sys

import launched
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import Steps, assert_same_tensors, bert, bert_tokens, make_trainer, pad, text_data, token_data, weights

from hf_sat.state import STATE_FILE

pytestmark = pytest.mark.slow


class Stream(torch.utils.data.IterableDataset):
    """Forty-eight examples in an order of their own, over and over."""

    def __iter__(self):
        rng, rows = np.random.default_rng(0), text_data(48)
        for _ in range(3):
            for i in rng.permutation(48):
                yield {**rows[int(i)], "key": int(i)}


def hub_stream():
    return text_data(48).add_column("key", list(range(48))).to_iterable_dataset(num_shards=4).repeat(3)


def pad_to_ten(items):
    """Batches that can be cut and joined anywhere, as dispatching does."""
    return {name: value[:-1] for name, value in pad([*items, {"input_ids": [0] * 10, "labels": 0}]).items()}


COMMON = {
    "sat_start_epoch": 0.5,
    "sat_momentum": 0.5,
    "sat_reweight": False,
    "learning_rate": 1e-2,
    "save_strategy": "steps",
    "save_steps": 1,
}
STREAM = {"max_steps": 18, "sample_id_column": "key", "sat_num_samples": 48}
DISPATCHED = {**STREAM, "accelerator_config": {"dispatch_batches": True}}
SPLIT = {**STREAM, "accelerator_config": {"dispatch_batches": False}}
WINDOWS = {"gradient_accumulation_steps": 2}
# name -> (model, data, settings, dropout, step to stop at)
RUNS = {
    "stream, dispatched": (bert, Stream, DISPATCHED, 0.0, 8),
    "stream, split": (bert, Stream, SPLIT, 0.0, 8),
    "hub stream, dispatched": (bert, hub_stream, DISPATCHED, 0.0, 8),
    "hub stream, split": (bert, hub_stream, SPLIT, 0.0, 8),
    "stream, accumulating": (bert, Stream, {**SPLIT, **WINDOWS, "max_steps": 9}, 0.0, 4),
    "examples": (bert, lambda: text_data(45), {**WINDOWS, "sat_momentum": "auto", "sat_start_epoch": "auto"}, 0.1, 5),
    "tokens": (bert_tokens, lambda: token_data(45), WINDOWS, 0.1, 5),
    "tokens, not averaged": (
        bert_tokens,
        lambda: token_data(45),
        {**WINDOWS, "average_tokens_across_devices": False},
        0.1,
        5,
    ),
    "batch_rebalance": (bert, lambda: text_data(48), {**WINDOWS, "train_sampling_strategy": "batch_rebalance"}, 0.1, 5),
    "group_by_length": (bert, lambda: text_data(48), {**WINDOWS, "train_sampling_strategy": "group_by_length"}, 0.1, 4),
}
STREAMS = [name for name in RUNS if "stream" in name]


def train(folder: str, name: str, batch_size: int, stop_at: int | None = None, resume: bool = False):
    make, data, settings, dropout, _ = RUNS[name]
    trainer = make_trainer(
        folder,
        make(dropout=dropout),
        data(),
        collator=pad_to_ten if "stream" in name else pad,
        callbacks=[Steps(stop_at)],
        per_device_train_batch_size=batch_size,
        **{**COMMON, **settings},
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def leave(trainer, out: str) -> None:
    """What the tests compare: of each rank its own weights and report."""
    save_file(weights(trainer), f"{out}-{trainer.args.process_index}.safetensors")
    trainer.label_report().to_pandas().to_parquet(f"{out}-{trainer.args.process_index}.parquet")
    with open(f"{out}-{trainer.args.process_index}.json", "w") as file:
        json.dump({"world": trainer.args.world_size, "steps": trainer.state.global_step}, file)


def main(folder: str) -> None:
    torch.set_num_threads(1)
    for name, (*_, stop_at) in RUNS.items():
        whole, parts = os.path.join(folder, name, "whole"), os.path.join(folder, name, "parts")
        leave(train(whole, name, 4), whole)
        train(parts, name, 4, stop_at)
        leave(train(parts, name, 4, resume=True), parts)


def alone(folder: str) -> None:
    """A run that does not see the other process."""
    make_trainer(folder, use_cpu=False).train()


if __name__ == "__main__":
    {"main": main, "alone": alone}[sys.argv[1]](sys.argv[2])
    launched.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left."""
    folder = str(tmp_path_factory.mktemp("more"))
    launched.assert_succeeded(launched.launch(__file__, "main", folder))
    return folder


def left(folder, name, part, rank):
    import pandas as pd

    out = os.path.join(folder, name, part)
    with open(f"{out}-{rank}.json") as file:
        about = json.load(file)
    saved = load_file(os.path.join(out, f"checkpoint-{about['steps']}", STATE_FILE))
    return load_file(f"{out}-{rank}.safetensors"), saved, pd.read_parquet(f"{out}-{rank}.parquet"), about


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same(folder, name):
    (one, _, report, about), (other, _, same, _) = left(folder, name, "whole", 0), left(folder, name, "whole", 1)
    assert about["world"] == 2
    assert_same_tensors(one, other)
    assert report.equals(same)
    assert (report["n_visits"] == 3).all() and (report["p_given"] < 1).all()


@pytest.mark.parametrize("name", RUNS)
def test_resume(folder, name):
    for rank in (0, 1):
        (one, saved, report, about), (other, same, again, _) = (
            left(folder, name, part, rank) for part in ("whole", "parts")
        )
        assert RUNS[name][-1] < about["steps"]
        assert_same_tensors(one, other)
        assert_same_tensors(saved, same)
        assert report.equals(again)


@pytest.mark.parametrize("name", STREAMS)
def test_streams_end_where_one_process_does(folder, tmp_path, name):
    trainer = train(str(tmp_path), name, 8)
    two, saved, report, about = left(folder, name, "whole", 0)
    assert about["steps"] == trainer.state.global_step
    one = load_file(os.path.join(str(tmp_path), f"checkpoint-{about['steps']}", STATE_FILE))
    torch.testing.assert_close(saved["soft_targets"], one["soft_targets"], atol=1e-4, rtol=0.0)
    torch.testing.assert_close(two, weights(trainer), atol=1e-4, rtol=1e-3)
    assert report["corrected_label"].equals(trainer.label_report().to_pandas()["corrected_label"])


def test_processes_that_do_not_see_each_other_are_refused(tmp_path):
    done = launched.launch(__file__, "alone", str(tmp_path), use_cpu=False)
    assert done.returncode != 0
    assert "ValueError: 2 processes were launched and the Trainer sees 1" in done.stderr
