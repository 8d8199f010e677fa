"""Runs with a cache that its tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from distillation_runs import taught
from small import assert_same_tensors, bert, make_trainer, pad, text_data, weights


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def refused(folder, teacher, *parts, model=None, data=None, collator=pad, **settings):
    """The run is refused before its first step, with a message that names all parts in order."""
    trainer = make_trainer(folder, model or bert(), data, taught(teacher), collator, **{"kd_weight": 0.5, **settings})
    before = weights(trainer)
    with pytest.raises(ValueError, match="(?s)kd_cache_dir.*" + ".*".join(parts)):
        trainer.train()
    assert_same_tensors(before, weights(trainer))
    assert trainer.state.global_step == 0


class Keyed(torch.utils.data.Dataset):
    """Another view of each example in each epoch, by the epoch and its number."""

    def __init__(self, n=20):
        self.rows, self.epoch = list(text_data(n)), 0

    def __len__(self):
        return len(self.rows)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, i):
        ids = np.random.default_rng((self.epoch, i)).permutation(self.rows[i]["input_ids"]).tolist()
        return {**self.rows[i], "input_ids": ids}
