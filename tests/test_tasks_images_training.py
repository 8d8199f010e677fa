"""Image tasks in training: equal results with and without cache, workers and a stop, and models of every kind."""

import json
import os

import pandas as pd
import pytest
import torch
from colours import RESNET, SIDE, save, worse
from safetensors.torch import load_file
from small import Steps, assert_same_tensors
from transformers import ConvNextConfig, MobileNetV2Config, SwinConfig, Trainer, ViTConfig

from hf_sat import SATTrainer
from hf_sat.tasks.compare import compare
from hf_sat.tasks.image_models import image_classifier, image_config
from hf_sat.tasks.images import image_task, read_image_options
from hf_sat.tasks.run import trainer_of

pytest_plugins = ["image_fixtures"]


def final_weights(task, args, stop_at=None, resume=None) -> dict:
    trainer = trainer_of(SATTrainer, task, args)
    trainer.add_callback(Steps(stop_at))
    trainer.train(resume_from_checkpoint=resume)
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def test_workers_and_cache_change_nothing(task_of, table):
    ends = []
    for cache in ("always", "never"):
        for workers in (0, 2):
            task, args = task_of(worse(table) + f"--cache_images {cache} --sat_start_epoch 1")
            args.dataloader_num_workers = workers
            ends.append(final_weights(task, args))
    for end in ends[1:]:
        assert_same_tensors(ends[0], end)


def test_pictures_that_are_not_kept_are_decoded_by_workers(task_of, table):
    assert task_of(worse(table) + "--cache_images never")[1].dataloader_num_workers > 0
    assert task_of(worse(table))[1].dataloader_num_workers == 0


@pytest.mark.parametrize("sam", ["none", "sam"])
def test_a_stopped_run_resumes_to_the_bit(task_of, table, tmp_path, sam):
    flags = worse(table) + f"--sat_start_epoch 1 --sam {sam} --max_train_samples 24"
    whole = final_weights(*task_of(flags))
    task, args = task_of(flags + " --save_strategy steps --save_steps 4")
    final_weights(task, args, stop_at=5)
    task, args = task_of(flags)
    resumed = final_weights(task, args, resume=os.path.join(args.output_dir, "checkpoint-4"))
    assert_same_tensors(whole, resumed)


def test_a_vit_resumes_with_its_weights(table, tmp_path):
    """transformers saves its layers under other names than they have in memory; both Trainers find them again."""
    for kind in (SATTrainer, Trainer):
        ends = []
        for resume in (None, f"{tmp_path}/{kind.__name__}/checkpoint-4"):
            flags = (
                f"{worse(table)} --output_dir {tmp_path}/{kind.__name__} --use_cpu --disable_tqdm true --max_steps 8 "
            )
            options, args = read_image_options((flags + "--save_steps 4 --learning_rate 1e-2").split())
            task = image_task(options, args)
            trainer = trainer_of(kind, task, args)
            trainer.train(resume_from_checkpoint=resume)
            ends.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        assert_same_tensors(*ends)


MODELS = {
    "convnext": ConvNextConfig(patch_size=2, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=3),
    "mobilenet": MobileNetV2Config(depth_multiplier=0.1, num_labels=3),
    "resnet": RESNET,
    "swin": SwinConfig(image_size=SIDE, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
    "vit": ViTConfig(
        image_size=SIDE, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_kind_with_one_picture_left_over(task_of, table, tmp_path, name):
    """25 pictures in batches of 8: MobileNetV2 at 16 pixels has batch norms over a single value."""
    folder = save(tmp_path / name, MODELS[name])
    flags = f"--model_name_or_path {folder} --max_train_samples 25 --num_train_epochs 1 --sam sam"
    task, args = task_of(worse(table) + flags)
    trainer = trainer_of(SATTrainer, task, args)
    trainer.train()
    assert (trainer.label_report().columns["n_visits"] == 1).all()
    assert all(module.training for module in trainer.model.modules())


def test_momentum_of_batch_norms_is_turned_round():
    model = image_classifier(None, MODELS["mobilenet"], seed=0)
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
    model = image_classifier(None, image_config(None, ["a", "b"], 8), seed=1)
    again = image_classifier(None, image_config(None, ["a", "b"], 8), seed=1)
    assert_same_tensors(model.state_dict(), again.state_dict())


def test_comparison_end_to_end(model, table, tmp_path, capsys):
    flags = f"--model_name_or_path {model} --image_size {SIDE} --output_dir {tmp_path}/out --use_cpu --compare "
    flags += "--disable_tqdm true --num_train_epochs 12 --learning_rate 1e-2 --max_train_samples 27 --save_strategy no"
    options, args = read_image_options((worse(table) + flags).split())
    plain, sat = compare(image_task(options, args), args)
    report = pd.read_parquet(tmp_path / "out" / "labels.parquet")
    given = pd.read_parquet(table / "train_0.parquet")["worse"]
    assert report["given_label"].tolist() == given[report["sample_id"]].tolist() and len(report) == 27
    assert 0 <= plain.score <= 1 and sat.recall is not None
    assert load_file(tmp_path / "out" / "model.safetensors")
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["size"]["height"] == SIDE
    assert "27 images (train_0.parquet)" in capsys.readouterr().out


def test_noise_that_depends_on_the_picture(task_of, table):
    task, _ = task_of(
        f"--train_file {table}/train_0.parquet --label_column clean --noise_rate 0.3 --noise_type instance"
    )
    assert sum(a != b for a, b in zip(task.train["labels"][:], task.train["clean_labels"][:])) == 9
