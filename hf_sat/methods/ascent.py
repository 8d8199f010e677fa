"""A step uphill along the gradients, its norm, and copies to come back: what [`hf_sat.methods.sharpness_aware`] does.

All of it stays on the device, in kernels that take many tensors at once. g is a gradient; T is |w| + eta for adaptive
parameters and 1 for the others.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Tensors beside exact copies of them, in groups alike in device and dtype.
Copies = list[tuple[list[Tensor], list[Tensor]]]
# A weight, which rows, and what belongs there.
Rows = list[tuple[Tensor, tuple[Tensor, ...], Tensor]]

# What T g may take at a time: a share of the weights in bytes, or what is too little to matter. Two are alive at most.
SCRATCH_SHARE, LEAST_SCRATCH = 1 / 128, 2**15
# The fused kernel of SGD as a sum, `values + lr * steps`.
SUM = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": True}


@dataclass
class Part:
    """The entries of a parameter, or of its local shard, that have a gradient.

    `values` is the weight itself; under a sparse gradient it is a copy of its rows, which belong at `index`. `shards`
    are the mesh and the placements of a distributed parameter.
    """

    weight: Tensor
    values: Tensor
    gradient: Tensor
    adaptive: bool
    index: tuple[Tensor, ...] | None = None
    shards: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, parameter: nn.Parameter, adaptive: bool) -> "Part":
        weight, gradient = parameter.detach(), parameter.grad.detach()
        if hasattr(weight, "placements"):  # a DTensor, of FSDP2 or of tensor parallelism
            gradient = gradient.redistribute(placements=weight.placements).to_local()
            local = weight.to_local()
            return cls(local, local, gradient, adaptive, shards=(weight.device_mesh, weight.placements))
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            index = tuple(gradient.indices())
            return cls(weight, weight[index], gradient.values(), adaptive, index=index)
        return cls(weight, weight, gradient, adaptive)

    def cuts(self, room: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Values and gradient, some rows at a time: about `room` entries."""
        values, gradient = torch.atleast_1d(self.values, self.gradient)
        rows = max(1, room * len(values) // max(1, values.numel()))
        return zip(values.split(rows), gradient.split(rows))


def copies_of(tensors: Iterable[Tensor], memory: Iterable[Tensor] = ()) -> Copies:
    """Exact copies, in the memory of other tensors where some fit."""
    unused, groups = defaultdict(list), defaultdict(list)
    for tensor in memory:
        unused[_layout(tensor)].append(tensor)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    copies = [
        (group, [(unused[_layout(tensor)] or [torch.empty_like(tensor)]).pop() for tensor in group])
        for group in groups.values()
    ]
    for found, copied in copies:
        torch._foreach_copy_(copied, found)
    return copies


@torch.no_grad()
def copy_back(copies: Copies) -> None:
    """The tensors become what they were."""
    for found, copied in copies:
        torch._foreach_copy_(found, copied)


def copied_rows(parts: list[Part]) -> Rows:
    """Where values are copies."""
    return [(part.weight, part.index, part.values) for part in parts if part.index is not None]


@torch.no_grad()
def put_rows(rows: Rows) -> None:
    """Copied rows go where they belong."""
    for weight, index, values in rows:
        weight[index] = values


def norm(parts: list[Part], eta: float) -> Tensor:
    """|T g| over all parts and shards, a float32 scalar on the device of the first."""
    groups = defaultdict(list)
    for part in parts:
        groups[part.shards].append(part)
    norms = [_over_shards(_local_norm(members, eta), shards) for shards, members in groups.items()]
    return _total(norms) if norms else torch.zeros(())


def ascend(parts: list[Part], scale: Tensor, skip: Tensor, eta: float) -> None:
    """`w <- w + scale * T^2 g`, unless `skip`, which may lie on the device: then neither inf nor NaN gets through."""
    for values, gradients, adaptive in _pieces(parts):
        there = values[0].device
        # T^2 g gets no name, under which it would live on while the next is made.
        _add(values, _scaled(values, gradients, eta, 2) if adaptive else gradients, scale.to(there), skip.to(there))
    put_rows(copied_rows(parts))


def _local_norm(parts: list[Part], eta: float) -> Tensor:
    norms = []
    for values, gradients, adaptive in _pieces(parts):
        scaled = _scaled(values, gradients, eta, 1) if adaptive else gradients
        norms += torch._foreach_norm(scaled, 2, dtype=_wide(scaled[0]))
    return _total(norms)


def _total(norms: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms]))


def _over_shards(norm: Tensor, shards: tuple[Any, Any] | None) -> Tensor:
    if shards is None:
        return norm
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = shards
    sums = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    squares = DTensor.from_local(norm.double().square(), mesh, sums, run_check=False)
    return squares.full_tensor().sqrt().float()


def _pieces(parts: list[Part]) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], bool]]:
    """Values and gradients alike in all respects, and whether they are adaptive; these come few at a time.

    Even the others are cut by rows: on CPU a single float32 norm of 3e7 entries is off by 1e-3.
    """
    scratch = max(LEAST_SCRATCH, int(SCRATCH_SHARE * sum(part.values.nbytes for part in parts)))
    groups = defaultdict(list)
    for part in parts:
        groups[part.values.device, part.values.dtype, part.gradient.dtype, part.adaptive].append(part)
    for (_, dtype, _, adaptive), members in groups.items():
        room = scratch // (dtype.itemsize if dtype.itemsize >= 4 else 12)  # half precision takes three float32 tensors
        cuts = [cut for part in members for cut in part.cuts(room)]
        ends = itertools.accumulate(values.numel() for values, _ in cuts)
        batches = [end // room if adaptive else 0 for end in ends]
        for _, batch in itertools.groupby(zip(batches, cuts), key=lambda numbered: numbered[0]):
            values, gradients = zip(*(cut for _, cut in batch))
            yield values, gradients, adaptive


def _scaled(values: Sequence[Tensor], gradients: Sequence[Tensor], eta: float, power: int) -> Sequence[Tensor]:
    """`T^power g`, in at least float32."""
    scales = torch._foreach_abs([value.to(_wide(value)) for value in values])
    torch._foreach_add_(scales, eta)
    if power == 2:
        torch._foreach_mul_(scales, scales)
    torch._foreach_mul_(scales, gradients)
    return scales


def _add(values: Sequence[Tensor], steps: Sequence[Tensor], scale: Tensor, skip: Tensor) -> None:
    if all(map(_fits_fused_kernel, values, steps)):
        # 0 * inf is not 0: a sum would take one pass more to keep inf out. This kernel is a sum behind a flag.
        torch._fused_sgd_(values, steps, [], lr=scale, is_first_step=False, found_inf=skip.float(), **SUM)
        return
    for value, step in zip(values, steps):
        value.copy_(torch.where(skip, value, value + step.to(_wide(step)) * scale))


def _fits_fused_kernel(value: Tensor, step: Tensor) -> bool:
    # On CPU it passes over most of a half-precision tensor (https://github.com/pytorch/pytorch/issues/191763).
    known = value.is_cuda or (value.is_cpu and value.dtype in (torch.float32, torch.float64))
    alike = value.dtype == step.dtype and value.stride() == step.stride()
    return known and alike and torch.ops.aten.is_non_overlapping_and_dense(value)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
