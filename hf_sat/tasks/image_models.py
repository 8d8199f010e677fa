"""Classifiers of images: pretrained ones under a new head, and one small enough to learn from scratch."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    set_seed,
)

from ..config import refuse
from ..quiet import errors_only

# Some configurations come from TensorFlow with its meaning of two numbers: the momentum of batch norms as the share of
# the old statistics, by which running statistics would be those of the last batch, and dropout as the share that stays.
SWAPPED, LEAST_MOMENTUM = 0.5, 0.01
KEEPING_DROPOUT = ("mobilenet_v1", "mobilenet_v2")


def named_classes(names: list[str]) -> dict[str, Any]:
    """Classes as configurations have them; their number follows."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def image_config(
    folder: str | None,
    names: list[str],
    image_size: int | None = None,
    pixels: tuple[int, int, int] = (3, 32, 32),
) -> PreTrainedConfig:
    """The configuration of the model named, or of a small ViT.

    Args:
        folder: or Hub name; None for the ViT.
        names: the classes.
        image_size: side of what the ViT sees, pixels; None for that of `pixels`.
        pixels: (channels, height, width) of it.

    Raises:
        ValueError: for a model that is not there, or is none of images.
    """
    if folder is None:
        return small_vit(names, image_size or pixels[-1], pixels[0])
    try:
        config = AutoConfig.from_pretrained(folder, **named_classes(names))
    except (OSError, ValueError) as error:
        raise refuse(
            "model_name_or_path", folder, f"no model can be read there ({str(error).strip().splitlines()[0]})."
        ) from error
    if type(config) not in AutoModelForImageClassification._model_mapping:
        raise refuse(
            "model_name_or_path", folder, f"a {config.model_type} classifies no images; name a ViT, ResNet or the like."
        )
    if config.model_type in KEEPING_DROPOUT and config.classifier_dropout_prob > SWAPPED:
        config.classifier_dropout_prob = round(1 - config.classifier_dropout_prob, 6)
    return config


def small_vit(names: list[str], image_size: int, channels: int) -> ViTConfig:
    """A ViT of some 140,000 weights, whose patches are a quarter of the side."""
    return ViTConfig(
        image_size=image_size,
        patch_size=max(1, image_size // 4),
        num_channels=channels,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        **named_classes(names),
    )


def image_classifier(
    folder: str | None, config: PreTrainedConfig, seed: int, pixels: tuple[int, ...] | None = None
) -> PreTrainedModel:
    """A new model, the same at each call.

    Args:
        folder: or Hub name, of the weights; None for random ones.
        config: with the classes to tell apart.
        seed: of what is not in the folder.
        pixels: (channels, height, width) that it will see, tried out on it.

    Raises:
        ValueError: where it takes no such pictures.
    """
    set_seed(seed)
    if folder is None:
        model = AutoModelForImageClassification.from_config(config)
    else:
        with errors_only():
            model = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # of a head made for other classes
            )
    mend_batch_norm(model)
    if pixels is not None:
        _try_out(model, pixels)
    return model


def mend_batch_norm(model: nn.Module) -> None:
    """Turn round the momentum of batch norms that is meant the other way, and let them take a single picture.

    Of a last batch of one picture a layer deep in the network may see a single value for each channel, and PyTorch
    refuses to take statistics of one; the layer then uses its running ones.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if (module.momentum or 0) > SWAPPED:
                module.momentum = max(LEAST_MOMENTUM, 1 - module.momentum)
            module.register_forward_pre_hook(_without_statistics_of_one)
            module.register_forward_hook(_as_before)


def _without_statistics_of_one(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if module.training and inputs[0].numel() == inputs[0].shape[1]:
        module.training, module.saw_one = False, True


def _as_before(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if getattr(module, "saw_one", False):
        module.training, module.saw_one = True, False


def _try_out(model: PreTrainedModel, pixels: tuple[int, ...]) -> None:
    model.eval()
    try:
        with torch.no_grad():
            model(pixel_values=torch.zeros(1, *pixels))
    except (ValueError, RuntimeError) as error:
        own = getattr(model.config, "image_size", None)
        raise refuse(
            "image_size",
            pixels[-1],
            f"the model takes no such pictures ({str(error).splitlines()[0]}); leave it out, or give {own}.",
        ) from error
    finally:
        model.train()
