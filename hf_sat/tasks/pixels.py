"""From pictures to what a model takes: resized by its image processor, kept as bytes, normalised a batch at a time."""

import os
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets.fingerprint import Hasher
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedConfig

from ..config import refuse
from .machine import num_cores
from .pictures import as_picture, open_or_say_why, open_picture

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
USUAL_SIZE = 224  # of models whose configuration names none
IN_PARALLEL = 1000  # pictures from which further processes are worth their start
PIXELS, PROBLEM = "pixel_values", "problem"


@dataclass
class Preparation:
    """How pictures become the pixels of a model, in two steps: resized to uint8, then normalised.

    The first is done once for each picture where its result is kept; the second a batch at a time.

    Args:
        processor: the model's image processor.
        channels: 1, 3 or 4.

    Raises:
        ValueError: for a processor that does not fit.
    """

    processor: Any
    channels: int = 3
    shape: tuple[int, ...] = ()
    dtype: str = "uint8"
    scale: float = 1.0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    def __post_init__(self):
        normalises = getattr(self.processor, "do_normalize", False)
        self.scale = self.processor.rescale_factor if getattr(self.processor, "do_rescale", False) else 1.0
        self.mean = self._by_channel(self.processor.image_mean if normalises else 0.0)
        self.std = self._by_channel(self.processor.image_std if normalises else 1.0)
        self._try_out()

    @property
    def mode(self) -> str:
        """Pillow's name for the channels."""
        return MODES[self.channels]

    @property
    def nbytes(self) -> int:
        """Of a picture that is kept."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def pixels(self, image: Any) -> np.ndarray:
        """(channels, height, width), uint8, or float32 where the processor does more than resize and normalise."""
        raw = {"do_rescale": False, "do_normalize": False} if self.dtype == "uint8" else {}
        made = self.processor(images=[image], return_tensors="pt", **raw)["pixel_values"][0]
        return np.ascontiguousarray(made.numpy())

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 as the model takes it; (batch, channels, height, width)."""
        if self.dtype != "uint8":
            return pixels
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().mul_(self.scale).sub_(mean).div_(std)

    def _by_channel(self, values: Any) -> list[float]:
        values = np.ravel(values)
        return [float(value) for value in (values if len(values) == self.channels else [values.mean()] * self.channels)]

    def _try_out(self) -> None:
        """Two steps where they give what the processor gives in one; else what it gives is taken as it is."""
        noise = np.random.default_rng(0).integers(0, 256, (2, 40, 56, self.channels), dtype=np.uint8)
        wide, high = (_image(pixels) for pixels in (noise[0], noise[1].transpose(1, 0, 2)))
        made = self.pixels(wide)
        whole = self.processor(images=[wide], return_tensors="pt")["pixel_values"][0]
        same = made.dtype == np.uint8 and made.shape == tuple(whole.shape)
        if not same or not torch.allclose(self.normalise(torch.from_numpy(made)), whole.float(), atol=1e-4):
            self.dtype, made = "float32", whole.numpy()
        self.shape = made.shape
        if self.pixels(high).shape != self.shape:
            raise refuse(
                "image_size",
                None,
                f"{type(self.processor).__name__} makes pictures of different sizes; give the side they shall have.",
            )


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def preparation_for(name: str | None, config: PreTrainedConfig, image_size: int | None) -> Preparation:
    """The preparation of a model.

    Args:
        name: folder or Hub name, whose image processor is taken; without one, size and channels of the configuration
            are, and pixels are scaled to [-1, 1].
        config: of the model.
        image_size: side of the square that it shall see, pixels; None for the processor's own.

    Raises:
        ValueError: for a processor that does not fit.
    """
    channels = getattr(config, "num_channels", 3)
    if channels not in MODES:
        raise refuse("model_name_or_path", name, f"it takes {channels} channels; pictures have {list(MODES)}.")
    processor = name and _processor_of(name, image_size)
    if not processor:
        side = image_size or getattr(config, "image_size", None) or USUAL_SIZE
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        grey = {"image_mean": [0.5] * channels, "image_std": [0.5] * channels}
        processor = _plain_processor()(size={"height": height, "width": width}, **grey)
    try:
        return Preparation(processor, channels)
    except (TypeError, RuntimeError) as error:
        raise refuse("model_name_or_path", name, f"its image processor cannot be used ({error}).") from error


def _plain_processor() -> type:
    # The one that needs no torchvision, where this version of transformers has it by name.
    return getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor


def image_processor(name: str, **settings: Any) -> Any:
    """The image processor of a folder or Hub name, as upstream's `AutoImageProcessor` gives it.

    That of transformers 5.17 asks for torchvision, though the processors themselves can do with Pillow.
    """
    try:
        return AutoImageProcessor.from_pretrained(name, **settings)
    except ImportError:
        told, _ = _plain_processor().get_image_processor_dict(name)
        kind = str(told.get("image_processor_type")).removesuffix("Pil").removesuffix("Fast")
        by_pillow = getattr(transformers, f"{kind}Pil", None)
        if by_pillow is None:
            raise
        return by_pillow.from_pretrained(name, **settings)


def _processor_of(name: str, image_size: int | None) -> Any:
    """None where the model has none."""
    try:
        processor = image_processor(name)
    except (OSError, ValueError, KeyError):
        return None
    if image_size is None:
        return processor
    square = {"height": image_size, "width": image_size}
    shortest = getattr(processor.size, "shortest_edge", None) or dict(processor.size or {}).get("shortest_edge")
    sizes = {"size": {"shortest_edge": image_size} if shortest else square}
    if shortest and hasattr(processor, "do_center_crop"):
        sizes["do_center_crop"] = True
    return image_processor(name, crop_size=square, **sizes)


class PixelCollator:
    """Batches of pixels and labels; pictures that are not kept as pixels are decoded here, in the loader's workers."""

    def __init__(self, preparation: Preparation):
        self.preparation = preparation

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        pixels = np.stack([self._pixels(item[PIXELS]) for item in items])
        batch = {PIXELS: self.preparation.normalise(torch.from_numpy(pixels))}
        if "labels" in items[0]:
            batch["labels"] = torch.tensor([item["labels"] for item in items])
        return batch

    def _pixels(self, value: bytes | dict) -> np.ndarray:
        if isinstance(value, bytes):
            return np.frombuffer(value, self.preparation.dtype).reshape(self.preparation.shape)
        return self.preparation.pixels(open_picture(as_picture(value, ""), self.preparation.mode))


def inspected(pictures: datasets.Dataset, column: str, preparation: Preparation, keep: bool) -> datasets.Dataset:
    """Every picture opened once, by all cores.

    The result lies in the cache of `datasets`, so that another run, or process, need not do it again.

    Args:
        pictures: its column holds {"bytes", "path"}.
        keep: whether to keep the pixels; else pictures are only tried, JPEG at a fraction of its size.

    Returns:
        As many rows: "problem", None or why a picture cannot be read, and "pixel_values", bytes, where they are kept.
    """
    cores = num_cores() if len(pictures) >= IN_PARALLEL and pictures.cache_files else 1
    features = {PROBLEM: datasets.Value("string")} | ({PIXELS: datasets.Value("binary")} if keep else {})
    return pictures.map(
        _inspect,
        batched=True,
        batch_size=100,
        writer_batch_size=100,
        remove_columns=pictures.column_names,
        features=datasets.Features(features),
        fn_kwargs={"column": column, "preparation": preparation, "keep": keep},
        num_proc=cores if cores > 1 else None,
        new_fingerprint=_fingerprint(pictures, column, preparation, keep),
        desc="decoding images" if keep else "checking images",
    )


def _inspect(batch: dict[str, list], column: str, preparation: Preparation, keep: bool) -> dict[str, list]:
    opened = [open_or_say_why(as_picture(value, ""), preparation.mode, draft=not keep) for value in batch[column]]
    problems = [why for _, why in opened]
    if not keep:
        return {PROBLEM: problems}
    return {PROBLEM: problems, PIXELS: [image and preparation.pixels(image).tobytes() for image, _ in opened]}


def _fingerprint(pictures: datasets.Dataset, column: str, preparation: Preparation, keep: bool) -> str:
    """Of what is read, files that changed under the same name included, and of what is made of it."""
    files = [_file_state(value) for value in pictures.with_format(None)[column] if value]
    how = (preparation.processor.to_json_string(), preparation.channels, preparation.dtype) if keep else ()
    return Hasher.hash((pictures._fingerprint, [state for state in files if state], how, keep))


def _file_state(value: dict) -> tuple | None:
    if value["bytes"] or not value["path"] or not os.path.exists(value["path"]):
        return None
    state = os.stat(value["path"])
    return value["path"], state.st_mtime_ns, state.st_size
