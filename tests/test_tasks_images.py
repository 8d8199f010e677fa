"""Image classification as recipes and commands run it: every source of images, what is refused, and equal results."""

import io
import json
import os
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small import Steps, assert_same_tensors
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    MobileNetV2Config,
    ResNetConfig,
    SwinConfig,
    Trainer,
    ViTConfig,
)

from hf_sat import SATTrainer
from hf_sat.tasks.compare import compare
from hf_sat.tasks.image_data import digits, find_columns, label_candidates
from hf_sat.tasks.image_models import image_classifier, image_config
from hf_sat.tasks.images import ImageOptions, image_task, read_image_options
from hf_sat.tasks.pictures import open_or_say_why, open_picture
from hf_sat.tasks.pixels import PixelCollator, preparation_for
from hf_sat.tasks.run import trainer_of

COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 40), "red": (210, 30, 20)}
SIDE = 16


def picture(number: int, side: int = SIDE) -> Image.Image:
    """A noisy square of one of three colours."""
    rng = np.random.default_rng(number)
    colour = list(COLOURS.values())[number % 3]
    return Image.fromarray(np.clip(rng.normal(colour, 40, (side, side, 3)), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def names(n: int) -> list[str]:
    return [list(COLOURS)[i % 3] for i in range(n)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny ResNet, batch norms and all, and no image processor."""
    return save(tmp_path_factory.mktemp("model"), RESNET)


RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)


def save(folder, config) -> str:
    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def table(tmp_path):
    """Parquet with bytes of images and three columns of labels, as CIFAR-10N comes."""
    given = [(i + (i % 5 == 0)) % 3 for i in range(30)]
    rows = {"index": range(30), "image_webp": [encoded(picture(i), "webp") for i in range(30)], "worse": given}
    rows |= {"clean": [i % 3 for i in range(30)], "random": given[::-1], "file": [f"{i}.png" for i in range(30)]}
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "train_0.parquet")
    frame[["index", "image_webp", "clean", "file"]].to_parquet(tmp_path / "test.parquet")
    return tmp_path


@pytest.fixture
def task_of(model, tmp_path):
    def make(flags: str):
        common = f"--model_name_or_path {model} --image_size {SIDE} --output_dir {tmp_path}/out --use_cpu "
        common += "--disable_tqdm true --save_strategy no --learning_rate 3e-3 --num_train_epochs 2 "
        common += "--per_device_train_batch_size 8 "
        options, args = read_image_options((common + flags).split())
        return image_task(options, args), args

    return make


def worse(table) -> str:
    return (
        f"--train_file {table}/train_0.parquet --validation_file {table}/test.parquet --label_column worse "
        "--clean_label_column clean "
    )


# ---- sources --------------------------------------------------------------------------------------------------------


def write_folder(root, n: int = 12) -> None:
    for i, name in enumerate(names(n)):
        (root / name).mkdir(parents=True, exist_ok=True)
        picture(i).save(root / name / f"{i:02}.png")


def pixels_of(task, split: str = "train") -> torch.Tensor:
    rows = getattr(task, split)
    return task.collator([rows[i] for i in range(len(rows))])["pixel_values"]


@pytest.mark.parametrize("held_out", [None, "validation", "test"])
def test_class_folders_with_and_without_splits(task_of, tmp_path, held_out):
    write_folder(tmp_path / "photos" / ("train" if held_out else ""))
    if held_out:
        write_folder(tmp_path / "photos" / held_out, 6)
    task, _ = task_of(f"--dataset_name {tmp_path}/photos")
    assert task.train.features["labels"].names == list(COLOURS)
    assert len(task.train) == 12 and (task.validation is None) == (held_out is None)
    means = pixels_of(task).mean(dim=(2, 3)).argmax(dim=1)
    assert means.tolist() == [{"red": 0, "green": 1, "blue": 2}[list(COLOURS)[y]] for y in task.train["labels"]]


def test_every_kind_of_column_holds_the_same_pictures(task_of, tmp_path):
    write_folder(tmp_path)
    paths = [f"{name}/{i:02}.png" for i, name in enumerate(names(12))]
    raw = [(tmp_path / path).read_bytes() for path in paths]
    rows = {"label": names(12), "image": None}
    kinds = {
        "paths": paths,
        "bytes": raw,
        "structs": [{"bytes": value, "path": path} for value, path in zip(raw, paths)],
    }
    found = []
    for kind, values in kinds.items():
        pd.DataFrame(rows | {"image": values}).to_parquet(tmp_path / f"{kind}.parquet")
        found.append(pixels_of(task_of(f"--train_file {tmp_path}/{kind}.parquet")[0]))
    feature = datasets.Features({"label": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_dict(rows | {"image": raw}, feature).to_parquet(tmp_path / "feature.parquet")
    pd.DataFrame(rows | {"image": paths}).to_csv(tmp_path / "paths.csv", index=False)
    pd.DataFrame(rows | {"image": paths}).to_json(tmp_path / "paths.jsonl", orient="records", lines=True)
    for file in ("feature.parquet", "paths.csv", "paths.jsonl"):
        found.append(pixels_of(task_of(f"--train_file {tmp_path}/{file}")[0]))
    assert all(torch.equal(pixels, found[0]) for pixels in found)


def test_cifar_10n_as_it_comes(task_of, table):
    task, _ = task_of(worse(table).replace("train_0", "train_*"))
    frame = pd.read_parquet(table / "train_0.parquet")
    assert (
        task.train["labels"][:] == frame["worse"].tolist() and task.train["clean_labels"][:] == frame["clean"].tolist()
    )
    assert task.validation["labels"][:] == frame["clean"].tolist()


def test_held_out_pictures_have_the_given_labels_where_there_are_no_clean_ones(task_of, table):
    file = f"{table}/train_0.parquet"
    task, _ = task_of(f"--train_file {file} --validation_file {file} --label_column random")
    assert task.validation["labels"][:] == pd.read_parquet(file)["random"].tolist()
    assert "clean_labels" not in task.train.column_names


def test_offline_images():
    train, held_out = digits()
    assert (len(train), len(held_out)) == (1300, 497)
    assert np.asarray(train[0]["image"]).shape == (8, 8) and train[0]["image"].mode == "L"
    assert digits()[0][:5]["label"] == train[:5]["label"]


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_columns_are_found_or_asked_for(table):
    data = datasets.load_dataset("parquet", data_files=f"{table}/train_0.parquet", split="train")
    assert find_columns(data, None, "worse") == ("image_webp", "worse")
    assert label_candidates(data, "image_webp") == ["worse", "clean", "random"]
    for wanted, message in {
        (None, None): r"label_column=None.*\['worse', 'clean', 'random'\]",
        (None, "wurse"): "label_column='wurse'.*Did you mean 'worse'",
        ("image_web", "worse"): "image_column='image_web'.*Did you mean 'image_webp'",
        ("index", "worse"): r"image_column='index'.*one of \['image_webp', 'file'\]",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_columns(data, *wanted)


@pytest.mark.parametrize("cache", ["always", "never"])
def test_unreadable_pictures_are_named_before_training(task_of, tmp_path, cache):
    write_folder(tmp_path / "photos")
    whole = (tmp_path / "photos/blue/00.png").read_bytes()
    (tmp_path / "photos/blue/03.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/red/05.png").write_bytes(b"no image")
    flags = f"--dataset_name {tmp_path}/photos --cache_images {cache}"
    with pytest.raises(ValueError, match=r"image_column='image'.*2 images.*row 1 \(.*03.png\).*OSError.*05.png.*drop"):
        task_of(flags)
    picture(3).save(tmp_path / "photos/blue/03.png")
    picture(5).save(tmp_path / "photos/red/05.png")
    assert len(task_of(flags)[0].train) == 12


def test_missing_pictures_and_labels_are_named(task_of, tmp_path):
    write_folder(tmp_path)
    rows = pd.DataFrame({"image": [f"{name}/{i:02}.png" for i, name in enumerate(names(12))], "label": names(12)})
    for place, column, value, message in [
        (4, "image", "blue/nowhere.png", "row 4 .*nowhere.png.*there is no file"),
        (5, "image", None, "row 5: no image"),
        (6, "label", None, "row 6 has no label"),
    ]:
        changed = rows.copy()
        changed.loc[place, column] = value
        changed.to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(ValueError, match=message):
            task_of(f"--train_file {tmp_path}/train.csv")


def test_a_sample_names_rows_of_the_whole(task_of, table):
    frame = pd.read_parquet(table / "train_0.parquet")
    frame["image_webp"] = [b"no image"] * 30
    frame.to_parquet(table / "train_0.parquet")
    rows = np.sort(np.random.default_rng(3).choice(30, size=12, replace=False))
    with pytest.raises(ValueError, match="; ".join(f"row {row}: no image [^;]*" for row in rows[:5]) + "; and 7 more"):
        task_of(worse(table) + "--max_train_samples 12 --seed 3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset_name nowhere", "dataset_name='nowhere'"),
        ("--train_file nowhere.parquet", "train_file='nowhere.parquet'.*no such file"),
        ("--model_name_or_path nowhere", "model_name_or_path='nowhere'"),
        ("--noise_rate 0.2 --clean_label_column clean", "noise_rate=0.2.*clean_label_column"),
        ("--clean_label_column claen", "clean_label_column='claen'.*Did you mean 'clean'"),
        ("--image_sise 8", "did you mean 'image_size'"),
        ("--cache_images sometimes", "cache_images"),
    ],
)
def test_wrong_settings_are_refused(task_of, table, flags, message):
    source = "" if "dataset_name" in flags or "train_file" in flags else f"--train_file {table}/train_0.parquet "
    with pytest.raises(ValueError, match=message):
        task_of(source + "--label_column worse " + flags)


def test_models_that_classify_no_such_pictures_are_refused(task_of, table, tmp_path):
    vit = ViTConfig(image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ValueError, match=r"image_size=16.*give 8"):
        task_of(worse(table) + f"--model_name_or_path {save(tmp_path / 'vit', vit)}")
    with open(tmp_path / "config.json", "w") as file:
        json.dump({"model_type": "bert"}, file)
    with pytest.raises(ValueError, match=r"model_name_or_path=.*bert classifies no images"):
        task_of(worse(table) + f"--model_name_or_path {tmp_path}")


# ---- pixels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "I"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    grey = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = image.convert(mode)
    path = str(tmp_path / "picture.tif")
    image.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = np.asarray(open_picture({"bytes": None, "path": path})).astype(int)
    assert opened.shape == (16, 16, 3)
    assert set(np.unique(opened)) == {0, 255} if mode == "1" else np.abs(opened[..., 0] - grey).max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_cut_files_are_told(kind):
    whole = encoded(picture(0, 64), kind)
    assert open_or_say_why({"bytes": whole, "path": None}, draft=True)[1] is None
    for length in (0, 3, 20, len(whole) // 2):
        assert open_or_say_why({"bytes": whole[:length], "path": None}, draft=True)[1] is not None


def test_pixels_are_those_of_the_processor(tmp_path):
    from transformers import ConvNextImageProcessorPil, MobileNetV2ImageProcessorPil, ViTImageProcessorPil

    for processor in (
        ViTImageProcessorPil(size={"height": 24, "width": 24}, image_mean=[0.1, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]),
        MobileNetV2ImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8),
    ):
        folder = tmp_path / type(processor).__name__
        processor.save_pretrained(folder)
        preparation = preparation_for(str(folder), RESNET, None)
        image = picture(1, 50).resize((50, 70))
        batch = PixelCollator(preparation)([{"pixel_values": {"bytes": encoded(image), "path": None}, "labels": 2}])
        expected = processor(images=[image], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(batch["pixel_values"], expected, atol=1e-5, rtol=0)
        assert batch["labels"].tolist() == [2] and preparation.dtype == "uint8"
        assert preparation_for(str(folder), RESNET, 20).shape == (3, 20, 20)


def test_size_and_channels_come_from_the_configuration():
    grey = ViTConfig(image_size=12, patch_size=4, num_channels=1)
    assert preparation_for(None, grey, None).shape == (1, 12, 12)
    assert preparation_for(None, RESNET, 10).shape == (3, 10, 10)


# ---- training -------------------------------------------------------------------------------------------------------


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
    task, args = task_of(worse(table) + f"--model_name_or_path {folder} --max_train_samples 25 --num_train_epochs 1")
    final_weights(task, args)
    assert args.dataloader_drop_last == (name in ("mobilenet", "resnet"))


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


def test_defaults_add_noise_to_the_offline_digits_alone():
    offline, _ = read_image_options([])
    own, args = read_image_options(["--dataset_name", "photos"])
    assert offline.noise_rate > 0 and offline.compare
    assert own.noise_rate == 0 and not own.compare and args.dataloader_num_workers == 0


def test_noise_that_depends_on_the_picture(task_of, table):
    task, _ = task_of(
        f"--train_file {table}/train_0.parquet --label_column clean --noise_rate 0.3 --noise_type instance"
    )
    assert sum(a != b for a, b in zip(task.train["labels"][:], task.train["clean_labels"][:])) == 9


def test_options_say_what_they_are():
    assert all(field.metadata["help"] for field in ImageOptions.__dataclass_fields__.values())
