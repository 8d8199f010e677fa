"""Adapters on a task's model: what is trained, what is refused, and that the merged model is the same one."""

import importlib.util
import os

import datasets
import numpy as np
import pytest
import torch
from animals import ANIMALS, rows, save_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig, ViTConfig
from transformers import DistilBertForSequenceClassification as DistilBert
from transformers import ViTForImageClassification as ViT

from hf_sat.tasks import lora, train
from hf_sat.tasks.lora import LoraOptions, head_modules, lora_config, target_modules, with_adapters
from hf_sat.tasks.run import Task

peft = pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """One thread, and a cache of its own."""
    monkeypatch.setattr(train, "use_all_cores", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(str(tmp_path_factory.mktemp("encoder")), layers=2)


def bert(encoder):
    return lambda: AutoModelForSequenceClassification.from_pretrained(encoder)


def distilbert():
    return DistilBert(DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=16))


def vit():
    return ViT(
        ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
        )
    )


def task_of(make_model):
    return Task(train=None, validation=None, make_model=make_model)


# ---- what is adapted and trained ------------------------------------------------------------------------------------


def trained_of(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("make_model", "heads"), [(distilbert, ["pre_classifier", "classifier"]), (vit, ["classifier"])]
)
def test_heads_are_trained_whole_and_the_body_by_adapters(make_model, heads):
    """Also the part of DistilBERT's head that peft itself would leave as it was drawn."""
    assert head_modules(make_model()) == heads
    model = with_adapters(task_of(make_model), LoraOptions(lora=True), says=False).make_model()
    trained = trained_of(model)
    in_heads = {name for name in trained if any(f".{head}.modules_to_save." in name for head in heads)}
    assert len(in_heads) == 2 * len(heads)
    assert trained - in_heads and all("lora_A" in name or "lora_B" in name for name in trained - in_heads)
    assert not [name for name in trained - in_heads if any(f".{head}." in name for head in heads)]


def test_targets_are_the_linear_layers_unless_named(encoder):
    model = bert(encoder)()
    assert target_modules(model, ["classifier"], None) == ["dense", "key", "query", "value"]
    config = lora_config(model, LoraOptions(lora=True, lora_target_modules=["query"], lora_r=2, lora_alpha=6.0))
    adapted = peft.get_peft_model(model, config)
    assert {name.rsplit(".", 3)[0].rsplit(".", 1)[-1] for name in trained_of(adapted) if "lora_" in name} == {"query"}
    assert adapted.base_model.model.bert.encoder.layer[0].attention.self.query.scaling["default"] == 3.0


@pytest.mark.parametrize(
    ("settings", "attribute"),
    [({"lora_dora": True}, "use_dora"), ({"lora_rslora": True}, "use_rslora")],
)
def test_flags_reach_peft(encoder, settings, attribute):
    options = LoraOptions(lora=True, lora_dropout=0.2, lora_modules_to_save=["pooler"], **settings)
    config = lora_config(bert(encoder)(), options)
    assert getattr(config, attribute) and config.lora_dropout == 0.2 and config.task_type == "SEQ_CLS"
    assert {"classifier", "pooler"} <= set(config.modules_to_save)
    assert any("pooler" in name for name in trained_of(peft.get_peft_model(bert(encoder)(), config)))


def test_the_share_is_printed_and_the_model_is_the_same_at_each_call(encoder, capsys):
    def make_model():
        torch.manual_seed(1)
        return bert(encoder)()

    task = with_adapters(task_of(make_model), LoraOptions(lora=True))
    first, again = task.make_model(), task.make_model()
    printed = capsys.readouterr().out
    trained = sum(weight.numel() for weight in first.parameters() if weight.requires_grad)
    assert printed.startswith(f"LoRA: {trained:,} of ") and "%" in printed
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_r": 4}, "lora_r=4: there are no adapters; add lora=True"),
        ({"lora_merge": False}, "lora_merge=False: there are no adapters"),
        ({"lora": True, "lora_r": 0}, "lora_r=0: give a whole number >= 1"),
        ({"lora": True, "lora_alpha": 0.0}, "lora_alpha=0.0"),
        ({"lora": True, "lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora": True, "lora_bits": "3"}, "lora_bits='3'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraOptions(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_target_modules": ["qeury"]}, "lora_target_modules='qeury'.*did you mean one of \\['query'"),
        ({"lora_target_modules": ["xyz"]}, "lora_target_modules='xyz'.*there are .*'key'"),
        ({"lora_target_modules": ["classifier"]}, "lora_target_modules='classifier'.*outside the head"),
        ({"lora_modules_to_save": ["poler"]}, "lora_modules_to_save='poler'.*pooler"),
    ],
)
def test_modules_that_are_not_there_are_refused(encoder, settings, message):
    with pytest.raises(ValueError, match=message):
        with_adapters(task_of(bert(encoder)), LoraOptions(lora=True, **settings))


def test_models_without_linear_layers_or_a_known_head_are_refused():
    convolution = torch.nn.Sequential()
    convolution.add_module("body", torch.nn.Conv2d(1, 1, 1))
    convolution.add_module("fc", torch.nn.Linear(1, 2))
    with pytest.raises(ValueError, match=r"no linear layers; name some of \['body'\]"):
        target_modules(convolution, head_modules(convolution), None)
    with pytest.raises(ValueError, match="none of them is known as its head"):
        head_modules(torch.nn.Sequential(torch.nn.Linear(1, 1)))


@pytest.mark.parametrize(("package", "settings"), [("peft", {}), ("bitsandbytes", {"lora_bits": "4"})])
def test_missing_packages_are_named(encoder, monkeypatch, package, settings):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(ModuleNotFoundError, match=f"{package} is missing: pip install {package}"):
        with_adapters(task_of(bert(encoder)), LoraOptions(lora=True, **settings))


def test_bits_need_a_checkpoint(monkeypatch):
    monkeypatch.setattr(lora, "require", lambda *args, **kwargs: "")
    with pytest.raises(ValueError, match=r"lora_bits='8'.*not loaded from a checkpoint"):
        with_adapters(task_of(distilbert), LoraOptions(lora=True, lora_bits="8"))


@pytest.mark.parametrize("bits", ["4", "8"])
def test_bits_are_those_of_the_body_alone(encoder, bits, capsys):
    pytest.importorskip("bitsandbytes")

    def make_model(**load):
        return AutoModelForSequenceClassification.from_pretrained(encoder, **load)

    model = with_adapters(task_of(make_model), LoraOptions(lora=True, lora_bits=bits)).make_model()
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["base_model.model.bert.encoder.layer.0.attention.self.query.base_layer"] == {
        "4": "Linear4bit",
        "8": "Linear8bitLt",
    }.get(bits)
    assert kinds["base_model.model.classifier.modules_to_save.default"] == "Linear"
    assert all("lora_" in name or "classifier" in name for name in trained_of(model))
    weights = sum(
        weight.numel()
        for weight in with_adapters(task_of(make_model), LoraOptions(lora=True)).make_model().parameters()
    )
    assert f" of {weights:,} weights" in capsys.readouterr().out


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(encoder, tmp_path):
    rows().to_csv(tmp_path / "train.csv", index=False)
    common = f"--lora true --model_name_or_path {encoder} --train_file {tmp_path}/train.csv --label_column animal "
    common += f"--validation_file {tmp_path}/train.csv --output_dir {tmp_path}/out --use_cpu --disable_tqdm true "
    common += "--learning_rate 1e-2 --num_train_epochs 4 --noise_rate 0.2 --seed 3 "
    return lambda flags="": train.train((common + flags).split())


def logits_of(model, folder):
    tokens = AutoTokenizer.from_pretrained(folder)(rows()["review"].tolist(), return_tensors="pt", padding=True)
    with torch.no_grad():
        return model.eval()(**{k: v for k, v in tokens.items() if k != "token_type_ids"}).logits


@pytest.mark.parametrize("more", ["", "--lora_dora true --sam sam"])
def test_adapter_and_merged_model_say_the_same(run, tmp_path, encoder, more):
    (result,) = run(f"--save_strategy no {more}")
    folder, merged = result.folders
    assert folder == f"{tmp_path}/out" and merged == os.path.join(folder, "merged")
    assert result.score > 0.5
    adapted = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(ANIMALS), ignore_mismatched_sizes=True
    )
    plain = AutoModelForSequenceClassification.from_pretrained(merged)
    assert type(plain).__name__ == "BertForSequenceClassification" and plain.config.id2label == dict(enumerate(ANIMALS))
    wanted = logits_of(adapted, folder)
    assert torch.allclose(logits_of(plain, merged), wanted, atol=1e-5)
    # It has learned more than its head: without the adapters the answers differ.
    with adapted.disable_adapter():
        assert not torch.allclose(logits_of(adapted, folder), wanted, atol=1e-2)


def test_adapter_and_soft_targets_resume_to_the_bit(run, tmp_path):
    from safetensors.torch import load_file

    def left():
        weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
        return {**weights, **load_file(tmp_path / "out" / "checkpoint-32" / "sat_state.safetensors")}

    run("--save_strategy steps --save_steps 12 --lora_merge false")
    whole = left()
    for step in (24, 32):
        os.rename(tmp_path / "out" / f"checkpoint-{step}", tmp_path / f"gone-{step}")
    (tmp_path / "out" / "checkpoint-20").mkdir()  # what is there of a checkpoint when a run is killed in it
    (result,) = run("--save_strategy steps --save_steps 12 --lora_merge false --resume_from_checkpoint true")
    assert result.resumed and not os.path.exists(tmp_path / "out" / "merged")
    assert any("lora_A" in name for name in whole) and any("classifier" in name for name in whole)
    assert "soft_targets" in whole and len(np.unique(whole["soft_targets"])) > 2
    assert all(torch.equal(tensor, whole[name]) for name, tensor in left().items())
