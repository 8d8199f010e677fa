"""A teacher on two processes, live and cached, against one on the same global batches; one launch serves all tests.

Protects: equal weights on both ranks and equal to one process's, the logs' means over both, a teacher on each rank that
no wrapper touches, a cache that both build a half of and that holds what one process's holds, resume to the bit, and
refusals that reach both; hidden states as logits. This file is also the script that is launched.
"""

import json
import os
import sys
import time

import launched
import numpy as np
import pytest
import torch
from distillation_runs import taught, teacher_for
from safetensors.torch import load_file, save_file
from small import (
    CLASSES,
    Steps,
    assert_same_tensors,
    bert,
    bert_tokens,
    make_trainer,
    pad,
    text_data,
    token_data,
    weights,
)
from torch import nn
from transformers import TrainerCallback

from hf_sat.teacher_cache import TeacherCache

pytestmark = pytest.mark.slow

COMMON = {
    "num_train_epochs": 2,
    "learning_rate": 1e-2,
    "logging_steps": 2,
    "kd_weight": 0.7,
    "label_correction": "none",
    "save_strategy": "steps",
    "save_steps": 4,
}
CORRECTING = {"label_correction": "sat", "sat_momentum": 0.5, "sat_start_epoch": 0.5, "sat_reweight": False}
WINDOWS = {"gradient_accumulation_steps": 2, "train_sampling_strategy": "sequential"}
CACHED = {"cached": True}
# name -> (model, data, settings); the divisible ones have the same global batches on one process and on two
RUNS = {
    "live": (bert, text_data(48), {}),
    "cached": (bert, text_data(48), CACHED),
    "accumulating": (bert, text_data(48), WINDOWS),
    "per process": (bert, text_data(48), {"average_tokens_across_devices": False}),
    "correcting": (bert, text_data(48), {**CORRECTING, **WINDOWS}),
    "correcting, cached": (bert, text_data(48), {**CORRECTING, **CACHED}),
    "sam": (bert, text_data(48), {"sam": "sam", "sam_rho": 0.05, **CORRECTING, **WINDOWS}),
    "tokens": (bert_tokens, token_data(32), {"kd_loss": "js"}),
    "tokens, cached": (bert_tokens, token_data(32), {"kd_loss": "js", **CACHED}),
    "top two": (bert, text_data(48), {"kd_cache_top_k": 2, **CACHED}),
    "hidden": (bert, text_data(48), {"kd_hidden_weight": 2.0, "sam": "sam", **WINDOWS}),
    "tokens, hidden": (bert_tokens, token_data(32), {"kd_hidden_weight": 2.0, "kd_hidden_loss": "similarity"}),
    "uneven": (bert, text_data(45), {}),
    "uneven, cached": (bert, text_data(45), CACHED),
    "tiny, cached": (bert, text_data(3), CACHED),
}
UNEVEN = [name for name in RUNS if "uneven" in name or "tiny" in name]


class Asked(nn.Module):
    """A teacher that keeps count of the rows it was asked for."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.rows = model, model.config, 0

    def forward(self, input_ids, attention_mask=None, output_hidden_states=None):
        self.rows += len(input_ids)
        assert not self.model.training and not torch.is_grad_enabled()
        return self.model(input_ids, attention_mask, output_hidden_states=output_hidden_states)


class Look(TrainerCallback):
    """What becomes of the teacher while the run trains."""

    def __init__(self, teacher):
        self.teacher, self.wrapped = teacher, []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        inner = getattr(self.trainer.model_wrapped, "module", self.trainer.model_wrapped)
        self.wrapped.append(any(module is self.teacher for module in inner.modules()))


def trainer_of(folder, name, batch_size, teacher, callbacks, dropout=0.0):
    make, data, settings = RUNS[name]
    settings = {**COMMON, **settings}
    if settings.pop("cached", False):
        settings["kd_cache_dir"] = f"{folder}-cache"
    return make_trainer(
        folder,
        make(dropout=dropout),
        data,
        taught(teacher),
        callbacks=callbacks,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=4,
        **settings,
    )


def run(folder, name, batch_size):
    """Train, and leave what the tests compare: a file for each rank."""
    out, steps = os.path.join(folder, name), Steps()
    teacher = Asked(teacher_for("tokens" if "tokens" in name else "bert"))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    look = Look(teacher)
    trainer = look.trainer = trainer_of(out, name, batch_size, teacher, [steps, look])
    trainer.train()
    assert not any(look.wrapped)
    assert_same_tensors(before, dict(teacher.state_dict()))
    rank = trainer.args.process_index
    save_file(weights(trainer), f"{out}-{rank}.safetensors")
    with open(f"{out}-{rank}.json", "w") as file:
        about = {"world": trainer.args.world_size, "logs": steps.logs, "steps": trainer.state.global_step}
        json.dump({**about, "asked": teacher.rows}, file)


def stopped(folder, name):
    """With dropout: a whole run, and one that is stopped and resumed."""
    ends = []
    for part, stop_at, resume in (("whole", None, False), ("parts", 4, False), ("parts", None, True)):
        out = os.path.join(folder, f"{name}, {part}")
        trainer = trainer_of(out, name, 4, teacher_for(), [Steps(stop_at)], dropout=0.1)
        trainer.train(resume_from_checkpoint=resume)
        ends.append(weights(trainer))
        steps = trainer.state.global_step
    assert steps > 4
    assert_same_tensors(ends[0], ends[2])


def stale(folder):
    """Another teacher for a cache that is there is refused on every rank."""
    with pytest.raises(ValueError, match=r"kd_cache_dir.*another state of: the teacher"):
        trainer_of(os.path.join(folder, "cached"), "cached", 4, bert(seed=3), []).train()


def count_late() -> None:
    """The second process looks what a cache lacks when the first has long begun to fill it."""
    missing = TeacherCache.missing

    def late(cache, epoch):
        time.sleep(0.5 * int(os.environ["RANK"]))
        return missing(cache, epoch)

    TeacherCache.missing = late


if __name__ == "__main__":
    torch.set_num_threads(1)
    count_late()
    to = sys.argv[1]
    for each in RUNS:
        run(to, each, 4)
    for each in ("correcting", "correcting, cached"):
        stopped(to, each)
    stale(to)
    open(os.path.join(to, f"done-{os.environ['RANK']}"), "w").close()
    launched.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left."""
    folder = str(tmp_path_factory.mktemp("two"))
    launched.assert_succeeded(launched.launch(__file__, folder))
    return folder


def left(folder, name, rank):
    out = os.path.join(folder, f"{name}-{rank}")
    with open(f"{out}.json") as file:
        return load_file(f"{out}.safetensors"), json.load(file)


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same(folder, name):
    (one, about), (other, same) = left(folder, name, 0), left(folder, name, 1)
    assert about["world"] == same["world"] == 2
    assert_same_tensors(one, other)
    assert about["logs"] == same["logs"]


@pytest.mark.parametrize("name", [name for name in RUNS if name not in UNEVEN])
def test_two_processes_end_where_one_does(folder, tmp_path, name):
    """Weights, and every number in the log."""
    run(str(tmp_path), name, 8)
    (two, about), (one, alone) = left(folder, name, 0), left(str(tmp_path), name, 0)
    assert about["steps"] == alone["steps"]
    torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-3)
    assert [log for log in alone["logs"] if "kd/loss" in log]
    for ours, theirs in zip(about["logs"], alone["logs"], strict=True):
        ours.pop("total_flos", None), theirs.pop("total_flos", None)  # counts padding, which the cut moves
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name, live", [("cached", "live"), ("tokens, cached", "tokens"), ("uneven, cached", "uneven")])
def test_cached_ends_where_live_does(folder, name, live):
    torch.testing.assert_close(left(folder, name, 0)[0], left(folder, live, 0)[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in RUNS if "cached" in name])
def test_each_process_builds_a_half(folder, name):
    """And the whole is what the teacher says of each example, in the order of the data."""
    data = RUNS[name][1]
    asked = [left(folder, name, rank)[1]["asked"] for rank in (0, 1)]
    # One more, by which the main process tells the number of classes.
    assert asked == [len(data) - len(data) // 2 + 1, len(data) // 2]
    teacher = teacher_for("tokens" if "tokens" in name else "bert").eval()
    batch = pad(list(data))
    with torch.no_grad():
        logits = teacher(**batch).logits.flatten(0, -2)
    expected = logits[batch["labels"].flatten() != -100]
    found = np.fromfile(os.path.join(folder, f"{name}-cache", "logits.bin"), np.float32).reshape(-1, CLASSES)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    done = np.fromfile(os.path.join(folder, f"{name}-cache", "done.bin"), np.uint8)
    assert done.tolist() == [1] * len(data)


def test_resumed_and_refused_on_both(folder):
    """Compared by each rank itself, in the script."""
    assert {"done-0", "done-1"} <= set(os.listdir(folder))
