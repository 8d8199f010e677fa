"""Models, data and runs of the tests of image tasks; a plugin of theirs."""

import datasets
import pandas as pd
import pytest
from colours import RESNET, SIDE, encoded, picture, save

from hf_sat.tasks.images import image_task, read_image_options


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny ResNet, batch norms and all, and no image processor."""
    return save(tmp_path_factory.mktemp("model"), RESNET)


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
def task_of(model, tmp_path, own_cache):
    def make(flags: str):
        common = f"--model_name_or_path {model} --image_size {SIDE} --output_dir {tmp_path}/out --use_cpu "
        common += "--disable_tqdm true --save_strategy no --learning_rate 3e-3 --num_train_epochs 2 "
        common += "--per_device_train_batch_size 8 "
        options, args = read_image_options((common + flags).split())
        return image_task(options, args), args

    return make
