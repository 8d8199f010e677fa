"""Pictures as files and tables hold them: found, opened, and refused where they cannot be read."""

import io
import os
import struct
from typing import Any

import numpy as np

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DRAFT = (128, 128)  # a check decodes JPEG at a fraction of its size


def as_picture(value: Any, root: str) -> dict | None:
    """An image as `datasets` has it, {"bytes", "path"}, from a path below `root`, bytes, or such a mapping."""
    if isinstance(value, str) and value.strip():
        return {"bytes": None, "path": os.path.join(root, value)}
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, dict) and value.get("bytes"):
        return {"bytes": value["bytes"], "path": None}
    if isinstance(value, dict) and value.get("path"):
        return {"bytes": None, "path": os.path.join(root, value["path"])}
    return None


def open_picture(picture: dict, mode: str = "RGB", draft: bool = False) -> Any:
    """The `PIL.Image`, upright and in the mode; raises what Pillow raises where it is none."""
    from PIL import Image, ImageOps

    with Image.open(picture["path"] if picture["bytes"] is None else io.BytesIO(picture["bytes"])) as image:
        if draft:
            image.draft("RGB", DRAFT)
        image = _eight_bit(ImageOps.exif_transpose(image))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow would warn
        return image.convert(mode)


def _eight_bit(image: Any) -> Any:
    """Grey values of 16 bits as the 8 highest of them, and fractions of 1 as 8 bits: Pillow cuts both off at 255."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    scale = 255 if image.mode == "F" and values.max(initial=0) <= 1 else 1
    scale = 1 / 256 if image.mode != "F" and (image.mode != "I" or values.max(initial=0) > 255) else scale
    return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))


def open_or_say_why(picture: dict | None, mode: str = "RGB", draft: bool = False) -> tuple[Any, str | None]:
    """The `PIL.Image`, or None and why it cannot be opened."""
    from PIL import Image

    if picture is None:
        return None, "no image"
    try:
        return open_picture(picture, mode, draft), None
    except FileNotFoundError:
        return None, f"there is no file {picture['path']}"
    # What Pillow raises for files that are cut or none of its formats, by the format.
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        return None, f"no image that can be read ({type(error).__name__})"
