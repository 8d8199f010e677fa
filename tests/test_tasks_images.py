"""What image tasks read: every source of images, what is refused, and the pixels that models are shown."""

import json
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from colours import COLOURS, RESNET, encoded, names, picture, save, worse, write_folder
from PIL import Image
from transformers import ViTConfig

from hf_sat.tasks import pixels
from hf_sat.tasks.image_data import digits, find_columns, label_candidates
from hf_sat.tasks.images import ImageOptions, read_image_options
from hf_sat.tasks.pictures import open_or_say_why, open_picture
from hf_sat.tasks.pixels import PixelCollator, preparation_for

pytest_plugins = ["image_fixtures"]

# ---- sources --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("ending", ["", "Fast", "Pil"])
def test_processors_are_found_where_upstreams_way_asks_for_torchvision(tmp_path, monkeypatch, ending):
    from transformers import ConvNextImageProcessorPil

    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8).save_pretrained(tmp_path)
    written = tmp_path / "preprocessor_config.json"
    told = json.loads(written.read_text())

    class Asking:
        @staticmethod
        def from_pretrained(name, **settings):
            raise ImportError("AutoImageProcessor requires the Torchvision library")

    monkeypatch.setattr(pixels, "AutoImageProcessor", Asking)
    written.write_text(json.dumps({**told, "image_processor_type": f"ConvNextImageProcessor{ending}"}))
    processor = pixels.image_processor(str(tmp_path), crop_pct=0.5)
    assert type(processor) is ConvNextImageProcessorPil and processor.crop_pct == 0.5
    assert processor.size["shortest_edge"] == 32

    written.write_text(json.dumps({**told, "image_processor_type": "OfNobody"}))
    with pytest.raises(ImportError, match="Torchvision"):
        pixels.image_processor(str(tmp_path))


def test_size_and_channels_come_from_the_configuration():
    grey = ViTConfig(image_size=12, patch_size=4, num_channels=1)
    assert preparation_for(None, grey, None).shape == (1, 12, 12)
    assert preparation_for(None, RESNET, 10).shape == (3, 10, 10)


# ---- options --------------------------------------------------------------------------------------------------------


def test_defaults_add_noise_to_the_offline_digits_alone():
    offline, _ = read_image_options([])
    own, args = read_image_options(["--dataset_name", "photos"])
    assert offline.noise_rate > 0 and offline.compare
    assert own.noise_rate == 0 and not own.compare and args.dataloader_num_workers == 0


def test_options_say_what_they_are():
    assert all(field.metadata["help"] for field in ImageOptions.__dataclass_fields__.values())
