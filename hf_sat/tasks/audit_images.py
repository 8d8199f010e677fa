"""Images of an audit: opened, checked, and turned into what a model takes."""

import os
import sys
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import ResNetConfig

from .audit_options import AuditOptions
from .image_models import image_classifier, image_config, named_classes
from .machine import require
from .pictures import open_or_say_why, open_picture
from .pixels import image_processor
from .run import Task

SIZE = 64  # pixels, of the model that is made here


def unreadable_pictures(pictures: list[dict | None]) -> dict[int, str]:
    """Position of each that cannot be opened, and why."""
    require("PIL", extra="images")
    from tqdm import tqdm

    quiet = len(pictures) < 500 or not sys.stderr.isatty()
    shown = tqdm(pictures, desc="images", file=sys.stderr, disable=quiet)
    reasons = {place: open_or_say_why(picture, draft=True)[1] for place, picture in enumerate(shown)}
    return {place: reason for place, reason in reasons.items() if reason is not None}


class Pictures(torch.utils.data.Dataset):
    """Images and labels, opened when they are needed."""

    def __init__(self, pictures: list[dict], labels: np.ndarray, transform: Any):
        self.pictures = pictures
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"pixel_values": self.transform(self.pictures[place]), "labels": int(self.labels[place])}


def image_task(pictures: list[dict], labels: np.ndarray, names: list[str], options: AuditOptions) -> Task:
    """Images, under the model named, or a small one that is trained from scratch.

    Raises:
        ValueError: for a model that cannot be read.
    """
    if options.model is None:
        train = Pictures(pictures, labels, _Small())
        return Task(train, None, partial(_new_model, names, options.seed), title="small ResNet, trained from scratch")
    try:
        processor = image_processor(options.model)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--model {options.model!r}: it holds no image processor ({error}).") from None
    train = Pictures(pictures, labels, partial(_processed, processor))
    make_model = partial(image_classifier, options.model, image_config(options.model, names), options.seed)
    return Task(train, None, make_model, title=os.path.basename(options.model.rstrip("/")))


class _Small:
    """A picture at 64 pixels, normalised; each is decoded once and kept, 12 kB apiece."""

    def __init__(self):
        self.kept: dict[int, np.ndarray] = {}

    def __call__(self, picture: dict) -> torch.Tensor:
        pixels = self.kept.get(id(picture))
        if pixels is None:
            pixels = self.kept[id(picture)] = np.asarray(open_picture(picture).resize((SIZE, SIZE)))
        return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1))


def _processed(processor: Any, picture: dict) -> torch.Tensor:
    return processor(open_picture(picture), return_tensors="pt")["pixel_values"][0]


def _new_model(names: list[str], seed: int) -> torch.nn.Module:
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        **named_classes(names),
    )
    return image_classifier(None, config, seed)
