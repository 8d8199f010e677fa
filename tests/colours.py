"""Noisy squares of three colours and a tiny network that tells them apart, for the tests of image tasks."""

import io

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ResNetConfig

COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 40), "red": (210, 30, 20)}
SIDE = 16
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)


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


def save(folder, config) -> str:
    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return str(folder)


def worse(table) -> str:
    return (
        f"--train_file {table}/train_0.parquet --validation_file {table}/test.parquet --label_column worse "
        "--clean_label_column clean "
    )


def write_folder(root, n: int = 12) -> None:
    for i, name in enumerate(names(n)):
        (root / name).mkdir(parents=True, exist_ok=True)
        picture(i).save(root / name / f"{i:02}.png")
