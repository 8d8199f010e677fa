"""Samplers and streams that are resumed, to the bit."""

import numpy as np
import pytest
import torch
from everywhere_runs import EACH_STEP, ON, assert_resumes
from small import make_trainer, text_data, weights
from test_step import Recording
from transformers import Trainer

from hf_sat import SATTrainer

SAMPLERS = {
    "random": {},
    "batch_rebalance": {"train_sampling_strategy": "batch_rebalance"},
    "group_by_length": {"train_sampling_strategy": "group_by_length"},
    "group_by_length, own seed": {"train_sampling_strategy": "group_by_length", "data_seed": 7},
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_samplers_resume(tmp_path, name, stop_at):
    """Three steps an epoch; a stop within, at the end and after the first."""
    settings = {**ON, **EACH_STEP, **SAMPLERS[name], "gradient_accumulation_steps": 2}
    assert_resumes(tmp_path, stop_at, lambda folder, callbacks: make_trainer(folder, callbacks=callbacks, **settings))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "random"])
def test_samplers_draw_another_order_in_each_epoch(runs, name):
    trainer = make_trainer(runs, trainer=Recording, **SAMPLERS[name])
    trainer.train()
    orders = {tuple(np.concatenate([p[2] for p in trainer.passes if int(p[1]) == epoch])) for epoch in range(3)}
    assert len(orders) == 3 and {len(set(order)) for order in orders} == {48}


class Stream(torch.utils.data.IterableDataset):
    """The examples with their ids in an order of its own, `passes` times."""

    def __init__(self, passes):
        self.rows = [{**row, "key": i} for i, row in enumerate(text_data(48))]
        self.passes = passes

    def __iter__(self):
        rng = np.random.default_rng(0)
        for _ in range(self.passes):
            for i in rng.permutation(len(self.rows)):
                yield self.rows[i]


def hub_stream(passes):
    data = text_data(48).add_column("key", list(range(48))).to_iterable_dataset(num_shards=4).shuffle(3, buffer_size=8)
    return data if passes == 1 else data.repeat(passes)


@pytest.mark.parametrize("stream", [Stream, hub_stream])
@pytest.mark.parametrize("dispatch", [True, False])
@pytest.mark.parametrize(
    "passes, stop_at",
    [
        (4, 8),
        (1, 2),
        (1, 8),
    ],
)
def test_streams_resume(tmp_path, stream, dispatch, passes, stop_at):
    """Six steps of eight are a pass; `passes` are in the stream, the others begin it again."""

    def make(folder, callbacks):
        return make_trainer(
            folder, data=stream(passes), callbacks=callbacks, max_steps=18, sample_id_column="key", sat_num_samples=48,
            accelerator_config={"dispatch_batches": dispatch}, **ON, **EACH_STEP,
        )  # fmt: skip

    resumed = assert_resumes(tmp_path, stop_at, make)
    report = resumed.label_report().to_pandas()
    assert (report["n_visits"] == 3).all() and (report["p_given"] < 1).all()


@pytest.mark.parametrize("stream", [Stream, hub_stream])
def test_a_stream_comes_in_the_order_of_the_plain_trainer(tmp_path, stream):
    """Before the onset, over two passes, of which a shuffled stream has each in an order of its own."""
    ends = []
    for trainer, settings in ((Trainer, {}), (SATTrainer, {"sample_id_column": "key", "sat_num_samples": 48})):
        settings = {**settings, "sat_start_epoch": 99} if settings else {}
        run = make_trainer(str(tmp_path), data=stream(1), trainer=trainer, max_steps=12, **settings)
        run.train()
        ends.append(weights(run))
    torch.testing.assert_close(ends[1], ends[0], atol=1e-5, rtol=1e-4)
