"""Teachers: frozen models from whose logits a student learns. Nothing here knows the Trainer."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.utils import logging

from .config.checks import AUTO
from .recipe import logits_of
from .teacher_columns import PREFIX, STREAM_WAY_OUT

logger = logging.get_logger(__name__)

WAY_OUT = "leave teacher_model and kd_weight out"
UNNAMED = re.compile(r"LABEL_\d+|\d+")
# The tokens of a vocabulary are too many to be named in a message.
MOST_NAMED = 1000


@dataclass
class Teachers:
    """One teacher or several, frozen, with the order of their classes.

    The logits of several are their weighted mean, which is the geometric mean of their predictions (Hinton et al. 2015,
    section 2).

    Args:
        models: in evaluation mode, without gradients.
        shares: weight of each, with sum 1.
        orders: for each the teacher's class of every class of the student; None where they are the same.
    """

    models: list[nn.Module]
    shares: list[float]
    orders: list[Tensor | None] = field(default_factory=list)

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any], labels: Tensor, device: torch.device) -> Tensor:
        """Logits in the student's order of classes, on `device`.

        Args:
            inputs: what the teachers are called with; what one does not know is left out.
            labels: given labels, which an encoder-decoder makes its decoder's inputs of.
        """
        return self._mean([self._outputs(model, inputs, labels) for model in self.models], labels, device)

    @torch.no_grad()
    def logits_and_states(
        self, inputs: Mapping[str, Any], labels: Tensor, device: torch.device
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The same, and the hidden states of each teacher: of the embeddings and every layer, (B, P, D)."""
        outputs = [self._outputs(model, inputs, labels, output_hidden_states=True) for model in self.models]
        names = [f"teacher_model: {type(model).__name__}" for model in self.models]
        states = [hidden_states_of(output, name) for output, name in zip(outputs, names, strict=True)]
        return self._mean(outputs, labels, device), [tuple(state.to(device) for state in each) for each in states]

    def _outputs(self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, **more: Any) -> Any:
        return model(**_known_inputs(model, inputs, labels), **more)

    def _mean(self, outputs: Sequence[Any], labels: Tensor, device: torch.device) -> Tensor:
        total = None
        for output, model, share, order in zip(outputs, self.models, self.shares, self.orders, strict=True):
            logits = _logits_beside(labels, type(model).__name__, output).to(device)
            if order is not None:
                logits = logits[..., order.to(device)]
            if len(self.models) == 1:
                return logits
            total = share * logits.float() if total is None else total + share * logits.float()
        return total

    def devices(self) -> list[torch.device]:
        """Where each is."""
        return [next(model.parameters(), torch.zeros(())).device for model in self.models]

    def to(self, devices: list[torch.device]) -> None:
        """Move each to its device, but for those that their loader has placed."""
        for model, device in zip(self.models, devices, strict=True):
            if not _is_placed(model):
                model.to(device)


def load_teachers(given: Any, student: nn.Module, dtype: str = AUTO) -> Teachers:
    """Teachers as they are given to the Trainer, frozen and checked against the student.

    Args:
        given: a model, the name of one (a folder or a Hub id), or a list of those or of (model, weight) pairs.
        student: the model to be trained, without wrappers.
        dtype: of what is loaded by name.

    Raises:
        ValueError: for what is no model, a model that shares weights with the student, a head that is not trained,
            other classes, another vocabulary or image size, weights that are no shares.
    """
    models, shares = [], []
    for one in given if isinstance(given, (list, tuple)) and not _is_pair(given) else [given]:
        model, share = one if _is_pair(one) else (one, 1.0)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < float("inf"):
            raise ValueError(f"teacher_model: weight {share!r} of a teacher; give a finite number > 0.")
        models.append(_load(model, dtype))
        shares.append(float(share))
    if not models:
        raise ValueError(f"teacher_model=[]: there is no teacher in it; give one, or {WAY_OUT}.")
    for model in models:
        _refuse_shared_weights(model, student)
        model.requires_grad_(False).eval()
    total = sum(shares)
    orders = [class_order(student, model) for model in models]
    return Teachers(models, [share / total for share in shares], orders)


def refuse_other_inputs(teachers: Teachers, student: nn.Module, is_bare_stream: bool = False) -> None:
    """Refuse teachers that cannot read the student's inputs.

    Args:
        is_bare_stream: whether the data are a `torch.utils.data.IterableDataset`, which does not tell its columns; a
            teacher's own are not found in it.

    Raises:
        ValueError: for another vocabulary or image size.
    """
    way_out = "give it its own columns, with hf_sat.teacher_columns.add_teacher_columns"
    if is_bare_stream:
        way_out = f"it needs columns {PREFIX}* of its own, and {STREAM_WAY_OUT}"
    for model in teachers.models:
        for setting in ("vocab_size", "image_size", "num_channels"):
            theirs, ours = (getattr(getattr(it, "config", None), setting, None) for it in (model, student))
            if theirs is not None and ours is not None and theirs != ours:
                raise ValueError(
                    f"teacher_model: {setting} is {theirs} for {type(model).__name__} and {ours} for "
                    f"{type(student).__name__}, so it cannot read the student's inputs: {way_out}, or {WAY_OUT}."
                )


def refuse_unknown_columns(teachers: Teachers, names: Sequence[str]) -> None:
    """Refuse columns that are a teacher's by their name, where one knows none of them.

    A tokenizer may make more than a model takes (`token_type_ids`); that is left out.

    Raises:
        ValueError: for the first such teacher.
    """
    for model in teachers.models:
        if names and not any(_knows(model, name.removeprefix(PREFIX)) for name in names):
            raise ValueError(
                f"train_dataset has the columns {list(names)}, and {type(model).__name__} has no such inputs: columns "
                f"{PREFIX}* are the teacher's inputs; rename or remove them, or add those it takes."
            )


def class_order(student: nn.Module, teacher: nn.Module) -> Tensor | None:
    """For every class of the student the teacher's number for it, (C,); None where the numbers are the same.

    Classes are told by `id2label`, in the same letters or else without regard to case. Where one of the two has no
    names ("LABEL_0"), the order is taken to be the same.

    Raises:
        ValueError: for other classes, naming both lists.
    """
    ours, theirs = _classes(student), _classes(teacher)
    if ours is None or theirs is None:
        return None  # the shape of the logits will tell
    same_number = len(ours) == len(theirs)
    for fold in (str, str.casefold):
        names, found = [list(map(fold, map(str, classes))) for classes in (ours, theirs)]
        if names == found:
            return None
        if same_number and sorted(names) == sorted(found) and len(set(names)) == len(names):
            return torch.tensor([found.index(name) for name in names])
    unnamed = [all(UNNAMED.fullmatch(str(name)) for name in classes) for classes in (ours, theirs)]
    if same_number and any(unnamed):
        return None
    raise ValueError(
        f"teacher_model: {type(teacher).__name__} has {_listed(theirs)} and {type(student).__name__} "
        f"{_listed(ours)}: a teacher needs the student's classes, in any order; set id2label on both, train one for "
        f"them, or {WAY_OUT}."
    )


def reads_labels(model: nn.Module) -> bool:
    """Whether it is an encoder-decoder whose decoder's inputs are made of the labels."""
    return hasattr(model, "prepare_decoder_input_ids_from_labels")


def takes_hidden_states(model: nn.Module) -> bool:
    """Whether it can be asked for them in its call."""
    return _knows(model, "output_hidden_states") or _takes_any(model)


def hidden_states_of(outputs: Any, name: str) -> tuple[Tensor, ...]:
    """Hidden states of the embeddings and every layer, from what a model returned.

    Raises:
        ValueError: where there are none, naming `name`.
    """
    states = outputs.get("hidden_states") if isinstance(outputs, Mapping) else None
    if not isinstance(states, (tuple, list)) or not states:
        raise ValueError(
            f"kd_hidden_weight: {name} returned no hidden_states when it was called with output_hidden_states=True: "
            "take a model of transformers (with return_dict), or set kd_hidden_weight=0."
        )
    return tuple(states)


def pad_token_id(given: Any) -> int | None:
    """Of the first of what is given as teachers, by its config."""
    while isinstance(given, (list, tuple)) and given:
        given = given[0]
    config = transformers.AutoConfig.from_pretrained(given) if isinstance(given, str) else given
    return getattr(getattr(config, "config", config), "pad_token_id", None)


def _is_pair(given: Any) -> bool:
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and len(given) == 2
        and isinstance(given[1], (int, float))
    )


def _load(model: Any, dtype: str) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if not isinstance(model, str):
        raise ValueError(
            f"teacher_model: {type(model).__name__} is no model; give a model, its folder or Hub id, or a list."
        )
    config = transformers.AutoConfig.from_pretrained(model)
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is None:
        raise ValueError(
            f"teacher_model={model!r}: its config names no model of transformers ({config.architectures}); load it "
            "yourself and pass the model."
        )
    loaded, info = architecture.from_pretrained(model, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(
            f"teacher_model={model!r}: {sorted(info['missing_keys'])} are not in its checkpoint, so its head is not "
            "trained; fine-tune the teacher first."
        )
    return loaded


def _refuse_shared_weights(teacher: nn.Module, student: nn.Module) -> None:
    ours = {parameter.data_ptr() for parameter in student.parameters() if parameter.numel()}
    if any(parameter.data_ptr() in ours for parameter in teacher.parameters() if parameter.numel()):
        raise ValueError(
            f"teacher_model: {type(teacher).__name__} shares weights with the model that is trained, and a teacher is "
            "frozen: pass a copy (copy.deepcopy), or make the student with hf_sat.students.create_student."
        )


def _classes(model: nn.Module) -> list[Any] | None:
    config = getattr(model, "config", None)
    if reads_labels(model) and model.get_output_embeddings() is not None:
        return [f"LABEL_{number}" for number in range(model.get_output_embeddings().weight.shape[0])]
    names = getattr(config, "id2label", None)
    return None if not names else [names[key] for key in sorted(names)]


def _listed(classes: list[Any]) -> str:
    return f"{len(classes)} classes" + (f" {classes}" if len(classes) <= MOST_NAMED else "")


def _is_placed(model: nn.Module) -> bool:
    """Whether its loader spread it, or bound it to where it is (quantized)."""
    return getattr(model, "hf_device_map", None) is not None or getattr(model, "is_quantized", False)


def _logits_beside(labels: Tensor, name: str, outputs: Any) -> Tensor:
    """A teacher's logits, a row for each label."""
    try:
        logits = logits_of(outputs, name)
    except ValueError:
        raise ValueError(
            f"teacher_model: {name} returned no logits: a teacher needs a trained head of the student's kind; "
            f"fine-tune it first, or {WAY_OUT}."
        ) from None
    if logits.shape[:-1].numel() != labels.numel():
        raise ValueError(
            f"teacher_model: the logits of {name} have shape {tuple(logits.shape)} for labels of shape "
            f"{tuple(labels.shape)}: a teacher needs a head of the student's kind, and as many tokens where labels are "
            f"of tokens; give another, or {WAY_OUT}."
        )
    return logits


def _known_inputs(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
    """Inputs that a model takes, where it lies and in its precision; no labels, for it need not compute a loss."""
    known = {name: value for name, value in inputs.items() if _knows(model, name)}
    known.pop("labels", None)
    if reads_labels(model) and "decoder_input_ids" not in known:
        known["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
    first = next(model.parameters(), torch.zeros(()))
    return {name: _moved(value, first) for name, value in known.items()}


def _knows(model: nn.Module, name: str) -> bool:
    """Whether it takes an input of that name, or is a wrapper that takes any."""
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or all(it.kind in (it.VAR_KEYWORD, it.VAR_POSITIONAL) for it in parameters.values())


def _takes_any(model: nn.Module) -> bool:
    """Whether it hands on inputs that it does not name, as models of transformers do with `**kwargs`."""
    return any(it.kind is it.VAR_KEYWORD for it in inspect.signature(model.forward).parameters.values())


def _moved(value: Any, like: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    wide = like.is_floating_point() and value.is_floating_point()
    return value.to(like.device, like.dtype if wide else value.dtype)
