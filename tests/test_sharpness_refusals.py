"""What SAM refuses before the first step, with the way out, and what it warns of."""

import re
from types import SimpleNamespace

import pytest
import torch
from hand_loop import Net
from sharpness_runs import NONE
from small import bert, make_trainer, text_data
from test_refusals import refused

from hf_sat import SATConfig, recipe

WRONG = [("sam", value) for value in ("SAM", "adam", None, True, "")]
WRONG += [("sam_rho", value) for value in (-1e-9, -1, float("nan"), float("inf"), "big", True)]
WRONG += [("sam_interval", value) for value in (0, -1, 1.5, 1.0, None, True, "2")]
WRONG += [("sam_start", value) for value in (-0.01, 1.01, float("nan"), None, True, "late")]
WRONG += [("sam_scope", value) for value in ("window", None, "micro-batch")]
WRONG += [("sam_sync", value) for value in ("none", None, "Global")]


@pytest.mark.parametrize("setting, value", WRONG)
def test_wrong_settings(runs, setting, value):
    """In the config, and when the attribute is set later, also where SAM is off."""
    with pytest.raises(ValueError, match=f"^{setting}={re.escape(repr(value))}: "):
        SATConfig(output_dir=runs, **{setting: value})
    for sam in ("sam", "none"):
        trainer = make_trainer(runs, Net(), data=text_data(16), **NONE, sam=sam)
        setattr(trainer.args, setting, value)
        refused(trainer, f"^{setting}={re.escape(repr(value))}: ")


def fsdp(version):
    def set_flags(trainer):
        trainer.is_fsdp_enabled = True
        trainer.accelerator.state.fsdp_plugin = SimpleNamespace(fsdp_version=version)

    return set_flags


WAYS = {
    "DeepSpeed": ({}, lambda t: setattr(t, "is_deepspeed_enabled", True), ["sam='sam'", "deepspeed"]),
    "FSDP": ({}, lambda t: setattr(t, "is_fsdp_enabled", True), ["sam='sam'", "FSDP", "version 2"]),
    "FSDP 1": ({}, fsdp(1), ["sam='sam'", "FSDP", "version 2"]),
    "local under FSDP 2": ({"sam_sync": "local"}, fsdp(2), ["sam_sync='local'", "FSDP", "sam_sync='global'"]),
    "XLA": ({}, lambda t: setattr(t, "is_fsdp_xla_enabled", True), ["sam='sam'", "xla"]),
    **{
        optim: ({"sam": "asam"}, lambda t, optim=optim: setattr(t.args, "optim", optim), [optim, 'sam="none"'])
        for optim in ("lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise")
    },
}


@pytest.mark.parametrize("correction", ["sat", "none"])
@pytest.mark.parametrize("name", WAYS)
def test_ways_to_run(runs, monkeypatch, name, correction):
    settings, set_flags, parts = WAYS[name]
    trainer = make_trainer(runs, Net(), **{"sam": "sam", **settings}, label_correction=correction)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", None, raising=False)
    set_flags(trainer)
    refused(trainer, *parts)


LOW = {
    "weights": ({"sam_rho": 0.1}, torch.bfloat16, True),
    "default": ({}, torch.bfloat16, True),
    "half": ({}, torch.float16, True),
    "large": ({"sam_rho": 2.0}, torch.bfloat16, False),
    "adaptive": ({"sam": "asam"}, torch.bfloat16, False),
    "autocast": ({"bf16": True}, torch.float32, False),
    "none": ({"sam": "none"}, torch.bfloat16, False),
}


@pytest.mark.parametrize("name", LOW)
def test_coarse_weights_are_warned_of(runs, monkeypatch, name):
    settings, dtype, warns = LOW[name]
    told = []
    monkeypatch.setattr(recipe.logger, "warning", told.append)
    settings = {"sam": "sam", **settings, "learning_rate": 0.0, "max_steps": 1}
    make_trainer(runs, bert(0.0).to(dtype), **NONE, **settings).train()
    assert bool(told) == warns
    assert all("sam_rho=0.1" in message and str(dtype) in message for message in told)
