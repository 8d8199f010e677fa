"""Distillation of intermediate layers: a student's hidden states are drawn to those of its teacher.

The functions are pure and serve any training loop; the class binds them to settings. Shapes: `B` examples of `P`
positions (tokens, patches); hidden states of width `D_s` (student) and `D_t` (teacher). Each function gives an
example's distance, (B,), a mean over the positions that count; examples do not touch, so that the distances of a batch
are those of its parts. Gradients flow into the student alone.

Layers are numbered as in `hidden_states` of transformers: 0 is the embeddings' output, i that of the i-th layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.checks import AUTO, refuse
from ..config.distillation import read_layer_map

OFF = "set kd_hidden_weight=0"


def cosine_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean over the positions of `1 - cos(h_s, h_t)`, (B,) (Sanh et al. 2019, section 3,
    https://arxiv.org/abs/1910.01108).

    Half of the distance of Patient KD, `||h_s / |h_s| - h_t / |h_t| ||^2` (Sun et al. 2019, equation 7,
    https://arxiv.org/abs/1908.09355), which takes the first position alone.

    Args:
        student: hidden states, (B, P, D), any floating dtype; computed in at least float32.
        teacher: hidden states, (B, P, D).
        counted: which positions count, bool (B, P); an example without any has distance 0.

    Returns:
        Distances in [0, 2], (B,).

    Example:
        >>> import torch
        >>> h, everywhere = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.ones(1, 2, dtype=torch.bool)
        >>> cosine_distance(h, 2 * h, everywhere), cosine_distance(h, -h, everywhere)
        (tensor([0.]), tensor([2.]))
    """
    student, teacher = _wide(student, teacher)
    return _mean(1 - F.cosine_similarity(student, teacher, dim=-1), counted)


def hidden_mean_squared_error(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean over positions and width of `(h_s - h_t)^2`, (B,) (Jiao et al. 2020, equation 8 without its projection,
    https://arxiv.org/abs/1909.10351). Arguments as in [`cosine_distance`].
    """
    student, teacher = _wide(student, teacher)
    return _mean((student - teacher).square().mean(dim=-1), counted)


def similarity_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean over the pairs of an example's positions of `(cos(h_s^i, h_s^j) - cos(h_t^i, h_t^j))^2`, (B,).

    The similarity-preserving loss of Tung and Mori (2019, equation 4, https://arxiv.org/abs/1907.09682), of positions
    as the relations of MiniLMv2 are (Wang et al. 2021, equation 3, https://arxiv.org/abs/2012.15828), where theirs is
    of examples and would change with the batch. Student and teacher may differ in width, and nothing is projected.

    Args:
        student: hidden states, (B, P, D_s), any floating dtype; computed in at least float32.
        teacher: hidden states, (B, P, D_t).
        counted: which positions count, bool (B, P).

    Returns:
        Distances in [0, 4], (B,).
    """
    ours, theirs = (F.normalize(each, dim=-1) for each in _wide(student, teacher))
    distances = (ours @ ours.transpose(1, 2) - theirs @ theirs.transpose(1, 2)).square()
    pairs = counted[:, :, None] & counted[:, None, :]
    return _mean(distances.flatten(1), pairs.flatten(1))


HIDDEN_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cosine": cosine_distance,
    "mse": hidden_mean_squared_error,
    "similarity": similarity_distance,
}


@dataclass
class HiddenDistillation:
    """Distillation of intermediate layers with its settings: `loss = ... + weight * mean over the layers`.

    Args:
        weight: >= 0.
        loss: "cosine", "mse" or "similarity"; the last one takes a student and a teacher of different width.
        layer_map: "auto" or pairs such as "1:2,3:6"; see [`layer_pairs`].

    Example:
        >>> import torch
        >>> student = [torch.randn(2, 5, 8, requires_grad=True) for _ in range(4)]  # embeddings and three layers
        >>> teacher = [torch.randn(2, 5, 16) for _ in range(7)]
        >>> method = HiddenDistillation(weight=10.0, loss="similarity")
        >>> (method.weight * method.losses(student, teacher).mean()).backward()
    """

    weight: float = 1.0
    loss: str = "cosine"
    layer_map: str = AUTO

    def pairs(self, student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
        """Which layers are matched; see [`layer_pairs`]."""
        return layer_pairs(self.layer_map, student_layers, teacher_layers)

    def losses(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor | None], counted: Tensor | None = None
    ) -> Tensor:
        """Each example's distance from its teacher, a mean over the matched layers, (B,), not weighted.

        Args:
            student: hidden states of the embeddings and of every layer, each (B, P, D_s).
            teacher: the same of the teacher, each (B, P, D_t); layers that are not matched may be None.
            counted: which positions count, bool (B, P); default all.

        Raises:
            ValueError: for a layer that is not there, other positions than the teacher's or `counted`'s, and other
                widths but under "similarity".
        """
        distances = []
        for ours, theirs in self.pairs(len(student) - 1, len(teacher) - 1):
            _refuse_other_shapes(self.loss, student[ours], teacher[theirs], counted, f"{ours}:{theirs}")
            mask = _everywhere(student[ours]) if counted is None else counted
            distances.append(HIDDEN_LOSSES[self.loss](student[ours], teacher[theirs], mask))
        return torch.stack(distances).mean(dim=0)


def layer_pairs(layer_map: str, student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Which layer of the student is drawn to which of its teacher.

    Args:
        layer_map: "auto" matches each layer of the student, evenly, the last to the last: layer i to layer
            `i * teacher_layers / student_layers`, half a layer rounded up (Jiao et al. 2020, section 3.1; "PKD-Skip" of
            Sun et al. 2019). Or pairs "student:teacher" between commas; 0 is the embeddings, -1 the last layer.
        student_layers: how many the student has, embeddings not counted.
        teacher_layers: how many its teacher has.

    Raises:
        ValueError: for a layer that is not there.

    Example:
        >>> layer_pairs("auto", 3, 6), layer_pairs("0:0, -1:-1", 3, 6)
        ([(1, 2), (2, 4), (3, 6)], [(0, 0), (3, 6)])
    """
    if layer_map == AUTO:
        half, whole = student_layers, 2 * student_layers
        return [(i, (2 * i * teacher_layers + half) // whole) for i in range(1, student_layers + 1)]
    pairs = []
    for pair in read_layer_map(layer_map):
        for layer, layers, whose in zip(pair, (student_layers, teacher_layers), ("student", "teacher"), strict=True):
            if not -layers - 1 <= layer <= layers:
                way_out = f"the {whose} has no layer {layer}; give one of 0 (embeddings) to {layers}, or {OFF}."
                raise refuse("kd_layer_map", layer_map, way_out)
        pairs.append((pair[0] % (student_layers + 1), pair[1] % (teacher_layers + 1)))
    return pairs


def _wide(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(student.dtype, torch.float32)
    return student.to(wide), teacher.detach().to(wide)


def _everywhere(states: Tensor) -> Tensor:
    return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of each row's values that count."""
    return torch.where(counted, values, 0.0).sum(dim=1) / counted.sum(dim=1).clamp_min(1)


def _refuse_other_shapes(loss: str, student: Tensor, teacher: Tensor, counted: Tensor | None, pair: str) -> None:
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    found = f"hidden states {pair} (student:teacher) have the shapes {ours} and {theirs}"
    if len(ours) != 3 or len(theirs) != 3:
        raise refuse("kd_hidden_loss", loss, f"{found}, and not (examples, positions, width); {OFF}.")
    if ours[:2] != theirs[:2]:
        message = f"{found}: the teacher does not read the student's tokens or patches; give one that does, or {OFF}."
        raise refuse("kd_hidden_loss", loss, message)
    if counted is not None and counted.shape != student.shape[:2]:
        message = (
            f"{found} where the attention mask has {tuple(counted.shape)}: which positions of this layer are padding "
            f"is not known; leave the layer out of kd_layer_map, or {OFF}."
        )
        raise refuse("kd_hidden_loss", loss, message)
    if loss != "similarity" and ours[2] != theirs[2]:
        message = f'{found}: it needs an equal width; set kd_hidden_loss="similarity", which does not, or {OFF}.'
        raise refuse("kd_hidden_loss", loss, message)
