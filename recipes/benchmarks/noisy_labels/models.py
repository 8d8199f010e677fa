"""The models of the grid, small enough for two cores, and what the Trainer needs to feed them.

Every method of a column and seed starts from the same weights and sees the same batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    default_data_collator,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_sat.tasks.text import packaged_encoder

from .columns import Column
from .data import SOURCES, Examples
from .hub import DATA_DIR as HUB
from .hub import MOBILENET

DROPOUT = 0.1
IMAGE_DROPOUT = 0.2  # transformers reads the 0.8 that TensorFlow keeps as 0.8 to drop
BATCH_NORM_MOMENTUM = 0.01  # upstream's 0.997 makes the running statistics those of the last batch


class TextClassifier(nn.Module):
    """An encoder, the mean over its tokens (as MiniLM's sentence model is pooled), dropout, and a linear head."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.config = encoder.config  # upstream's label smoothing asks for one
        self.num_labels = encoder.config.num_labels
        self.encoder = encoder
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(encoder.config.hidden_size, self.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None):
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return classified(self.head(self.dropout(mean)), labels)


class ImageClassifier(nn.Module):
    """MobileNetV2 on uint8 images of any size, which are resized, normalised and, in training, flipped on its device.

    The flips come from torch's generator, which the Trainer seeds: the same for every method.
    """

    def __init__(self, network: nn.Module, image_size: int):
        super().__init__()
        self.config = network.config
        self.num_labels = network.config.num_labels
        self.network = network
        self.image_size = image_size

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None):
        pixels = pixel_values.float() / 127.5 - 1.0
        if self.training:
            flipped = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
            pixels = torch.where(flipped, pixels.flip(-1), pixels)
        pixels = F.interpolate(pixels, size=(self.image_size, self.image_size), mode="bilinear")
        return classified(self.network(pixels).logits, labels)


def classified(logits: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
    """What transformers' own heads return; the loss in float32 under autocast too."""
    logits = logits.float()
    return SequenceClassifierOutput(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


class Prepared(torch.utils.data.Dataset):
    """Inputs ready for the collator, with the labels that training is given."""

    def __init__(self, inputs: list[dict[str, Any]], labels: np.ndarray):
        self.inputs, self.labels = inputs, labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**self.inputs[i], "labels": self.labels[i]}


@dataclass(frozen=True)
class Setting:
    """What a method trains, whichever it is.

    Args:
        make_model: a new model, the same at each call.
        prepare: examples as the Trainer takes them.
        collator: of their batches.
    """

    make_model: Callable[[], nn.Module]
    prepare: Callable[[Examples], Prepared]
    collator: Callable


def setting(
    column: Column, num_labels: int, seed: int, data_dir: str, layers: int = 3, image_size: int = 96
) -> Setting:
    """Model and data preparation of a column.

    Args:
        num_labels: classes.
        seed: of the head.
        data_dir: folder that holds `mobilenet_v2`, or "hub".
        layers: of MiniLM, the first so many of its six.
        image_size: side that images are resized to, in pixels.
    """
    if column.is_image:
        name = MOBILENET if data_dir == HUB else str(Path(data_dir) / "mobilenet_v2")
        make_model = partial(_image_model, name, num_labels, seed, image_size)
        return Setting(make_model, _prepare_images, default_data_collator)
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder())
    prepare = partial(_prepare_texts, tokenizer, SOURCES[column.data].max_length)
    return Setting(partial(_text_model, num_labels, seed, layers), prepare, DataCollatorWithPadding(tokenizer))


def _text_model(num_labels: int, seed: int, layers: int) -> TextClassifier:
    set_seed(seed)
    encoder = AutoModel.from_pretrained(
        packaged_encoder(), num_labels=num_labels, num_hidden_layers=layers, add_pooling_layer=False
    )
    return TextClassifier(encoder)


def _image_model(name: str, num_labels: int, seed: int, image_size: int) -> ImageClassifier:
    set_seed(seed)
    network = AutoModelForImageClassification.from_pretrained(
        name, num_labels=num_labels, classifier_dropout_prob=IMAGE_DROPOUT, ignore_mismatched_sizes=True
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BATCH_NORM_MOMENTUM
    return ImageClassifier(network, image_size)


def _prepare_texts(tokenizer: Any, max_length: int, examples: Examples) -> Prepared:
    encoded = tokenizer(list(examples.inputs), truncation=True, max_length=max_length, return_token_type_ids=False)
    names = list(encoded)
    return Prepared([dict(zip(names, row)) for row in zip(*encoded.values())], examples.labels)


def _prepare_images(examples: Examples) -> Prepared:
    return Prepared([{"pixel_values": image} for image in torch.from_numpy(examples.inputs)], examples.labels)
