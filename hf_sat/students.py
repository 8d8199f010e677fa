"""Students cut from their teacher: some of its layers, and all of its other weights.

A number stands for evenly spaced layers, the first and the last among them: so were cut DistilBERT (12 -> 6: 0, 2, 4,
7, 9, 11; https://arxiv.org/abs/1910.01108) and DistilBART (one layer: the first; https://arxiv.org/abs/2010.13002).
"""

import copy
import numbers
import os
from collections.abc import Iterable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .config.checks import is_a, refuse

WORKS = "BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa-v2, MPNet, ViT, DeiT and others with one stack of layers work."
# Which inner layers these heads should read once layers are gone, nobody said.
READ_INNER_LAYERS = ("Backbone", "Segmentation", "DepthEstimation")
PER_LAYER_LISTS = ("attention_window", "no_rope_layers")


def create_student(teacher: PreTrainedModel | str | os.PathLike, layers: int | Iterable[int]) -> PreTrainedModel:
    """A model of the teacher's class with some of its layers, for distillation.

    Embeddings, kept layers and head start as copies of the teacher's, of the same dtype and on the same device; the
    teacher is left as it was. The student is as `from_pretrained` returns models: in evaluation mode, without gradient
    checkpointing or hooks, and all weights are trained that a new model trains, whatever was frozen in the teacher.

    Args:
        teacher: a model with one stack of layers (BERT, RoBERTa, DistilBERT, ELECTRA, ViT, DeiT, ...) and any head;
            or a folder or Hub id, loaded as the class that its config names under `architectures`.
        layers: how many layers to keep, spaced evenly as [`spaced_layers`] says; or which, counted from 0 and in
            the order in which the student shall run them. `range(n)` keeps the first n: worth a try, as lower layers
            made better starts than higher ones (Wang et al. 2023, https://arxiv.org/abs/2305.15032).

    Returns:
        The student. `save_pretrained` and `from_pretrained` work on it as on any model of its class.

    Raises:
        ValueError: `layers` is empty, repeats a layer or leaves the teacher's range; or the teacher has two stacks
            (encoder-decoders), stages of different widths (Swin, ConvNeXt), shared layers (ALBERT), unmerged
            adapters, quantised weights, weights on no device or on several, or parts that its class does not make.
        OSError: there is no model at that folder or Hub id.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> size = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
        >>> teacher = BertForSequenceClassification(BertConfig(num_hidden_layers=6, **size))
        >>> create_student(teacher, layers=3).config.num_hidden_layers  # layers 0, 3 and 5
        3
    """
    teacher = _load(teacher) if isinstance(teacher, (str, os.PathLike)) else teacher
    _check_teacher(teacher)
    stack, total = _find_stack(teacher)
    kept = _kept_layers(layers, total)
    with torch.device("meta"):  # as `from_pretrained` builds: no memory, no random numbers
        student = type(teacher)(_student_config(teacher.config, kept, total))
    _leave_out_absent_parts(student, teacher)
    _check_layout(type(teacher).__name__, _layout(student), _renamed(_layout(teacher), stack, kept))
    _fill(student, _renamed(_tensors(teacher), stack, kept))
    return student.eval()


def spaced_layers(total: int, count: int) -> list[int]:
    """`count` of `total` layers, evenly spaced from the first to the last; half a layer is rounded up.

    Args:
        total: layers of the teacher.
        count: layers to keep, 1 to `total`; 1 keeps the first.

    Returns:
        Indices in rising order.

    Example:
        >>> spaced_layers(12, 6), spaced_layers(12, 3), spaced_layers(6, 3)
        ([0, 2, 4, 7, 9, 11], [0, 6, 11], [0, 3, 5])
    """
    gaps = max(count - 1, 1)
    return [(2 * i * (total - 1) + gaps) // (2 * gaps) for i in range(count)]


def _load(path: str | os.PathLike) -> PreTrainedModel:
    name = (transformers.AutoConfig.from_pretrained(path).architectures or [""])[0]
    if not hasattr(transformers, name):
        raise refuse("teacher", str(path), f"transformers has no class {name!r}; load the model and pass that.")
    return getattr(transformers, name).from_pretrained(path)


def _check_teacher(teacher: PreTrainedModel) -> None:
    name, config = type(teacher).__name__, getattr(teacher, "config", None)
    if hasattr(teacher, "merge_and_unload") or getattr(teacher, "_hf_peft_config_loaded", False):
        raise refuse("teacher", name, "it carries adapters; load it as a PeftModel, and give its merge_and_unload().")
    if not isinstance(teacher, PreTrainedModel):
        raise refuse("teacher", name, "give a transformers model without a wrapper around it, a folder or a Hub id.")
    if getattr(teacher, "hf_quantizer", None) or getattr(config, "quantization_config", None):
        raise refuse("teacher", name, "its weights are quantised; load it without quantization_config.")
    _check_tensors(name, _tensors(teacher))
    if getattr(config, "is_encoder_decoder", False):
        raise refuse("teacher", name, f"it has an encoder and a decoder, and `layers` speaks of one stack; {WORKS}")
    if getattr(config, "depths", None) is not None:
        raise refuse("teacher", name, f"its layers stand in stages of different widths; {WORKS}")
    if any(word in name for word in READ_INNER_LAYERS):
        raise refuse("teacher", name, "its head reads inner layers; cut a bare model or a classifier.")


def _check_tensors(name: str, tensors: dict[str, Tensor]) -> None:
    devices = sorted({str(tensor.device) for tensor in tensors.values()})
    if "meta" in devices or len(devices) > 1:
        raise refuse("teacher", name, f"its weights are on {', '.join(devices)}; load all of them on one device.")
    for key, tensor in tensors.items():
        # Quantised, distributed and ZeRO-3 weights are told by their class or a mark; their data is not the weight.
        if type(tensor) not in (nn.Parameter, Tensor) or type(tensor.data) is not Tensor or hasattr(tensor, "ds_id"):
            raise refuse("teacher", name, f"{key} is quantised or sharded; load it whole and in full precision.")


def _find_stack(teacher: PreTrainedModel) -> tuple[str, int]:
    """The name of the module list with the layers, and how many there are."""
    name, total = type(teacher).__name__, getattr(teacher.config, "num_hidden_layers", None)
    if not is_a(total, numbers.Integral) or getattr(teacher.config, "is_heterogeneous", False):
        raise refuse("teacher", name, f"its config has no num_hidden_layers for one stack of like layers; {WORKS}")
    lists = {key: module for key, module in teacher.named_modules() if isinstance(module, nn.ModuleList)}
    stacks = [key for key, layers in lists.items() if len(layers) == total and len({*map(type, layers)}) == 1]
    stacks = [key for key in stacks if not any(key.startswith(f"{outer}.") for outer in stacks)]
    if len(stacks) != 1:
        raise refuse("teacher", name, f"it has {len(stacks)} lists of num_hidden_layers={total} layers, not 1; {WORKS}")
    return stacks[0], total


def _kept_layers(layers: int | Iterable[int], total: int) -> list[int]:
    if is_a(layers, numbers.Integral) and 1 <= layers <= total:
        return spaced_layers(total, int(layers))
    kept = list(layers) if isinstance(layers, Iterable) else []
    known = [int(layer) for layer in kept if is_a(layer, numbers.Integral) and 0 <= layer < total]
    if not kept or len(set(known)) < len(kept):
        raise refuse("layers", layers, f"give a number from 1 to {total}, or some of 0 to {total - 1}, each once.")
    return known


def _student_config(config: PreTrainedConfig, kept: list[int], total: int) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    for name, value in list(vars(config).items()):
        per_layer = name in PER_LAYER_LISTS or name.endswith(("layer_types", "_per_layer"))
        if per_layer and isinstance(value, (list, tuple)) and len(value) == total:
            setattr(config, name, [value[layer] for layer in kept])
    config.num_hidden_layers = len(kept)
    if hasattr(config, "stage_names"):  # of what may serve as a backbone: the stem, then each layer
        config.stage_names = config.stage_names[: len(kept) + 1]
        config.set_output_features_output_indices(None, None)
    return config


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, tied ones under each of their names."""
    kinds = (model.named_parameters, model.named_buffers)
    return {name: tensor for named in kinds for name, tensor in named(remove_duplicate=False)}


def _layout(model: nn.Module) -> dict[str, Any]:
    """What a model must be made of: the class of each module, the shape of each tensor that is saved."""
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    return classes | {name: tensor.shape for name, tensor in model.state_dict().items()}


def _renamed(parts: dict[str, Any], stack: str, kept: list[int]) -> dict[str, Any]:
    """The teacher's parts under the student's names: kept layers get new numbers, others are left out."""
    renamed = {name: part for name, part in parts.items() if not name.startswith(f"{stack}.")}
    for new, old in enumerate(f"{stack}.{layer}" for layer in kept):
        own = [name for name in parts if f"{name}.".startswith(f"{old}.")]
        renamed |= {f"{stack}.{new}{name.removeprefix(old)}": parts[name] for name in own}
    return renamed


def _leave_out_absent_parts(student: nn.Module, teacher: nn.Module) -> None:
    """Parts that the class makes or not as its caller asks, such as the pooler under `add_pooling_layer=False`."""
    modules = dict(teacher.named_modules())
    for name, module in list(student.named_modules()):
        for part in [part for part in module._modules if getattr(modules.get(name, module), part, part) is None]:
            setattr(module, part, None)


def _check_layout(name: str, student: dict[str, Any], teacher: dict[str, Any]) -> None:
    if odd := [key for key in student | teacher if student.get(key) != teacher.get(key)]:
        found = f"{name} as made from a config with fewer layers has other parts: {', '.join(odd[:3])}"
        raise refuse("teacher", name, f"{found}; undo changes made after loading, or keep other layers.")


def _fill(student: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies in place of the student's empty tensors; what is one tensor in the teacher is one in the student."""
    copies: dict[int, Tensor] = {}
    for name, empty in _tensors(student).items():
        tensor = tensors[name]
        if id(tensor) not in copies:
            copy_of = tensor.detach().clone()
            copies[id(tensor)] = nn.Parameter(copy_of, empty.requires_grad) if type(empty) is nn.Parameter else copy_of
        owner, _, leaf = name.rpartition(".")
        setattr(student.get_submodule(owner), leaf, copies[id(tensor)])
