"""What label correction remembers of every label, and its file in a checkpoint.

One row a label; row = example number (for tokens: `offsets[example] + k`). One more row at the end takes what must not
count (padding, ignored labels), so that a step needs no masks of data-dependent size, hence no host sync.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .samples import UNKNOWN, Samples
from .soft_targets import SoftTargets, class_dtype, pieces

STATE_FILE = "sat_state.safetensors"
FORMAT_VERSION = 3
# What their types hold; more is not counted.
MOST_VISITS, MOST_FORGETTINGS = 2**15 - 1, 2**8 - 2


class LabelState:
    """What is remembered of R labels over C classes, with a row to spare.

    Attributes:
        targets: the soft targets, C entries a row.
        given_labels: (R + 1,) int16 (int32 from 32,768 classes on); -1 where no batch has shown it yet.
        n_visits: (R + 1,) int16, optimizer steps that took a prediction of this row.
        p_given_mean: (R + 1,) float32, mean over the visits of the predicted probability of the given label.
        margin_mean: (R + 1,) float32, mean over the visits of the logit of the given label less the largest other one:
            the area under the margin (Pleiss et al. 2020, https://arxiv.org/abs/2001.10528). The first visit counts
            only until there is another: what a new head says tells of the classes, not of the label.
        forgettings: (R + 1,) uint8, how often the given label was predicted at a visit and not at the next (Toneva et
            al. 2019, https://arxiv.org/abs/1812.05159).
        first_agreement: (R + 1,) int16, epoch of the first visit that predicted the given label; -1 before.
        last_prediction: (R + 1,) like `given_labels`, class predicted at the last visit; -1 before.
        last_epoch: (R + 1,) int16, epoch of the last visit; -1 before.

    Args:
        targets: empty storage; filled one-hot for the labels known, zero for the others until a batch shows them.
        labels: given labels, int64 (R,), where they are known before training.
        device: where all but the targets lies.
        empty: leave the targets of labels without a visit at zero.
    """

    def __init__(self, targets: SoftTargets, labels: Tensor | None, device: torch.device, empty: bool = False):
        size = targets.num_rows + 1
        self.targets = targets
        self.empty = empty
        classes = class_dtype(targets.num_classes)
        self.given_labels = torch.full((size,), UNKNOWN, dtype=classes, device=device)
        self.n_visits = torch.zeros(size, dtype=torch.int16, device=device)
        self.p_given_mean = torch.zeros(size, device=device)
        self.margin_mean = torch.zeros(size, device=device)
        self.forgettings = torch.zeros(size, dtype=torch.uint8, device=device)
        self.first_agreement = torch.full((size,), UNKNOWN, dtype=torch.int16, device=device)
        self.last_prediction = torch.full((size,), UNKNOWN, dtype=classes, device=device)
        self.last_epoch = torch.full((size,), UNKNOWN, dtype=torch.int16, device=device)
        if labels is not None:
            self.given_labels[:-1] = labels.to(self.given_labels)
            for rows in pieces(targets, device):
                targets.write(rows, self.first_targets(self.given_labels[rows]))

    @property
    def num_classes(self) -> int:
        return self.targets.num_classes

    @property
    def spare_row(self) -> int:
        return self.targets.num_rows

    def first_targets(self, labels: Tensor) -> Tensor:
        """Soft targets before the first visit, (M, C)."""
        first = one_hot(labels, self.num_classes)
        return torch.zeros_like(first) if self.empty else first

    def stored_targets(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Soft targets of rows (M,) whose batch shows `labels` (M,); the first ones where the label is new, (M, C)."""
        new = self.given_labels[rows] != labels
        return torch.where(new[:, None], self.first_targets(labels), self.targets.read(rows))

    def current_labels(self, rows: Tensor) -> Tensor:
        """Class that the soft target has most of, the given one before the first visit, int64 (M,)."""
        given = self.given_labels[rows].long().clamp_min(0)
        return torch.where(self.n_visits[rows] == 0, given, self.targets.largest(rows))

    def remember(
        self,
        at: Tensor,
        rows: Tensor,
        known: Tensor,
        *,
        labels: Tensor,
        predicted: Tensor,
        p_given: Tensor,
        margin: Tensor,
        epoch: int,
    ) -> None:
        """Take in a visit, but for its target.

        Args:
            at: where to write, (M,): the row, or the spare one.
            rows: the row, (M,).
            known: whether `labels` is what the row was last seen with; otherwise it begins anew, (M,).
            labels, predicted: given and predicted class, (M,).
            p_given, margin: of this visit, (M,).
            epoch: of this visit.
        """
        visit = (torch.where(known, self.n_visits[rows], 0) + 1).clamp_max(MOST_VISITS)
        agrees, agreed = predicted == labels, self.last_prediction[rows] == labels
        forgettings = torch.where(known, self.forgettings[rows], 0) + (known & agreed & ~agrees).to(torch.uint8)
        first = torch.where(known, self.first_agreement[rows], UNKNOWN)
        self.first_agreement[at] = torch.where((first == UNKNOWN) & agrees, epoch, first).to(torch.int16)
        self.forgettings[at] = forgettings.clamp_max(MOST_FORGETTINGS).to(torch.uint8)
        for means, seen, count in (
            (self.p_given_mean, p_given, visit),
            (self.margin_mean, margin, (visit - 1).clamp_min(1)),
        ):
            mean = torch.where(known & (count > 1), means[rows], 0.0)
            means[at] = mean + (seen - mean) / count
        self.n_visits[at] = visit.to(torch.int16)
        self.given_labels[at] = labels.to(self.given_labels)
        self.last_prediction[at] = predicted.to(self.last_prediction)
        self.last_epoch[at] = epoch

    def tensors(self) -> dict[str, Tensor]:
        """The rows as they are stored, by name, without the spare one."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {name: value[:-1] for name, value in {**self.targets.tensors(), **own}.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up rows that `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])

    def reset_rows(self, rows: Tensor, labels: Tensor) -> None:
        """Forget what was learned of these rows: their labels were edited."""
        self.given_labels[rows] = labels.to(self.given_labels)
        self.targets.write(rows, self.first_targets(labels))
        self.n_visits[rows] = 0
        self.p_given_mean[rows] = self.margin_mean[rows] = 0.0
        self.forgettings[rows] = 0
        self.first_agreement[rows] = self.last_prediction[rows] = UNKNOWN


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """float32 one-hot rows, (M, C); zeros for labels below 0."""
    return F.one_hot(labels.long().clamp_min(0), num_classes) * (labels >= 0).float()[:, None]


# ---- the file -------------------------------------------------------------------------------------------------------


def fingerprint(samples: Samples) -> dict[str, Any]:
    """What says that a checkpoint belongs to these data: number, ids, and for tokens where each example's rows lie."""
    ids = None if samples.ids is None else _digest("\n".join(map(repr, np.sort(samples.ids).tolist())).encode())
    offsets = None if samples.offsets is None else _digest(samples.offsets.tobytes())
    return {"num_examples": samples.num_examples, "num_rows": samples.num_rows, "ids": ids, "offsets": offsets}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save_state(folder: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write `sat_state.safetensors` whole or not at all.

    Args:
        folder: the checkpoint.
        tensors: name -> tensor, of any device.
        about: JSON-able facts kept in the file's header.
    """
    path = os.path.join(folder, STATE_FILE)
    header = {"format": "pt", "hf_sat": json.dumps({"version": FORMAT_VERSION, **about})}
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, f"{path}.tmp", header)
    os.replace(f"{path}.tmp", path)


def read_state(folder: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what [`save_state`] wrote.

    Raises:
        ValueError: where the file is missing, truncated, or of another version; the message names it.
    """
    path = os.path.join(folder, STATE_FILE)
    with _opened(path) as file:
        about = _about(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if about["version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {about['version']}, this hf_sat reads {FORMAT_VERSION}: resume with the "
            "hf_sat that wrote it."
        )
    return tensors, about


@contextlib.contextmanager
def _opened(path: str) -> Iterator[safe_open]:
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} is missing: this checkpoint holds no soft targets, so label correction cannot go on from it. "
            'Resume with label_correction="none", or load its model and train without resume_from_checkpoint.'
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it is truncated or not written by hf_sat. "
            "Resume from another checkpoint."
        ) from error


def check_form(folder: str, method: str, num_classes: int | None, top_k: int | None) -> None:
    """Refuse to go on with another method, other classes or another form of storage; only the file's header is read."""
    if not os.path.isfile(os.path.join(folder, "trainer_state.json")):
        raise ValueError(
            f"checkpoint {folder} was not written to its end (no trainer_state.json): resume from one before it."
        )
    path = os.path.join(folder, STATE_FILE)
    with _opened(path) as file:
        form = _about(file)["form"]
    if form["method"] != method:
        raise ValueError(
            f"{path} was written with label_correction={form['method']!r} and label_correction={method!r} is set: "
            "resume with the former, or train anew."
        )
    if None not in (form["num_classes"], num_classes) and form["num_classes"] != num_classes:
        raise ValueError(
            f"{path} has soft targets over {form['num_classes']} classes and the model has num_labels={num_classes}: "
            "resume with the model of that run, or train anew."
        )
    if form["top_k"] != top_k:
        raise ValueError(
            f"{path} was written with sat_top_k={form['top_k']} and sat_top_k={top_k} is set: resume with the former, "
            "or train anew."
        )


def _about(file: safe_open) -> dict[str, Any]:
    return json.loads((file.metadata() or {})["hf_sat"])


def check_fingerprint(folder: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with other data than the checkpoint's, naming what differs."""
    for name, value in now.items():
        if saved[name] != value:
            raise ValueError(
                f"{os.path.join(folder, STATE_FILE)} is of other data: {name} was {saved[name]} and is {value}. "
                "Resume with the data set of the run (same rows, same sample_id_column), or train anew."
            )
