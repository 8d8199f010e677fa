"""A teacher's logits, computed once and mapped into memory from files.

A folder holds `logits.bin` (a row for each label position, for each epoch where they differ), `done.bin` (a byte for
each example, written after its logits, so that a build that was killed goes on), and `cache.json` (what all of it was
made from). With `top_k` only the largest logits of a row are kept, and the mass of the others at the temperature in
use; reading gives whole rows again, in which the others share that mass alike.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config.checks import refuse

ABOUT, LOGITS, CLASSES, DONE = "cache.json", "logits.bin", "classes.bin", "done.bin"
VERSION = 1
# How numpy holds what torch has and numpy lacks.
HELD_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


@dataclass(frozen=True)
class Form:
    """How logits lie in the files.

    Args:
        num_examples: examples of the training set.
        num_rows: label positions of all of them.
        epochs: how often each is stored.
        dtype: "float32", "float16" or "bfloat16".
        top_k: logits kept of a row; None for all.
        temperature: at which the mass of the others is measured; None where all are kept.
    """

    num_examples: int
    num_rows: int
    epochs: int = 1
    dtype: str = "float32"
    top_k: int | None = None
    temperature: float | None = None


class TeacherCache:
    """The files of a folder, opened.

    Args:
        folder: where they lie.
        form: how.
        num_classes: of the teacher's logits.
    """

    def __init__(self, folder: str | Path, form: Form, num_classes: int):
        self.form, self.num_classes = form, num_classes
        kept = num_classes if form.top_k is None else min(form.top_k, num_classes)
        rows = max(1, form.epochs * form.num_rows)
        width = kept if form.top_k is None else kept + 1  # and the mass of the rest
        self.kept = kept
        self.logits = _mapped(Path(folder) / LOGITS, HELD_AS[form.dtype], (rows, width))
        self.done = _mapped(Path(folder) / DONE, np.uint8, (form.epochs, form.num_examples))
        self.classes = None
        if form.top_k is not None:
            narrow = np.uint16 if num_classes <= 2**16 else np.int32
            self.classes = _mapped(Path(folder) / CLASSES, narrow, (rows, kept))

    @classmethod
    def make(cls, folder: str | Path, form: Form, num_classes: int, fingerprint: Mapping[str, str]) -> "TeacherCache":
        """New files; the record comes last, so that a folder with one is whole."""
        os.makedirs(folder, exist_ok=True)
        kept = num_classes if form.top_k is None else min(form.top_k, num_classes)
        rows, size = max(1, form.epochs * form.num_rows), np.dtype(HELD_AS[form.dtype]).itemsize
        _reserve(Path(folder) / LOGITS, rows * (kept + (form.top_k is not None)) * size)
        _reserve(Path(folder) / DONE, form.epochs * form.num_examples)
        if form.top_k is not None:
            _reserve(Path(folder) / CLASSES, rows * kept * (2 if num_classes <= 2**16 else 4))
        about = {"version": VERSION, "fingerprint": dict(fingerprint), "form": asdict(form), "num_classes": num_classes}
        record = Path(folder) / (ABOUT + ".part")
        record.write_text(json.dumps(about, indent=1) + "\n")
        os.replace(record, Path(folder) / ABOUT)
        return cls(folder, form, num_classes)

    @classmethod
    def find(cls, folder: str | Path, form: Form, fingerprint: Mapping[str, str]) -> "TeacherCache | None":
        """The files of a folder, if it has any.

        Raises:
            ValueError: for files made from something else, or not whole; the message says what differs.
        """
        path = Path(folder) / ABOUT
        if Path(folder).exists() and not Path(folder).is_dir():
            raise refuse("kd_cache_dir", str(folder), "there is a file of that name; name a folder.")
        if not path.exists():
            return None
        try:
            about = json.loads(path.read_text())
            found = {**about["fingerprint"], **{f"the setting {key}": value for key, value in about["form"].items()}}
            wanted = {**fingerprint, **{f"the setting {key}": value for key, value in asdict(form).items()}}
            classes, version = about["num_classes"], about["version"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise refuse("kd_cache_dir", str(folder), f"its {ABOUT} cannot be read ({error!r}); delete it.") from None
        other = [key for key in wanted if found.get(key) != wanted[key]]
        if version != VERSION or other:
            what = ", ".join(other) or f"version {version}"
            raise refuse(
                "kd_cache_dir",
                str(folder),
                f"its logits were made with another state of: {what}. Give another folder, or delete this one to have "
                "them made anew.",
            )
        return cls(folder, form, classes)

    def missing(self, epoch: int) -> np.ndarray:
        """Examples that have no logits yet."""
        return np.flatnonzero(self.done[epoch] == 0)

    def write(self, epoch: int, rows: Tensor, logits: Tensor) -> None:
        """Keep logits (M, C) of label positions (M,); [`mark`] says that they count."""
        at = epoch * self.form.num_rows + rows.cpu().numpy()
        if self.classes is None:
            self.logits[at] = self._held(logits)
            return
        largest = logits.float().topk(self.kept, dim=-1)
        rest = logits.float().scatter(-1, largest.indices, -math.inf) / self.form.temperature
        rest = rest.logsumexp(dim=-1, keepdim=True).clamp_min(-1e4)  # no class is left where all are kept
        self.logits[at] = self._held(torch.cat([largest.values, rest], dim=-1))
        self.classes[at] = largest.indices.cpu().numpy()

    def mark(self, epoch: int, examples: np.ndarray) -> None:
        """The logits of these examples are all there, on the disk too."""
        for held in (self.logits, self.classes):
            if held is not None:
                held.flush()
        self.done[epoch, examples] = 1
        self.done.flush()

    def read(self, epoch: int, rows: Tensor, device: torch.device) -> Tensor:
        """Logits of label positions (M,), (M, C) in float32; the spare row, which does not count, has the first's."""
        at = epoch * self.form.num_rows + np.where((rows := rows.cpu().numpy()) < self.form.num_rows, rows, 0)
        found = self._given(self.logits[at]).to(device)
        if self.classes is None:
            return found
        classes = torch.from_numpy(self.classes[at].astype(np.int64)).to(device)
        others = max(1, self.num_classes - self.kept)
        # At the temperature each of the others has its share of their mass.
        rest = self.form.temperature * (found[:, -1:] - math.log(others))
        return rest.expand(-1, self.num_classes).scatter(-1, classes, found[:, :-1])

    def _held(self, logits: Tensor) -> np.ndarray:
        given, logits = logits.to("cpu"), logits.to("cpu", getattr(torch, self.form.dtype))
        if given.isnan().any():
            raise ValueError(
                "teacher_model: some of its logits are NaN; see whether its precision is too low for it "
                "(kd_teacher_dtype), or leave teacher_model and kd_weight out."
            )
        if (logits.isinf() & given.isfinite()).any():
            largest = float(given[given.isfinite()].abs().max())
            raise refuse("kd_cache_dtype", self.form.dtype, f"it cannot hold a logit of {largest:.6g}; set float32.")
        return logits.view(torch.uint16).numpy() if self.form.dtype == "bfloat16" else logits.numpy()

    def _given(self, held: np.ndarray) -> Tensor:
        found = torch.from_numpy(held)
        return (found.view(torch.bfloat16) if self.form.dtype == "bfloat16" else found).float()


def _reserve(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)  # zeros that take no space yet


def _mapped(path: Path, dtype: Any, shape: tuple[int, int]) -> np.memmap:
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if not path.exists() or path.stat().st_size != size:
        found = path.stat().st_size if path.exists() else "missing"
        raise refuse(
            "kd_cache_dir", str(path.parent), f"{path.name} is not whole ({found}, not {size} bytes); delete it."
        )
    return np.memmap(path, dtype, mode="r+", shape=shape)
