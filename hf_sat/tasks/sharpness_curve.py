"""How steeply the loss rises around a trained model: `hf-sat sharpness MODEL`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig

from ..config import SATConfig, refuse
from ..config.sharpness import DEFAULT_RHO
from ..methods.sharpness_aware import SharpnessAware
from .machine import require, use_all_cores
from .options import OptionParser
from .run import batches_of
from .text import OFFLINE, TextOptions, text_task


@dataclass
class CurveOptions:
    """What is drawn.

    Args:
        variant: direction of the perturbation, SAM's or ASAM's.
        radius: largest distance from the weights; default twice the radius that training uses.
        points: distances at which the loss is measured, the first being 0.
        samples: training examples over which gradient and loss are taken.
        out: image file.
    """

    HELP_GROUP = "the curve"  # of `--help`

    variant: Literal["sam", "asam"] = field(default="sam", metadata={"help": "Direction: sam or asam."})
    radius: float | None = field(default=None, metadata={"help": "Largest distance; default twice that of training."})
    points: int = field(default=11, metadata={"help": "Distances at which the loss is measured."})
    samples: int = field(default=256, metadata={"help": "Training examples to take gradient and loss over."})
    out: str = field(default="sharpness.png", metadata={"help": "Image file to write."})

    def __post_init__(self):
        for setting, least in {"points": 2, "samples": 1}.items():
            if getattr(self, setting) < least:
                raise refuse(setting, getattr(self, setting), f"give a whole number >= {least}.")
        if self.radius is not None and not self.radius > 0:
            raise refuse("radius", self.radius, "give a distance above 0.")


def loss_along_perturbation(
    model: nn.Module, loss: Callable[[], torch.Tensor], radii: Sequence[float], variant: str = "sam"
) -> list[float]:
    """The loss at `w + r * e` for each radius r, where `e` is the direction in which the gradient at `w` rises most.

    Args:
        model: left as it was, bit for bit, its gradients empty.
        loss: computes the loss of the model as it is, calling backward if gradients are on.
        radii: distances, >= 0.
        variant: "sam" or "asam".

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> def loss():
        ...     value = (model.weight**2).sum()
        ...     value.backward() if torch.is_grad_enabled() else None
        ...     return value.detach()
        >>> loss_along_perturbation(model, loss, [0.0, 1.0])
        [1.0, 4.0]
    """
    model.zero_grad()
    loss()
    losses = []
    for radius in radii:
        perturbation = SharpnessAware(variant, radius).perturb(model.named_parameters())
        with torch.no_grad():
            losses.append(float(loss()))
        perturbation.restore()
    model.zero_grad()
    return losses


def mean_loss(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> Callable[[], torch.Tensor]:
    """Cross-entropy over all batches, its gradient added up batch by batch."""
    batches = list(batches)
    count = sum(len(batch["labels"]) for batch in batches)

    def loss() -> torch.Tensor:
        total = 0.0
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            part = F.cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum") / count
            if torch.is_grad_enabled():
                part.backward()
            total = total + part.detach()
        return total

    return loss


def sharpness_command(argv: Sequence[str]) -> None:
    """`hf-sat sharpness MODEL [flags]`: prints the loss at each distance and draws it."""
    if not {"-h", "--help", "--help_all"}.isdisjoint(argv):
        argv = ["MODEL", *argv]
    if not argv or argv[0].startswith("-"):
        raise ValueError("hf-sat sharpness needs a model first: hf-sat sharpness runs/finetune_bert_sat")
    model_name, *flags = argv
    parser = OptionParser([CurveOptions, TextOptions, SATConfig], prog="hf-sat sharpness MODEL")
    curve, options, args = parser.read(["--model_name_or_path", model_name, *flags], {**OFFLINE, "noise_rate": 0.0})
    require("matplotlib", extra="plots")
    use_all_cores()
    task = text_task(options, args)
    _check_classes(model_name, task.train.features["labels"].names)
    model = task.make_model().to(args.device).eval()
    rows = task.train.shuffle(seed=args.seed).select(range(min(curve.samples, len(task.train))))
    batches = batches_of(task, rows, args)
    radius = curve.radius or 2 * DEFAULT_RHO[curve.variant]
    radii = torch.linspace(0, radius, curve.points).tolist()
    losses = loss_along_perturbation(model, mean_loss(model, batches), radii, curve.variant)
    for distance, value in zip(radii, losses):
        print(f"{distance:.4f}  {value:.4f}")
    draw(radii, losses, curve, f"{model_name}, {len(rows)} training examples")
    print(f"sharpness at {radius:g}: {losses[-1] - losses[0]:.4f}; drawn in {curve.out}")


def _check_classes(model_name: str, names: list[str]) -> None:
    config = AutoConfig.from_pretrained(model_name)
    known = [config.id2label[i] for i in range(config.num_labels)]
    if known != names:
        raise ValueError(
            f"model {model_name} has the classes {known} and the data {names}: give the data it was trained on "
            "(--train_file or --dataset_name, --label_column)."
        )


def draw(radii: Sequence[float], losses: Sequence[float], curve: CurveOptions, title: str) -> None:
    """The curve as an image file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    axis.plot(radii, losses, "o-")
    axis.set(xlabel=f"distance from the weights ({curve.variant.upper()})", ylabel="loss", title=title)
    axis.grid(alpha=0.3)
    figure.savefig(curve.out, dpi=130)
    pyplot.close(figure)
