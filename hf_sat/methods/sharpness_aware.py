"""Sharpness-Aware Minimisation: SAM (Foret et al. 2021, https://arxiv.org/abs/2010.01412) and its adaptive form
ASAM (Kwon et al. 2021, https://arxiv.org/abs/2102.11600).

Training follows the gradient at `w + e` (SAM, equation 3), where `e` is the worst step of radius rho, to first order:

    SAM   e = rho * g / |g|           (equation 2, p = 2)
    ASAM  e = rho * T^2 g / |T g|     with T = |w| + eta for weights and 1 for biases, so that e follows the scale of w

The norm is one over all parameters. Nothing here waits for the device, gradients are read and left as they are, and
weights come back by copy, as `w + e - e` is not `w`. Parameters are (name, parameter) pairs, of any shapes, as
`named_parameters()` gives them; a bias is one whose name ends in "bias". Those that do not train or have no gradient
are left alone.
"""

import contextlib
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..config.checks import is_a, one_of, refuse
from ..rng import preserved_rng, rng_state
from . import ascent

NamedParameters = Iterable[tuple[str, nn.Parameter]]
VARIANTS = ("sam", "asam")


@dataclass
class Perturbation:
    """What [`perturb`] did, and the way back.

    Args:
        norm: |g| or |T g|, a float32 scalar on the device of the first parameter.
        copies: the perturbed weights beside exact copies of what they were.
        rows: weights under a sparse gradient, of which the rows that have one were taken out and perturbed.
        swapped: parameters that hold other tensors for the while, beside their own.
    """

    norm: Tensor
    copies: ascent.Copies = field(repr=False)
    rows: ascent.Rows = field(repr=False)
    swapped: ascent.Swapped = field(default_factory=list, repr=False)

    def restore(self, spare: list[Tensor] | None = None) -> None:
        """Make the weights what they were, bit for bit, and free the copies; a second call does nothing.

        Args:
            spare: where given, it gets what swapped parameters held meanwhile, whose memory then stays in use.
        """
        between = ascent.swap_back(self.swapped)
        if spare is not None:
            spare += between
        ascent.copy_back(self.copies)
        ascent.put_rows(self.rows)
        self.copies, self.rows, self.swapped = [], [], []


@dataclass
class SharpnessAware:
    """SAM or ASAM with its settings.

    Args:
        variant: "sam" or "asam".
        rho: radius of the perturbation, >= 0. For training from scratch SAM's authors use 0.05, ASAM's 0.5.
        eta: what ASAM adds to |w|, >= 0; the authors' is 0.01.

    Raises:
        ValueError: for a value outside the above; the message names setting, value and the way out.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> (weight @ torch.tensor([3.0, 4.0])).backward()
        >>> perturbation = SharpnessAware(rho=0.5).perturb([("weight", weight)])
        >>> weight.data, perturbation.norm
        (tensor([1.3000, 1.4000]), tensor(5.))
        >>> perturbation.restore()
        >>> weight.data
        tensor([1., 1.])
    """

    variant: str = "sam"
    rho: float = 0.05
    eta: float = 0.01

    def __post_init__(self):
        _check(self.variant, self.rho, self.eta)

    def perturb(
        self, named_parameters: NamedParameters, norm: Tensor | None = None, spend_gradients: bool = False
    ) -> Perturbation:
        """[`perturb`] with these settings."""
        return perturb(named_parameters, self.variant, self.rho, self.eta, norm, spend_gradients)


@torch.no_grad()
def perturbation_norm(named_parameters: NamedParameters, variant: str = "sam", eta: float = 0.01) -> Tensor:
    """|g| (SAM) or |T g| (ASAM) over all parameters, and over all shards of distributed ones.

    Returns:
        A scalar on the device of the first parameter, measured in float32; 0 where there is no gradient.

    Raises:
        ValueError: as in [`SharpnessAware`].
    """
    _check(variant, 0.0, eta)
    return ascent.norm(_parts(named_parameters, variant), eta)


@torch.no_grad()
def perturb(
    named_parameters: NamedParameters,
    variant: str = "sam",
    rho: float = 0.05,
    eta: float = 0.01,
    norm: Tensor | None = None,
    spend_gradients: bool = False,
) -> Perturbation:
    """Add the perturbation e to the weights, from the gradients in `.grad`, which may carry any loss scale.

    In place; but on CPU parameters whose memory is theirs alone are let hold another tensor until they are restored. A
    norm that is 0 or not finite perturbs nothing, decided on the device; nor does rho 0. The copies take the memory
    of the weights that have a gradient; beside them about 1/64 of it is used, and freed.

    Args:
        norm: [`perturbation_norm`] where it is known already. Default: it is measured.
        spend_gradients: give up gradients for their memory, where it saves time, on CPU: the perturbed weights are made
            in it, and `.grad` is then `None`. For those who drop the gradients next.

    Returns:
        The [`Perturbation`], to be restored once the gradient at the perturbed weights has been taken.

    Raises:
        ValueError: as in [`SharpnessAware`].
    """
    _check(variant, rho, eta)
    parts = _parts(named_parameters, variant)
    if norm is None:
        norm = ascent.norm(parts, eta)
    scale = rho / norm.float()
    # One condition for all cases: a norm of 0 or NaN gives inf or NaN, an infinite norm and rho 0 give 0.
    skip = ~(scale.isfinite() & (scale > 0))
    # On CPU the host need not wait to know that nothing is to be done.
    swaps, parts = ascent.swappable(parts) if scale.device.type == "cpu" else ([], parts)
    swaps = swaps if swaps and not skip else []
    copies = ascent.copies_of([part.values for part in parts])
    perturbation = Perturbation(norm, copies, ascent.copied_rows(parts))
    try:
        ascent.ascend(parts, scale, skip, eta)
        if swaps:
            perturbation.swapped = ascent.swap_for_ascended(swaps, scale.item(), eta, spend_gradients)
    except BaseException:
        perturbation.restore()
        raise
    return perturbation


def sam_gradient(
    named_parameters: NamedParameters,
    closure: Callable[[], Tensor],
    method: SharpnessAware,
    model: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Leave the SAM gradient in `.grad`, with the weights as they were; then clip and step as ever.

    Args:
        closure: computes the loss, calls `backward()` and returns the loss, a scalar. It runs twice on the same random
            states, so with the same dropout. An autocast block belongs inside it, as it keeps casts of the weights.
        model: where given, its BatchNorm statistics move in the first pass only.

    Returns:
        The losses at the weights and at the perturbed weights, detached.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 2)
        >>> inputs, labels = torch.ones(3, 4), torch.tensor([0, 1, 1])
        >>> def closure():
        ...     loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        ...     loss.backward()
        ...     return loss
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> loss, perturbed_loss = sam_gradient(model.named_parameters(), closure, SharpnessAware(rho=0.05))
        >>> optimizer.step()
        >>> bool(perturbed_loss > loss)
        True
    """
    named = list(named_parameters)
    state = rng_state()
    _drop_gradients(named)
    loss = closure().detach()
    perturbation = method.perturb(named, spend_gradients=True)
    _drop_gradients(named)
    statistics = contextlib.nullcontext() if model is None else frozen_batch_norm_statistics(model)
    try:
        with preserved_rng(state), statistics:
            return loss, closure().detach()
    finally:
        perturbation.restore()


@contextlib.contextmanager
def frozen_batch_norm_statistics(model: nn.Module) -> Iterator[None]:
    """Within, passes normalise as ever; at the end running statistics and their counters are as before, bit for bit.

    The buffers are copied back and no mode is switched, so that contexts nest, and what `DistributedDataParallel`
    broadcasts into the buffers at a forward pass is undone as well.
    """
    tracking = [module for module in model.modules() if hasattr(module, "track_running_stats")]
    found = [(module, *named) for module in tracking for named in module.named_buffers(recurse=False)]
    # `.data`: autograd would take the copy for a change, where a backward pass is still to come.
    copies = ascent.copies_of([buffer.data for _, _, buffer in found])
    try:
        yield
    finally:
        for module, name, buffer in found:
            setattr(module, name, buffer)
        ascent.copy_back(copies)


def _check(variant: str, rho: float, eta: float) -> None:
    one_of("sam", variant, VARIANTS)
    for setting, value in (("sam_rho", rho), ("eta", eta)):
        if not (is_a(value, numbers.Real) and 0.0 <= value < math.inf):
            raise refuse(setting, value, "give a finite number >= 0.")


def _parts(named_parameters: NamedParameters, variant: str) -> list[ascent.Part]:
    names = {}  # a tied parameter may come under several
    for name, parameter in named_parameters:
        if parameter.requires_grad and parameter.grad is not None:
            names.setdefault(parameter, name)
    adaptive = variant == "asam"
    return [ascent.Part.of(it, adaptive and not name.endswith("bias")) for it, name in names.items()]


def _drop_gradients(named: list[tuple[str, nn.Parameter]]) -> None:
    for _, parameter in named:
        parameter.grad = None
