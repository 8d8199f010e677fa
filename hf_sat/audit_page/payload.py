"""The table as the compact JSON that the page's script reads."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import pandas as pd

from .data import NEEDED, PageData, is_audited, labels_of, suspects_first
from .examples import cut, cut_words, kind_of, text_limit, thumbnail
from .heatmap import HeatMap

SURROGATE = re.compile("[\ud800-\udfff]")
# `<` would end the script element or open a comment in it; the two separators end a line in older JavaScript.
UNSAFE = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
WHOLE = 2000  # examples whose text is kept up to max_chars, however many there are
OWN = {*NEEDED, "token_index"}


def payload(data: PageData, heat: HeatMap | None, max_rows: int, max_thumbnails: int, max_chars: int) -> dict:
    """All that the script needs: an array for each column, most suspicious rows first.

    Args:
        data: what to show.
        heat: the heat map where it is drawn, whose numbers the script shows under the pointer.
        max_rows: rows kept, the most suspicious ones.
        max_thumbnails: pictures kept, of the first rows.
        max_chars: characters kept of a text.
    """
    order = suspects_first(data.rows)[:max_rows]
    rows = data.rows.iloc[order]
    packed = {
        "title": data.title,
        "classes": data.class_names,
        "total": len(data.rows),
        "id": _plain(rows["sample_id"]),
        "token": _plain(rows["token_index"]) if "token_index" in rows else None,
        "given": labels_of(rows, "given_label").tolist(),
        "proposed": labels_of(rows, "corrected_label").tolist(),
        "quality": _plain(rows["label_quality"]),
        "issue": (rows["is_label_issue"].to_numpy(dtype=bool) & is_audited(rows)).astype(int).tolist(),
        "scores": [_score(str(name), rows[name]) for name in rows if name not in OWN],
        "matrix": {"kept": heat.kept, "shares": heat.shares} if heat and heat.shares else None,
    }
    # Under this key the browser remembers the ticks of just these labels.
    known = script_json([packed[name] for name in ("title", "id", "token", "given", "proposed")])
    packed["key"] = hashlib.sha256(known.encode()).hexdigest()[:16]
    return packed | _examples(data, order, max_thumbnails, max_chars)


def script_json(value: Any) -> str:
    """JSON that stands in a script element without ending it, and in UTF-8 without failing."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _examples(data: PageData, order: np.ndarray, max_thumbnails: int, max_chars: int) -> dict:
    kind = kind_of(data.examples)
    packed = {"kind": kind, "example_of": None, "examples": [], "cut": None}
    if kind is None:
        return packed
    positions = data.example_of[order]
    if kind == "image":
        packed["examples"] = [thumbnail(data.examples[int(k)]) for k in positions[:max_thumbnails]]
        return packed
    # The tokens of a sentence share it.
    used, example_of = pd.factorize(positions)[::-1]
    all_examples = list(data.examples)
    found = [all_examples[k] for k in used]
    texts = [_text(example) if kind == "text" else " ".join(map(str, example or [])) for example in found]
    # The first ones are read, the others mostly searched.
    limit = text_limit(texts[WHOLE:], max_chars)
    limits = [max_chars if k < WHOLE else limit for k in range(len(texts))]
    if kind == "text":
        packed["examples"] = [cut(text, limit) for text, limit in zip(texts, limits)]
    else:
        packed["examples"] = [cut_words(() if words is None else words, limit) for words, limit in zip(found, limits)]
    packed["cut"] = limit if any(len(text) > limit for text, limit in zip(texts, limits)) else None
    if len(used) != len(order):
        packed["example_of"] = example_of.tolist()
    return packed


def _text(example: Any) -> str:
    return "" if example is None else str(example)


def _score(name: str, values: pd.Series) -> dict:
    is_number = pd.api.types.is_numeric_dtype(values)
    return {"name": name, "number": is_number, "values": _plain(values)}


def _plain(values: pd.Series) -> list:
    """What JSON can hold: integers, floats of 4 digits with null for no number, or strings."""
    if pd.api.types.is_bool_dtype(values):
        return values.astype(int).tolist()
    if pd.api.types.is_integer_dtype(values) and not values.hasnans:
        return [value if abs(value) < 2**53 else str(value) for value in values.tolist()]
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        return [value if np.isfinite(value) else None for value in np.round(numbers, 4).tolist()]
    return ["" if is_missing else str(value) for value, is_missing in zip(values.tolist(), values.isna())]
