"""Texts, sentences of words and thumbnails, in the form the page carries them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

THUMBNAIL = 96  # pixels, the longer side
SHORTEST = 200  # characters that every text may keep, however many there are
TEXT_BUDGET = 32_000_000  # bytes of all texts


def kind_of(examples: Sequence | None) -> str | None:
    """ "text", "words" or "image", by the first example that is not None; None without any."""
    if examples is None:
        return None
    first = next((example for example in examples if example is not None), None)
    if first is None or isinstance(first, str):
        return None if first is None else "text"
    if isinstance(first, (bytes, dict)) or hasattr(first, "thumbnail"):
        return "image"
    if isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim in (2, 3):
        return "image"
    if isinstance(first, (list, tuple, np.ndarray)) and all(isinstance(word, str) for word in first):
        return "words"
    raise ValueError(
        f"examples holds a {type(first).__name__}, which the page cannot show; pass texts, lists of words, or pictures "
        "(PIL images, encoded bytes, uint8 arrays)"
    )


def text_limit(texts: Sequence[str], longest: int) -> int:
    """Characters that each may keep: at most `longest`, and fewer where all together exceed TEXT_BUDGET."""
    lengths = np.sort(np.minimum([len(text) for text in texts], longest))
    sample = "".join(text[:longest] for text in texts[:: max(len(texts) // 1000, 1)])
    width = len(sample.encode("utf-8", "replace")) / len(sample) if sample else 1.0
    budget = TEXT_BUDGET / width
    if lengths.sum() <= budget:
        return longest
    # The k shortest stay whole and the others share what is left: the first k for which that cuts no more than those.
    left = (budget - np.cumsum(lengths) + lengths) / np.arange(len(lengths), 0, -1)
    return max(int(left[np.argmax(left < lengths)]), min(SHORTEST, longest))


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_words(words: Sequence[str], limit: int) -> list[str]:
    """The words that fit into `limit` characters with spaces between them, and an ellipsis for the others."""
    kept, used = [], 0
    for word in words:
        used += len(word) + 1
        if used > limit + 1:
            return [*kept, "…"]
        kept.append(str(word))
    return kept


def thumbnail(picture: Any, size: int = THUMBNAIL) -> str | None:
    """A JPEG of at most `size` x `size` pixels as a data URI; None for what cannot be read as a picture."""
    if picture is None:
        return None
    from PIL import Image

    try:
        image = _open(picture)
        # Before the conversion, which is then of few pixels; a palette cannot be averaged.
        image = image.convert("RGBA") if image.mode in ("P", "LA", "PA") else image.copy()
        image.thumbnail((size, size))
        return "data:image/jpeg;base64," + base64.b64encode(_jpeg(image)).decode()
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError):
        return None


def _open(picture: Any):
    from PIL import Image

    if isinstance(picture, dict):
        picture = picture.get("bytes") or picture.get("path")
    if isinstance(picture, bytes):
        picture = io.BytesIO(picture)
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture)
    return picture if isinstance(picture, Image.Image) else Image.open(picture)


def _jpeg(image) -> bytes:
    from PIL import Image

    if image.mode == "RGBA":
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    if image.mode in ("I", "F"):  # more than 8 bits, which convert() would clip
        values = np.asarray(image, dtype=float)
        spread = values.max() - values.min() or 1.0
        image = Image.fromarray((255 * (values - values.min()) / spread).astype(np.uint8))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=72, optimize=True)
    return buffer.getvalue()
