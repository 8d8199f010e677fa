"""A step uphill along the gradients, its norm, and copies to come back: what [`hf_sat.methods.sharpness_aware`] does.

All of it stays on the device, in kernels that take many tensors at once. g is a gradient; T is |w| + eta for adaptive
parameters and 1 for the others.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Tensors beside exact copies of them, in groups alike in device and dtype.
Copies = list[tuple[list[Tensor], list[Tensor]]]
# A weight, which rows, and what belongs there.
Rows = list[tuple[Tensor, tuple[Tensor, ...], Tensor]]

# Parameters beside what they held before their data were swapped.
Swapped = list[tuple[nn.Parameter, Tensor]]

# What T g may take at a time: a share of the weights in bytes, or what is too little to matter.
SCRATCH_SHARE, LEAST_SCRATCH = 1 / 80, 2**16
# Entries that a float32 norm on CPU takes at a time: of 3e7 at once it is off by 2e-3, so by about 1e-8.
LARGEST_SUM = 2**14
# The fused kernel of SGD as a sum, `values + lr * steps`.
SUM = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": True}


@dataclass
class Part:
    """The entries of a parameter, or of its local shard, that have a gradient.

    `values` is the weight itself; under a sparse gradient it is a copy of its rows, which belong at `index`. `shards`
    are the mesh and the placements of a distributed parameter.
    """

    parameter: nn.Parameter
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
            return cls(parameter, local, local, gradient, adaptive, shards=(weight.device_mesh, weight.placements))
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            index = tuple(gradient.indices())
            return cls(parameter, weight, weight[index], gradient.values(), adaptive, index=index)
        return cls(parameter, weight, weight, gradient, adaptive)

    def cuts(self, room: float, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """Values, gradient and others of their shape, some rows at a time: about `room` entries."""
        tensors = (self.values, self.gradient, *others)
        if self.values.numel() <= room:
            return [tensors]
        tensors = torch.atleast_1d(*tensors)
        rows = max(1, room * len(tensors[0]) // max(1, tensors[0].numel()))
        return zip(*(tensor.split(rows) for tensor in tensors))


def copies_of(tensors: Iterable[Tensor]) -> Copies:
    """Exact copies."""
    groups = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    copies = [(group, list(map(torch.empty_like, group))) for group in groups.values()]
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


def swappable(parts: list[Part]) -> tuple[list[Part], list[Part]]:
    """Parts on CPU whose weights can be exchanged for others, as nothing else reads their memory; and the rest."""
    owners, groups = _owners(part.weight for part in parts), ([], [])
    for part in parts:
        groups[not (_owns_weight(part) and owners[_memory(part.weight)] == 1)].append(part)
    return groups


def swap_for_ascended(parts: list[Part], scale: float, eta: float, spend_gradients: bool) -> Swapped:
    """Let the parameters hold `w + scale * T^2 g`, which on CPU is what a perturbation costs.

    Args:
        spend_gradients: make it in the memory of the gradients where they fit, and leave no gradient there. No other
            way moves as little memory, and fresh memory costs most.

    Returns:
        The parameters, beside what they held.
    """
    owners, room = _owners(part.gradient for part in parts), _room(parts)
    spent = [spend_gradients and _owns_gradient(part) and owners[_memory(part.gradient)] == 1 for part in parts]
    ascended = [part.gradient if spend else torch.empty_like(part.weight) for part, spend in zip(parts, spent)]
    # Backwards: the norm has just read the last gradients, and the next pass begins with the first weights.
    for part, new in reversed(list(zip(parts, ascended))):
        if not part.adaptive:
            torch.add(part.values, part.gradient, alpha=scale, out=new)
            continue
        for values, gradient, rows in part.cuts(room, new):
            scales = values.abs().add_(eta)
            torch.addcmul(values, scales.mul_(scales), gradient, value=scale, out=rows)
            del scales  # before the next are made
    swapped = [(part.parameter, part.parameter.data) for part in parts]
    for part, new, spend in zip(parts, ascended, spent):
        part.parameter.data = new
        if spend:
            part.parameter.grad = None
    return swapped


def swap_back(swapped: Swapped) -> list[Tensor]:
    """The parameters hold what they did; returns what they held meanwhile."""
    between = [parameter.data for parameter, _ in swapped]
    for parameter, data in swapped:
        parameter.data = data
    return between


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _owners(tensors: Iterable[Tensor]) -> Counter:
    """How many tensors lie in each piece of memory."""
    return Counter(map(_memory, tensors))


def _owns_weight(part: Part) -> bool:
    weight = part.weight
    return (
        part.index is None
        and part.shards is None
        and type(part.parameter.data) is Tensor
        and weight.device.type == "cpu"
        and weight.dtype == part.gradient.dtype
        and weight.dtype in (torch.float32, torch.float64)  # the sum is rounded once
        and weight.untyped_storage().nbytes() == weight.nbytes
    )


def _owns_gradient(part: Part) -> bool:
    """Whether a swappable weight's gradient can become the weight: not so where it is a view of a bucket, say."""
    gradient = part.gradient
    alike = type(part.parameter.grad) is Tensor and _layout(gradient) == _layout(part.weight)
    return alike and gradient.untyped_storage().nbytes() == gradient.nbytes


def _local_norm(parts: list[Part], eta: float) -> Tensor:
    norms = []
    for values, gradients, adaptive in _pieces(parts):
        norms += _norms(_scaled(values, gradients, eta, 1) if adaptive else gradients)
    return _total(norms)


def _norms(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Norms of the tensors, or of pieces of them, in at least float32; all are alike in device and dtype."""
    dtype = _wide(tensors[0])
    if tensors[0].device.type != "cpu":
        return torch._foreach_norm(tensors, 2, dtype=dtype)
    small = [tensor for tensor in tensors if tensor.numel() <= LARGEST_SUM]
    large = [tensor for tensor in tensors if tensor.numel() > LARGEST_SUM]
    norms = [norm for tensor in large for norm in _norms_of_rows(tensor.reshape(-1), dtype)]
    return [*torch._foreach_norm(small, 2, dtype=dtype), *norms] if small else norms


def _norms_of_rows(entries: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Norms of LARGEST_SUM entries each, in one call, and of the rest."""
    end = len(entries) // LARGEST_SUM * LARGEST_SUM
    yield torch.linalg.vector_norm(entries[:end].view(-1, LARGEST_SUM), dim=1, dtype=dtype)
    if end < len(entries):
        yield torch.linalg.vector_norm(entries[end:], dtype=dtype)


def _total(norms: list[Tensor]) -> Tensor:
    norms = [norm.to(norms[0].device, torch.float32).reshape(-1) for norm in norms]
    return torch.linalg.vector_norm(torch.cat(norms))


def _over_shards(norm: Tensor, shards: tuple[Any, Any] | None) -> Tensor:
    if shards is None:
        return norm
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = shards
    sums = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    squares = DTensor.from_local(norm.double().square(), mesh, sums, run_check=False)
    return squares.full_tensor().sqrt().float()


def _pieces(parts: list[Part]) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], bool]]:
    """Values and gradients alike in all respects, and whether they are adaptive; these come few at a time."""
    room, groups = _room(parts), defaultdict(list)
    for part in parts:
        groups[part.values.device, part.values.dtype, part.gradient.dtype, part.adaptive].append(part)
    for (device, dtype, _, adaptive), members in groups.items():
        if not adaptive:  # without copies, but for half precision
            cuts = [cut for part in members for cut in part.cuts(room if dtype.itemsize < 4 else math.inf)]
            yield *zip(*cuts), False
            continue
        # On CPU a kernel takes one tensor anyway, and larger ones faster; elsewhere a batch may end beyond its size.
        largest = room if device.type == "cpu" else max(1, room // 2)
        cuts = [cut for part in members for cut in part.cuts(largest)]
        for batch in [[cut] for cut in cuts] if device.type == "cpu" else _batches(cuts, largest):
            yield *zip(*batch), True


def _batches(cuts: list[tuple[Tensor, ...]], size: int) -> Iterator[list[tuple[Tensor, ...]]]:
    """As many cuts at a time as `size` entries take, and what the last has beyond it."""
    ends = itertools.accumulate(values.numel() for values, _ in cuts)
    batches = [end // size for end in ends]
    for _, batch in itertools.groupby(zip(batches, cuts), key=lambda numbered: numbered[0]):
        yield [cut for _, cut in batch]


def _room(parts: list[Part]) -> int:
    """Entries of T g at a time."""
    scratch = max(LEAST_SCRATCH, int(SCRATCH_SHARE * sum(part.values.nbytes for part in parts)))
    size = max((part.values.itemsize if part.values.itemsize >= 4 else 12 for part in parts), default=4)
    return scratch // size  # half precision takes three float32 tensors


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
    return tensor.dtype, tensor.shape, tensor.stride()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
