"""What one micro-batch carries through a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .samples import IGNORED


@dataclass
class Batch:
    """A micro-batch, prepared once and read by every pass over it. `M` label positions, `C` classes.

    Args:
        inputs: what the model is called with.
        labels: given labels, int64 (M,); -100 where there is none.
        rows: state row of each, int64 (M,), the spare row where there is none; None where no method keeps any.
        counted: which positions count, bool (M,).
        target: soft target of this visit, (M, C); set when it is resolved, after the first forward pass.
        weights: weight of each position, (M,); set with the target.
        teacher_logits: what a teacher says of each position, (M, C).
        teacher_states: hidden states of each teacher, by layer (B, P, D); None for layers that nothing reads.
        student_states: those of the student, while a pass computes its loss.
        features: what the classifier's last layer was given in the first forward pass, (M, D), where neighbors are
            found by it.
    """

    inputs: Mapping[str, Any]
    labels: Tensor
    rows: Tensor | None
    counted: Tensor
    target: Tensor | None = None
    weights: Tensor | None = None
    teacher_logits: Tensor | None = None
    teacher_states: list[tuple[Tensor | None, ...]] | None = None
    student_states: tuple[Tensor, ...] | None = None
    features: Tensor | None = None


class SharedLabels(dict):
    """Inputs whose labels a loss function can take out while the model is given them all the same.

    Upstream pops the labels for a loss function; but a model may need them to run (to make decoder inputs), or compute
    a loss of its own whenever it is called.
    """

    def pop(self, key, *default):
        return self.get(key, *default) if key == "labels" else super().pop(key, *default)


def flat_logits(logits: Tensor, batch: Batch) -> Tensor:
    """Logits as (M, C), refusing shapes that do not give one row of scores for each label."""
    flat = logits.reshape(-1, logits.shape[-1])
    if logits.dim() < 2 or flat.shape[0] != batch.labels.shape[0]:
        raise ValueError(
            f"the model's logits have shape {tuple(logits.shape)} for {batch.labels.shape[0]} labels: the loss of "
            "label correction or distillation needs a row of class scores for each label; use a classification or "
            'token-classification head, or set label_correction="none" (multi-label and regression heads).'
        )
    return flat


def counted_positions(batch: Batch, states: Tensor) -> Tensor | None:
    """Which positions of hidden states (B, P, D) are of the input and not of its padding, bool (B, P).

    None means all: images have no padding, and texts without an attention mask are attended to as a whole.

    Raises:
        ValueError: for a mask of other positions.
    """
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        return None
    if mask.numel() != states.shape[:2].numel():
        raise ValueError(
            f"kd_hidden_weight: the attention_mask has the shape {tuple(mask.shape)} for hidden states of shape "
            f"{tuple(states.shape)}, so it is not known which positions are padding: give a mask of the input's "
            "tokens (and no prompt that is put before them), or set kd_hidden_weight=0."
        )
    return mask.reshape(states.shape[:2]).to(states.device) != 0


def state_rows(
    examples: Tensor, labels: Tensor, offsets: Tensor | None, spare_row: int, positions: Tensor | None = None
) -> Tensor:
    """State row of each label position, flattened to (M,).

    Args:
        examples: example numbers, (B,).
        labels: (B,) or, per token, (B, T); -100 is not counted.
        offsets: first row of each example and the total, for labels per token.
        spare_row: where positions that do not count are sent.
        positions: place of each counted label among those of its example, (B, K), -1 for one it does not have; for
            views of an example in which words moved. Default: they are the example's, in order.
    """
    if offsets is None:
        labels = labels.flatten()  # (B,) or (B, 1)
    counted = labels != IGNORED
    if offsets is None:
        return torch.where(counted, examples, spare_row)
    places = counted.cumsum(dim=1) - 1
    if positions is not None:
        places = positions.gather(1, places.clamp(0, positions.shape[1] - 1))
        # A view may show words that were cut off where the labels were counted.
        counted = counted & (places >= 0) & (places < (offsets[examples + 1] - offsets[examples])[:, None])
    return torch.where(counted, offsets[examples][:, None] + places, spare_row).flatten()
