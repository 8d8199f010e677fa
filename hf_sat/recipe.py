"""From settings to what runs: refuses what cannot work, and says why."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging

from .config import AUTO, DistillationArguments, LabelCorrectionArguments, SharpnessArguments, refuse
from .correction import LabelCorrection
from .methods.bootstrap import SoftBootstrapping
from .methods.elr import EarlyLearningRegularization
from .methods.gce import GeneralizedCrossEntropy
from .methods.label_correction import LabelCorrectionMethod
from .methods.sce import SymmetricCrossEntropy
from .methods.schedule import Schedule
from .methods.self_adaptive import SelfAdaptiveTraining
from .neighborhood import LEAST_EPOCHS, PASSES_BEFORE, suggested_neighbors
from .samples import Samples
from .soft_targets import SoftTargets, soft_targets

logger = logging.get_logger(__name__)

ONE_LABEL_HEADS = {
    *MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values(),
    *MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values(),
}
OFF = 'set label_correction="none"'
# Soft targets beyond this many bytes are worth a word.
LARGE_STORAGE = 4 * 2**30
# At 0.05, 5.6 % of bfloat16 weights moved at all.
LARGEST_LOST_RADIUS = 0.1


@dataclass
class Setup:
    """The facts about a run that decide whether label correction can work in it."""

    model_class: str
    problem_type: str | None
    num_classes: int | None
    has_compute_loss_func: bool
    num_gpus_in_process: int
    is_deepspeed: bool
    is_fsdp: bool
    model_parallel_size: int
    num_processes: int
    num_launched: int


def refuse_what_cannot_work(setup: Setup) -> None:
    """Refuse a run before its first step.

    Raises:
        ValueError: for regression, multi-label and causal-LM heads, a loss function of the user's, `nn.DataParallel`,
            DeepSpeed, FSDP, tensor, context or sequence parallelism, processes that do not see each other.
    """
    for wrong, message in (
        (
            setup.problem_type == "regression" or setup.num_classes == 1,
            f"model {setup.model_class} (num_labels={setup.num_classes}, problem_type={setup.problem_type!r}) is a "
            f"regression head: label correction needs two classes or more; {OFF}.",
        ),
        (
            setup.problem_type == "multi_label_classification",
            f"model {setup.model_class} has problem_type='multi_label_classification': label correction needs one "
            f"class per label; set the model's problem_type to 'single_label_classification', or {OFF}.",
        ),
        (
            setup.model_class in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(),
            f"model {setup.model_class} is a causal language model: label correction needs class labels that stand "
            f"beside the logits; use a classification or token-classification head, or {OFF}.",
        ),
        (
            setup.has_compute_loss_func,
            f"compute_loss_func is given and label correction has a loss of its own: drop it, or {OFF}.",
        ),
        (
            setup.num_gpus_in_process > 1,
            f"{setup.num_gpus_in_process} GPUs in one process means nn.DataParallel, which label correction does not "
            "support: start the script with `accelerate launch` (one process a GPU), or show it one GPU "
            "(CUDA_VISIBLE_DEVICES=0).",
        ),
        (setup.is_deepspeed, f"deepspeed is set: label correction runs under DDP; drop deepspeed, or {OFF}."),
        (setup.is_fsdp, f"fsdp is set: label correction runs under DDP; drop fsdp, or {OFF}."),
        (
            setup.model_parallel_size > 1,
            f"tensor, context or sequence parallelism of size {setup.model_parallel_size} is set: label correction "
            f"runs under DDP; set the size to 1, or {OFF}.",
        ),
        (
            setup.num_launched != setup.num_processes,
            f"{setup.num_launched} processes were launched and the Trainer sees {setup.num_processes}; each would "
            "train alone: on CPU pass use_cpu=True (--use_cpu) to the script, or launch one process.",
        ),
    ):
        if wrong:
            raise ValueError(message)


@dataclass
class SharpnessSetup:
    """The facts about a run that decide whether SAM can work in it."""

    optimizers: tuple[str, str]  # by its flag, and its class where one was passed in
    is_deepspeed: bool
    is_fsdp: bool
    fsdp_version: int
    is_xla: bool
    is_model_parallel: bool


def refuse_sharpness(setup: SharpnessSetup, settings: SharpnessArguments) -> None:
    """Refuse a run that cannot take a second pass over its gradients, before its first step.

    Raises:
        ValueError: for DeepSpeed, FSDP1, local perturbation under FSDP, XLA, SageMaker's and Megatron's model
            parallelism, optimizers that step inside the backward pass.
    """
    off = 'set sam="none"'
    hooked = [name for name in setup.optimizers if any(word in name.lower() for word in ("lomo", "layerwise"))]
    sam = f"sam={settings.sam!r}"
    for wrong, message in (
        (setup.is_deepspeed, f"{sam} and deepspeed is set, which owns the backward pass: run under DDP, or {off}."),
        (
            setup.is_fsdp and setup.fsdp_version < 2,
            f"{sam} and FSDP of version 1 is set, whose flat parameters hide the weights: set version 2, or {off}.",
        ),
        (
            setup.is_fsdp and settings.sam_sync == "local",
            f"sam_sync='local' and FSDP is set, where no process has a gradient of its own: set sam_sync='global', or "
            f"{off}.",
        ),
        (setup.is_xla, f"{sam} and torch_xla is in use, which SAM was not made for: uninstall it, or {off}."),
        (
            setup.is_model_parallel,
            f"{sam} and a model-parallel engine is set, which owns the backward pass: run under DDP, or {off}.",
        ),
        (
            bool(hooked),
            f"optim={''.join(hooked[:1])!r} steps inside the backward pass and leaves no gradient to perturb by: "
            f"choose another optimizer, or {off}.",
        ),
    ):
        if wrong:
            raise ValueError(message)


def refuse_distillation(setup: Setup, settings: DistillationArguments, has_teacher: bool, is_stream: bool) -> None:
    """Refuse a run that cannot learn from a teacher, before its first step.

    Raises:
        ValueError: for a weight without a teacher or the reverse; regression, multi-label and causal-LM heads; a loss
            function of the user's; `nn.DataParallel`, DeepSpeed, tensor, context or sequence parallelism; a cache for
            a stream.
    """
    off = "leave teacher_model and kd_weight out"
    weight = f"kd_weight={settings.kd_weight!r}"
    for wrong, message in (
        (
            has_teacher and settings.kd_weight is None,
            f"teacher_model is given and {weight}: set kd_weight (0 leaves its logits out), or {off}.",
        ),
        (
            not has_teacher and settings.kd_weight is not None,
            f"{weight} and there is no teacher_model: pass one, or {off}.",
        ),
        (
            setup.problem_type in ("regression", "multi_label_classification") or setup.num_classes == 1,
            f"model {setup.model_class} (num_labels={setup.num_classes}, problem_type={setup.problem_type!r}): "
            f"distillation needs one class of two or more per label; {off}.",
        ),
        (
            setup.model_class in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(),
            f"model {setup.model_class} is a causal language model, whose labels do not stand beside its logits: use "
            f"TRL's trainers for those, or {off}.",
        ),
        (
            setup.has_compute_loss_func,
            f"compute_loss_func is given and distillation has a task loss of its own: drop it, or {off}.",
        ),
        (
            setup.num_gpus_in_process > 1,
            f"{setup.num_gpus_in_process} GPUs in one process means nn.DataParallel, which distillation does not "
            "support: start the script with `accelerate launch` (one process a GPU), or show it one GPU "
            "(CUDA_VISIBLE_DEVICES=0).",
        ),
        (setup.is_deepspeed, f"deepspeed is set, which would take the teacher apart as it loads: drop it, or {off}."),
        (
            setup.model_parallel_size > 1,
            f"tensor, context or sequence parallelism of size {setup.model_parallel_size} is set, of which the teacher "
            f"knows nothing: set the size to 1, or {off}.",
        ),
        (
            settings.kd_cache_dir is not None and is_stream,
            f"kd_cache_dir={settings.kd_cache_dir!r} and train_dataset is a stream: give a data set with a length, or "
            "leave kd_cache_dir out.",
        ),
        *_wrong_hidden_settings(settings, has_teacher),
    ):
        if wrong:
            raise ValueError(message)


def _wrong_hidden_settings(settings: DistillationArguments, has_teacher: bool) -> list[tuple[bool, str]]:
    weight = f"kd_hidden_weight={settings.kd_hidden_weight!r}"
    is_on = settings.kd_hidden_weight > 0
    return [
        (is_on and not has_teacher, f"{weight} and there is no teacher_model: pass one, or set it to 0."),
        (
            is_on and settings.kd_cache_dir is not None,
            f"{weight} and kd_cache_dir={settings.kd_cache_dir!r}, which keeps logits alone: leave kd_cache_dir out, "
            "so that the teacher is asked at each step, or set kd_hidden_weight=0.",
        ),
    ]


def refuse_hidden_distillation(
    settings: DistillationArguments, role: str, model: torch.nn.Module, is_pair: bool, takes_flag: bool
) -> None:
    """Refuse a student or a teacher whose hidden states cannot be matched, before the first step.

    Args:
        role: "model" or "teacher_model".
        is_pair: whether it is an encoder-decoder.
        takes_flag: whether it can be called with `output_hidden_states=True`.

    Raises:
        ValueError: for either.
    """
    off = "set kd_hidden_weight=0"
    what = f"kd_hidden_weight={settings.kd_hidden_weight!r} and {role} {type(model).__name__}"
    if is_pair:
        raise ValueError(
            f"{what} has an encoder and a decoder, and kd_layer_map speaks of one stack of layers: take a model with "
            f"one, or {off}."
        )
    if not takes_flag:
        raise ValueError(
            f"{what} cannot be called with output_hidden_states=True: let its forward take that and return "
            f"hidden_states, or {off}."
        )


def warn_of_low_precision(model: torch.nn.Module, settings: SharpnessArguments) -> None:
    """Say so where most weights are too coarse to be moved by the perturbation at all."""
    coarse = {p.dtype for p in model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)}
    if coarse and settings.sam == "sam" and 0 < settings.sam_radius <= LARGEST_LOST_RADIUS:
        logger.warning(
            f"sam_rho={settings.sam_radius} and weights in {', '.join(map(str, sorted(coarse, key=str)))}: the "
            "perturbation is smaller than the spacing of most weights and is rounded away. Keep the weights in float32 "
            "and set bf16=True, raise sam_rho, or use sam='asam'."
        )


def refuse_labels(setup: Setup, samples: Samples) -> None:
    """Refuse data whose labels cannot belong to the head.

    Raises:
        ValueError: for several labels an example (multi-label) under a head with one row of logits for each.
    """
    if setup.model_class in ONE_LABEL_HEADS and samples.offsets is not None:
        raise ValueError(
            f"train_dataset has a list of labels for each example and {setup.model_class} one row of logits: "
            f"label correction needs one class per example; use a token-classification head for labels of tokens, or "
            f"{OFF} for multi-label tasks."
        )


# Each reads its own settings.
METHODS: dict[str, Callable[[LabelCorrectionArguments], LabelCorrectionMethod]] = {
    "sat": lambda s: SelfAdaptiveTraining(loss=s.sat_loss, sce_beta=s.sat_sce_beta, reweight=s.sat_reweight),
    "elr": lambda s: EarlyLearningRegularization(s.elr_lambda),
    "gce": lambda s: GeneralizedCrossEntropy(s.gce_q),
    "sce": lambda s: SymmetricCrossEntropy(s.sce_alpha, s.sce_beta),
    "bootstrap": lambda s: SoftBootstrapping(s.bootstrap_beta),
}


def build_label_correction(
    settings: LabelCorrectionArguments,
    samples: Samples,
    *,
    total_epochs: float,
    num_classes: int | None,
    label_smoothing: float,
    device: torch.device,
    distributed: bool,
    feature_width: int | None = None,
) -> LabelCorrection:
    """The label correction that the settings ask for, at its start.

    Args:
        feature_width: of what the model's last layer is given, where batches can carry it; used with two classes.
    """
    if settings.sat_loss == AUTO and not (_is_automatic(settings) and samples.offsets is None):
        settings = replace(settings, sat_loss="ce")
    method = METHODS[settings.label_correction](settings)
    start, momentum = settings.sat_start_epoch, settings.sat_momentum
    if settings.label_correction == "elr":
        start, momentum = 0.0, settings.elr_beta
    return LabelCorrection(
        method,
        Schedule(start, momentum, total_epochs),
        samples,
        device,
        storage=partial(_storage, settings, device),
        neighbors=partial(num_neighbors, settings, samples, total_epochs, feature_width is not None),
        doubts_neighbors=settings.sat_neighbors == AUTO,
        feature_width=feature_width,
        top_k=settings.sat_top_k,
        name=settings.label_correction,
        num_classes=num_classes,
        label_smoothing=label_smoothing,
        reset_changed=settings.sat_on_label_change == "reset_rows",
        distributed=distributed,
    )


def _is_automatic(settings: LabelCorrectionArguments) -> bool:
    """Whether no number makes it the paper's algorithm."""
    return settings.sat_start_epoch == AUTO and settings.sat_momentum == AUTO


def num_neighbors(
    settings: LabelCorrectionArguments,
    samples: Samples,
    total_epochs: float,
    has_features: bool,
    num_rows: int,
    num_classes: int,
) -> int:
    """How many neighbors tell of an example, 0 for none: the number that was set, or what "auto" comes to.

    Raises:
        ValueError: for a number where correction starts before the votes have had their pass.
    """
    k = settings.sat_neighbors
    if settings.label_correction != "sat" or k == 0:
        return 0
    start = settings.sat_start_epoch
    in_time = total_epochs >= LEAST_EPOCHS if start == AUTO else start >= PASSES_BEFORE
    if k == AUTO:
        asks = _is_automatic(settings) and samples.offsets is None and in_time
        return suggested_neighbors(num_rows, num_classes, has_features) if asks else 0
    if not in_time:
        raise refuse(
            "sat_neighbors",
            k,
            f"neighbors vote from the second pass on, and here correction starts before its middle (sat_start_epoch="
            f"{start!r}, {total_epochs:g} epochs): set sat_start_epoch to {PASSES_BEFORE} or more, or to 'auto' with "
            f"{LEAST_EPOCHS:g} epochs or more; or set sat_neighbors=0.",
        )
    return k


def _storage(settings: LabelCorrectionArguments, device: torch.device, num_rows: int, num_classes: int) -> SoftTargets:
    dtype = getattr(torch, settings.sat_target_dtype)
    if settings.sat_target_device != AUTO:
        device = torch.device(settings.sat_target_device)
    entries = num_classes if settings.sat_top_k is None else settings.sat_top_k
    size = num_rows * entries * dtype.itemsize
    if size > LARGE_STORAGE and settings.sat_top_k is None:
        logger.warning(
            f"The soft targets of {num_rows} labels over {num_classes} classes take {size / 2**30:.1f} GiB on "
            f"{device}: sat_top_k=8 keeps the 8 largest entries of each and the mass of the rest, "
            f"{num_rows * 8 * (dtype.itemsize + 2) / 2**30:.1f} GiB; sat_target_device='cpu' moves them."
        )
    return soft_targets(num_rows, num_classes, settings.sat_top_k, dtype, device)


def logits_of(outputs: Any, model_class: str) -> torch.Tensor:
    """The class scores in what a model returned for inputs with labels.

    Args:
        outputs: a mapping with "logits", a tuple `(loss, logits, ...)`, or `(logits,)`.
        model_class: named where there are none.
    """
    if isinstance(outputs, dict):
        logits = outputs.get("logits")
    elif isinstance(outputs, (tuple, list)):
        logits = next((part for part in outputs[:2] if isinstance(part, torch.Tensor) and part.dim() >= 2), None)
    else:
        logits = outputs
    if not isinstance(logits, torch.Tensor) or logits.dim() < 2:
        found = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise ValueError(
            f"model {model_class} returned no logits but {found}: label correction reads class scores; return them "
            f"under 'logits', or {OFF}."
        )
    return logits
