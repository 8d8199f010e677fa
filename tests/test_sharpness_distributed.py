"""SAM on two processes against the loop by hand, which knows of ranks only what shares a perturbation.

Protects: the same weights, targets and logs on both ranks in every mode; one perturbation for all processes, equal to
that of one process on the same global batches, or one for each; at rho 0 the run without SAM to the bit, with the
buffers that `DistributedDataParallel` broadcasts; resume to the bit. This file is also the script that is launched.
"""

import json
import os
import sys

import launched
import pytest
import torch
from hand_loop import DEFAULTS, IN_ORDER, Net, by_hand
from safetensors.torch import load_file, save_file
from sharpness_runs import (
    ADAM,
    ASAM,
    BY_MICRO_BATCH,
    CORRECTING,
    NONE,
    SAM,
    SHORT_WINDOW,
    TWO,
    ConvNet,
    Overflowing,
    images,
    losses_of,
    scaled,
)
from small import Steps, assert_same_tensors, bert, make_trainer, text_data, weights

from hf_sat import SATTrainer

LOCAL = {"sam_sync": "local"}
COMMON = {**DEFAULTS, "per_device_train_batch_size": 4}
EACH_BATCH = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}

# Runs in float64 and in order that the loop by hand can follow: of 48 rows, six micro-batches for each rank.
FAST = {
    "global": {**SAM, **TWO, "sat_reweight": False},
    "local, micro-batch": {**SAM, **TWO, **LOCAL, **BY_MICRO_BATCH},
}
SLOW = {
    "alone in its window": {**SAM},
    "global, micro-batch": {**SAM, **TWO, **BY_MICRO_BATCH, "sat_reweight": False},
    "global, short window": {**SAM, **SHORT_WINDOW, "sat_reweight": False},
    "global, micro-batch, short window": {**SAM, **SHORT_WINDOW, **BY_MICRO_BATCH},
    "global, asam": {**ASAM, **TWO, **ADAM, "sat_reweight": False},
    "global, no correction": {**SAM, **TWO, **NONE},
    "every other": {**SAM, **TWO, "sam_interval": 2},
    "late, local": {**ASAM, **TWO, **LOCAL, "sam_start": 0.5},
    "local": {**SAM, **LOCAL},
    "local, accumulating": {**SAM, **TWO, **LOCAL},
    "local, short window": {**ASAM, **SHORT_WINDOW, **LOCAL, **ADAM},
    "local, no correction": {**SAM, **TWO, **LOCAL, **BY_MICRO_BATCH, **NONE},
    "off": {"sam": "none", **TWO},
    "per process": {**SAM, **TWO, "average_tokens_across_devices": False},
    "buckets as views": {**SAM, **TWO, **BY_MICRO_BATCH, "views": True},
    "static graph": {**SAM, "ddp_static_graph": True},  # upstream's fails under accumulation, SAM or not
    "nothing unused": {**ASAM, **SHORT_WINDOW, **BY_MICRO_BATCH, "ddp_find_unused_parameters": False},
    "synchronised each time": {**SAM, **TWO, **BY_MICRO_BATCH, "accelerator_config": EACH_BATCH},
    "compiled, global": {**SAM, **TWO, **COMPILED},
    "compiled, global, micro-batch": {**SAM, **TWO, **COMPILED, **BY_MICRO_BATCH},
    "compiled, local": {**SAM, **TWO, **COMPILED, **LOCAL},
}
SHARDED = {
    "sharded": {**SAM, **SHORT_WINDOW},
    "sharded, micro-batch": {**SAM, **TWO, **BY_MICRO_BATCH},
    "sharded, asam": {**ASAM, **TWO, **BY_MICRO_BATCH, **ADAM},
}
FOLLOWED = {**FAST, **SLOW, **SHARDED}
# With dropout, in random order, in float32.
MODES = {
    f"{scope}, {sync}": {"sam_scope": scope, "sam_sync": sync}
    for scope in ("step", "micro_batch")
    for sync in ("global", "local")
}
NO_RADIUS = {f"no radius, {name}": {"sam": "sam", "sam_rho": 0.0, **mode} for name, mode in MODES.items()}
UNEVEN = {f"uneven, {name}": {**SAM, **mode} for name, mode in MODES.items()}
RESUMED = {f"resumed, {name}": {**(ASAM if "local" in name else SAM), **mode} for name, mode in MODES.items()}
OVERFLOWING = {f"overflowing, {name}": {"sam": "sam", **mode} for name, mode in MODES.items()}
STOP_AT = 4


def followed(folder: str, settings: dict, batch_size: int = 4):
    settings = {**COMMON, "per_device_train_batch_size": batch_size, **settings}
    views = settings.pop("views", False)
    trainer = make_trainer(folder, Net().double(), text_data(48), **settings, **IN_ORDER)
    if views:
        from accelerate import DistributedDataParallelKwargs

        trainer.accelerator.ddp_handler = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    trainer.train()
    return trainer


class DeferringReduction(SATTrainer):
    """What accelerate's `no_sync` is to FSDP2, which it knows on GPUs alone."""

    def training_step(self, model, *args, **kwargs):
        model.set_requires_gradient_sync(self.accelerator.sync_gradients)
        try:
            return super().training_step(model, *args, **kwargs)
        finally:
            model.set_requires_gradient_sync(True)


def sharded(folder: str, settings: dict):
    from torch.distributed.fsdp import fully_shard

    net = Net().double()
    trainer = make_trainer(folder, net, text_data(48), DeferringReduction, **{**COMMON, **settings}, **IN_ORDER)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    fully_shard(net.hidden, mesh=mesh)
    trainer.model = trainer.model_wrapped = fully_shard(net, mesh=mesh)
    trainer.accelerator.prepare_model = lambda model, **kwargs: model
    trainer.train()
    return trainer


def conv(folder: str, settings: dict):
    """Every rank has another dropout, and its own BatchNorm statistics until they are broadcast."""
    common = {**CORRECTING, **TWO, "ddp_broadcast_buffers": True, "learning_rate": 0.01, "logging_steps": 1}
    trainer = make_trainer(folder, ConvNet(), images(48), collator=None, **common, **settings)
    trainer.train()
    return trainer


def uneven(folder: str, settings: dict, resume: bool = False, stop_at: int | None = None, n: int = 45):
    common = {"sat_momentum": "auto", "sat_start_epoch": "auto", **TWO, "save_strategy": "steps", "save_steps": 1}
    common |= {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}
    trainer = make_trainer(folder, bert(), text_data(n), callbacks=[Steps(stop_at)], **common, **settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def resumed(folder: str, settings: dict, part: str = "whole"):
    if part == "whole":
        return uneven(folder, settings)
    uneven(folder, settings, stop_at=STOP_AT)
    return uneven(folder, settings, resume=True)


def overflowing(folder: str, settings: dict):
    """On one rank alone, a first pass is infinite; the scaler has both skip the step."""
    common = {**CORRECTING, "optim": "adamw_torch", "num_train_epochs": 1, "per_device_train_batch_size": 4}
    model = Overflowing([])
    trainer = make_trainer(folder, model, text_data(48), logging_steps=1, **common, **settings)
    if trainer.args.process_index == 1:
        model.passes = [2, 3]  # both of step 1
    scaled(trainer, 2.0**4).train()
    assert trainer.accelerator.scaler.get_scale() == 2.0**3
    return trainer


WAYS = [
    ({**FAST, **SLOW}, followed),
    (SHARDED, sharded),
    (NO_RADIUS, conv),
    (UNEVEN, uneven),
    (RESUMED, resumed),
    (OVERFLOWING, overflowing),
]
WAYS.append(({"no radius": {}}, conv))


def leave(trainer, out: str) -> None:
    """What the tests compare: of each rank its own weights, state and logs."""
    state = {} if trainer._correction is None else trainer._correction.state.tensors()
    tensors = {f"state.{key}": value.contiguous() for key, value in state.items()}
    rank = trainer.args.process_index
    for key, value in weights(trainer).items():
        tensors[f"weights.{key}"] = value.full_tensor() if hasattr(value, "full_tensor") else value
    save_file(tensors, f"{out}-{rank}.safetensors")
    with open(f"{out}-{rank}.json", "w") as file:
        json.dump({"world": trainer.args.world_size, "logs": losses_of(trainer.state.log_history)}, file)


def main(folder: str, group: str) -> None:
    torch.set_num_threads(1)
    for rows, run in WAYS:
        for name, settings in rows.items():
            if (name in FAST) == (group == "fast"):
                out = os.path.join(folder, name)
                leave(run(out, settings), out)
                if run is resumed:
                    leave(run(f"{out}-parts", settings, "parts"), f"{out}-parts")


if __name__ == "__main__":
    main(*sys.argv[1:3])
    launched.leave()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """(name of a run, rank) -> what it left; one launch serves the fast runs, another the slow ones."""
    folders = {}

    def get(name, rank=0):
        group = "fast" if name in FAST else "slow"
        if group not in folders:
            folders[group] = str(tmp_path_factory.mktemp(group))
            launched.assert_succeeded(launched.launch(__file__, folders[group], group))
        out = os.path.join(folders[group], name)
        with open(f"{out}-{rank}.json") as file:
            about = json.load(file)
        assert about["world"] == 2
        return load_file(f"{out}-{rank}.safetensors"), about["logs"]

    return get


def runs(*tables):
    names = [name for table in tables for name in table]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]
    )


def part(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@runs(FOLLOWED, UNEVEN, RESUMED, OVERFLOWING)
def test_both_ranks_hold_the_same(left, name):
    (one, logs), (other, same) = left(name, 0), left(name, 1)
    assert_same_tensors(one, other)
    assert logs == same
    if name not in ("off",):
        assert any("sam/sharpness" in log for log in logs)


@runs(FOLLOWED)
def test_a_run_is_the_loop_by_hand(left, name):
    """Weights, soft targets, and in the logs the clean loss, sharpness, and the norms of both gradients."""
    tensors, logs = left(name)
    settings = {k: v for k, v in {**COMMON, **FOLLOWED[name]}.items() if k in DEFAULTS}
    hand = by_hand(Net(), text_data(48), ranks=2, **settings)
    torch.testing.assert_close(part(tensors, "weights."), hand.weights, atol=2e-6, rtol=0.0)
    if settings["label_correction"] == "sat":
        torch.testing.assert_close(tensors["state.soft_targets"].double(), hand.targets, atol=2e-6, rtol=0.0)
        assert (tensors["state.n_visits"][:48] == 2).all()
    for mine, expected in zip(logs, hand.logs, strict=True):
        assert {key: mine.get(key) for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


@runs([name for name in FOLLOWED if name.startswith("global") and not FOLLOWED[name].get("sat_reweight", True)])
def test_one_perturbation_for_all_is_that_of_one_process(left, tmp_path, name):
    tensors, logs = left(name)
    alone = followed(str(tmp_path), FOLLOWED[name], batch_size=8)
    torch.testing.assert_close(part(tensors, "weights."), weights(alone), atol=1e-5, rtol=0.0)
    targets = alone._correction.state.tensors()["soft_targets"]
    torch.testing.assert_close(tensors["state.soft_targets"], targets, atol=1e-5, rtol=0.0)
    for mine, expected in zip(logs, losses_of(alone.state.log_history), strict=True):
        assert mine == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", NO_RADIUS)
def test_no_radius_is_the_run_without_to_the_bit(left, name, rank):
    """Each rank by itself, whose BatchNorm statistics differ."""
    (ours, logs), (plain, plain_logs) = left(name, rank), left("no radius", rank)
    assert_same_tensors(ours, plain)
    assert [{k: v for k, v in log.items() if not k.startswith("sam/")} for log in logs] == plain_logs
    assert {log["sam/sharpness"] for log in logs} == {0.0}
    other, _ = left("no radius", 1 - rank)
    assert not torch.equal(plain["weights.features.1.running_mean"], other["weights.features.1.running_mean"])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", RESUMED)
def test_resume(left, name, rank):
    (whole, logs), (parts, again) = left(name, rank), left(f"{name}-parts", rank)
    assert_same_tensors(whole, parts)
    assert logs == again and len(logs) > STOP_AT


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERFLOWING)
def test_an_overflow_on_one_rank_skips_the_step_on_both(left, name):
    tensors, _ = left(name)
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert tensors["state.n_visits"].sum() == 48 - 8
