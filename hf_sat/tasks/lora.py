"""Low-rank adapters (LoRA) on any task's model: what is adapted, what is trained beside it, and the merged model."""

import contextlib
import difflib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..config import refuse
from ..quiet import no_weight_bars
from .machine import require
from .run import Task
from .run_options import refuse_below

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

MERGED_FOLDER = "merged"
# Adapters start at nothing and are few: they want a larger learning rate than all weights. Of 1e-3, 2e-3 and 5e-3 the
# best for both Trainers, with the noise of seed 1, which is not the default.
LORA_OFFLINE = {"output_dir": "runs/finetune_lora_sat", "learning_rate": 1e-3}
LORA_OWN_DATA = {"output_dir": "runs/finetune_lora_sat", "learning_rate": 5e-4}
# What heads are called, where a model does not say which part of it is its body.
HEADS = ("classifier", "pre_classifier", "score", "classification_head", "head", "fc")
ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, Conv1D)


@dataclass
class LoraOptions:
    """Adapters in place of training all weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    Args:
        lora: train adapters, and the head of the task; all else stays as it is. Label correction, SAM and distillation
            then work on these weights alone.
        lora_r: rank of an adapter, >= 1.
        lora_alpha: its scale, divided by `lora_r`; > 0.
        lora_dropout: share of an adapter's inputs dropped, in [0, 1).
        lora_target_modules: names of the layers that get one, or endings of them; default all linear layers outside
            the head.
        lora_modules_to_save: names of parts that are trained whole, besides the head.
        lora_dora: split each weight into magnitude and direction (DoRA, https://arxiv.org/abs/2402.09353).
        lora_rslora: divide the scale by the root of `lora_r` instead (https://arxiv.org/abs/2312.03732).
        lora_bits: hold the weights under the adapters in 4 or 8 bits; needs bitsandbytes.
        lora_merge: leave a plain model too, the adapters added to its weights, in `merged` below the run's folder.

    Raises:
        ValueError: for numbers out of their range, and for any of these settings where `lora` is off.
    """

    HELP_GROUP = "LoRA, with --lora true"  # of `--help`

    lora: bool = field(default=False, metadata={"help": "Train low-rank adapters and the head, not all weights."})
    lora_r: int = field(default=8, metadata={"help": "Rank of an adapter."})
    lora_alpha: float = field(default=16.0, metadata={"help": "Its scale, divided by the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Share of an adapter's inputs dropped."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers to adapt, by name. Default: all linear ones outside the head."}
    )
    lora_modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Parts to train whole, besides the head."}
    )
    lora_dora: bool = field(default=False, metadata={"help": "Adapt magnitude and direction of a weight apart: DoRA."})
    lora_rslora: bool = field(default=False, metadata={"help": "Divide the scale by the root of the rank: rsLoRA."})
    lora_bits: Literal["none", "4", "8"] = field(
        default="none", metadata={"help": "Precision of the weights under the adapters; needs bitsandbytes."}
    )
    lora_merge: bool = field(default=True, metadata={"help": "Leave a plain model with the adapters merged in, too."})

    def __post_init__(self):
        self.lora_bits = str(self.lora_bits or "none")
        if not self.lora:
            self._refuse_all()
        refuse_below(self, {"lora_r": 1})
        if not self.lora_alpha > 0:
            raise refuse("lora_alpha", self.lora_alpha, "give a number > 0.")
        if not 0 <= self.lora_dropout < 1:
            raise refuse("lora_dropout", self.lora_dropout, "give a share in [0, 1).")
        if self.lora_bits not in ("none", "4", "8"):
            raise refuse("lora_bits", self.lora_bits, 'choose "4", "8" or "none".')

    def _refuse_all(self) -> None:
        """Without adapters none of their settings does anything."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value != setting.default:
                raise refuse(setting.name, value, "there are no adapters; add lora=True, or leave it out.")


def with_adapters(task: Task, options: LoraOptions, says: bool = True) -> Task:
    """The task with adapters on its model, and their merging after the run.

    Args:
        task: its `make_model` gives the model to adapt; for `lora_bits` it takes arguments of `from_pretrained`.
        says: print which share of the weights is trained.

    Raises:
        ModuleNotFoundError: without peft, or bitsandbytes where `lora_bits` needs it.
        ValueError: for layers that the model does not have.
    """
    require("peft", extra="lora")
    make_base = _quantised(task.make_model, options)
    make_model = partial(_adapted, make_base, options)
    with no_weight_bars():
        share = trained_share(make_model())
    if says:
        print(share, flush=True)
    export = partial(_save_merged, task.make_model, task.processing_class) if options.lora_merge else None
    return replace(task, make_model=make_model, export=export)


def head_modules(model: nn.Module) -> list[str]:
    """The parts of a model with weights that are not its body: those that are new to each task.

    Raises:
        ValueError: where neither the model says what its body is, nor a part has a usual name.
    """
    parts = [name for name, part in model.named_children() if any(True for _ in part.parameters())]
    body = getattr(model, "base_model_prefix", None)
    heads = [name for name in parts if name != body] if body in parts else [name for name in parts if name in HEADS]
    if not heads:
        raise ValueError(
            f"lora=True: {type(model).__name__} has the parts {parts}, and none of them is known as its head; rename "
            f"it to one of {list(HEADS)}."
        )
    return heads


def target_modules(model: nn.Module, heads: list[str], wanted: list[str] | None) -> list[str]:
    """The layers to adapt: those wanted, else the linear ones outside the heads, by the last part of their names.

    Raises:
        ValueError: for names that no layer has, with those that come near; or where there are no linear layers.
    """
    layers = {
        name: type(module)
        for name, module in model.named_modules()
        if isinstance(module, ADAPTABLE) and name.split(".")[0] not in heads
    }
    endings = sorted({name.rsplit(".", 1)[-1] for name in layers})
    for name in wanted or ():
        if not _is_among(name, layers):
            near = difflib.get_close_matches(name, [*endings, *layers], n=3)
            hint = f"did you mean one of {near}?" if near else f"there are {endings}."
            raise refuse("lora_target_modules", name, f"no layer outside the head is called so; {hint}")
    linear = {name.rsplit(".", 1)[-1] for name, kind in layers.items() if issubclass(kind, (nn.Linear, Conv1D))}
    if not (wanted or linear):
        raise refuse("lora_target_modules", None, f"the model has no linear layers; name some of {endings}.")
    return list(wanted or sorted(linear))


def _is_among(name: str, modules: Iterable[str]) -> bool:
    """Whether one of the modules has that name, or ends in it, as peft compares them."""
    return any(module == name or module.endswith(f".{name}") for module in modules)


def trained_share(model: "PeftModel") -> str:
    """How many of the weights are trained, in a line; weights in 4 bits are counted as such, not as they are packed."""
    trained, total = model.get_nb_trainable_parameters()
    return f"LoRA: {trained:,} of {total:,} weights ({100 * trained / total:.2f} %) are trained."


def lora_config(base: nn.Module, options: LoraOptions) -> "LoraConfig":
    """The options in peft's terms, for this model.

    Raises:
        ValueError: see [`head_modules`] and [`target_modules`].
    """
    from peft import LoraConfig

    heads = head_modules(base)
    names = [name for name, _ in base.named_modules() if name]
    for name in options.lora_modules_to_save or ():
        if not _is_among(name, names):
            endings = sorted({name.rsplit(".", 1)[-1] for name in names} - {str(i) for i in range(1000)})
            near = difflib.get_close_matches(name, endings, n=3) or endings
            raise refuse("lora_modules_to_save", name, f"the model has no such part; name some of {near}.")
    kind = type(base).__name__
    kinds = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}
    return LoraConfig(
        task_type=next((task for ending, task in kinds.items() if kind.endswith(ending)), None),
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=target_modules(base, heads, options.lora_target_modules),
        # The head is trained whole: an adapter inside it would be one of weights that are new themselves.
        exclude_modules=rf"({'|'.join(heads)})(\..*)?",
        modules_to_save=[*heads, *(options.lora_modules_to_save or ())],
        use_dora=options.lora_dora,
        use_rslora=options.lora_rslora,
    )


def _adapted(make_base: Callable[[], nn.Module], options: LoraOptions) -> "PeftModel":
    """A model under new adapters, the same at each call."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    base = make_base()
    config = lora_config(base, options)
    if options.lora_bits != "none":
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    with _without_deprecations():
        return get_peft_model(base, config)


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """What peft asks of transformers is no matter of the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _quantised(make_model: Callable[..., nn.Module], options: LoraOptions) -> Callable[[], nn.Module]:
    if options.lora_bits == "none":
        return make_model
    require("bitsandbytes", extra="bits")
    takes = inspect.signature(make_model).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes):
        raise refuse("lora_bits", options.lora_bits, "this model is not loaded from a checkpoint; leave it out.")
    from transformers import BitsAndBytesConfig

    whole = [*HEADS, *(options.lora_modules_to_save or ())]
    settings: dict[str, Any] = {f"load_in_{options.lora_bits}bit": True, "llm_int8_skip_modules": whole}
    return partial(make_model, quantization_config=BitsAndBytesConfig(**settings))


def _save_merged(make_base: Callable[[], nn.Module], processing: Any, folder: str) -> str:
    """Merge the adapters saved in a folder into the model as it was, in full precision; returns the folder below.

    Read from the folder rather than taken from the Trainer, whose model stays as it is.
    """
    from peft import PeftModel

    with _without_deprecations():
        merged = PeftModel.from_pretrained(make_base(), folder).merge_and_unload()
    below = os.path.join(folder, MERGED_FOLDER)
    for part in (merged, processing):
        if part is not None:
            part.save_pretrained(below)
    return below
