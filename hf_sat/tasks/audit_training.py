"""The training run of an audit: its model and its settings, chosen by the data and the machine."""

import math
import sys
import time
from typing import Any

import datasets
import torch
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..audit import LabelReport
from ..config import SATConfig
from ..quiet import errors_only, no_data_bars, no_weight_bars
from ..trainer import SATTrainer
from .audit_data import AuditData
from .audit_images import image_task
from .audit_options import AuditOptions
from .audit_stopping import StopWhenSettled
from .run import Task, trainer_of
from .text import encoder_title, packaged_encoder, tokenised_task

# Enough steps for a new head, at most so many passes where rows are few.
EPOCHS, LEAST_STEPS, MOST_EPOCHS = 4, 150, 12
FROM_SCRATCH_EPOCHS = 15
MANY_ROWS, MANY_ROWS_EPOCHS = 50_000, 3
SMALL_BATCH, BATCH, SMALL_BELOW = 16, 32, 1500
SMALL_MODEL = 768  # width from which a model is fine-tuned with the smaller rate
LOGS_PER_RUN = 20


def run_audit(data: AuditData, options: AuditOptions) -> tuple[LabelReport, dict[str, str]]:
    """Train on the data with label correction; returns the report and facts about the run.

    Raises:
        ValueError: for a model that cannot be read.
        ModuleNotFoundError: without a model of the user's, where the default one is not installed.
    """
    with errors_only(), no_data_bars(), no_weight_bars():
        return _run(data, options)


def _run(data: AuditData, options: AuditOptions) -> tuple[LabelReport, dict[str, str]]:
    task = image_task(data.examples, data.labels, data.names, options) if data.is_image else text_task(data, options)
    model = task.make_model()
    args = settings(len(data.rows), model, data, options)
    frozen = freeze(model, _layers_to_freeze(model, args, options))
    task.make_model = lambda: model
    trainer = trainer_of(SATTrainer, task, args)
    for callback in (ProgressCallback, PrinterCallback):  # they write to stdout, which may be JSON's
        trainer.remove_callback(callback)
    trainer.add_callback(Progress())
    if options.epochs is None and args.num_train_epochs <= EPOCHS:  # few rows take seconds and gain from every pass
        trainer.add_callback(StopWhenSettled(trainer))
    started = time.perf_counter()
    trainer.train()
    facts = {
        "model": task.title,
        "training": f"{_length(trainer)}, batch size {args.per_device_train_batch_size}, learning rate "
        f"{args.learning_rate:g}, layers frozen: {frozen}, {'bfloat16' if args.bf16 else 'float32'}, seed {args.seed}",
        "device": str(args.device),
        "training seconds": f"{time.perf_counter() - started:.0f}",
    }
    report = trainer.label_report()
    report.columns["sample_id"] = data.rows  # those of the file, where some are skipped
    return report, facts


def text_task(data: AuditData, options: AuditOptions) -> Task:
    """Texts, under the encoder named or the one that is installed."""
    encoder = options.model or packaged_encoder()
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=data.names)})
    train = datasets.Dataset.from_dict({"text": data.examples, "labels": data.labels}, features)
    try:
        return tokenised_task(
            train, None, "text", encoder, options.max_length, options.seed, encoder_title(options.model)
        )
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"--model {encoder!r}: it holds no tokenizer that can be read ({_first_line(error)})."
        ) from None


def settings(num_rows: int, model: nn.Module, data: AuditData, options: AuditOptions) -> SATConfig:
    """The settings of the training run, as named, or by the number of rows, the model and the machine."""
    batch = options.batch_size or (SMALL_BATCH if num_rows < SMALL_BELOW else BATCH)
    on_cpu = options.cpu or not torch.accelerator.is_available()
    from_scratch = data.is_image and options.model is None
    epochs = options.epochs or default_epochs(num_rows, batch, from_scratch)
    width = getattr(model.config, "hidden_size", 0) or 0
    rate = options.learning_rate or (1e-3 if from_scratch else 3e-5 if width >= SMALL_MODEL else 1e-4)
    return SATConfig(
        output_dir=options.out,
        num_train_epochs=epochs,
        learning_rate=rate,
        warmup_steps=0.1,
        per_device_train_batch_size=batch,
        train_sampling_strategy="random" if data.is_image else "group_by_length",
        bf16=_gains_by_bfloat16(on_cpu),
        seed=options.seed,
        use_cpu=on_cpu,
        remove_unused_columns=not data.is_image,
        save_strategy="no",
        logging_steps=max(1, math.ceil(epochs * math.ceil(num_rows / batch) / LOGS_PER_RUN)),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not on_cpu,
    )


def _length(trainer: SATTrainer) -> str:
    """How long was trained, in words."""
    planned, made = trainer.args.num_train_epochs, trainer.state.epoch
    return f"{planned:g} epochs" if made >= planned else f"{made:.0f} of {planned:g} epochs"


def default_epochs(num_rows: int, batch: int, from_scratch: bool = False) -> int:
    """Passes over the data: enough steps for a new head where rows are few.

    Example:
        >>> [default_epochs(rows, batch=16) for rows in (20, 400, 5000, 100_000)]
        [12, 6, 4, 3]
    """
    if from_scratch:
        return FROM_SCRATCH_EPOCHS
    if num_rows >= MANY_ROWS:
        return MANY_ROWS_EPOCHS
    return max(EPOCHS, min(MOST_EPOCHS, math.ceil(LEAST_STEPS * batch / num_rows)))


def _gains_by_bfloat16(cpu: bool) -> bool:
    """Whether bfloat16 is faster than float32 here: emulated it is slower.

    By what the processor has, not by a stopwatch, so that a run repeated on the same machine is the same run. With
    AVX-512's bfloat16 but no AMX, MiniLM's step took 1.5 times that in float32.
    """
    if not cpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16"))


# ---- frozen layers --------------------------------------------------------------------------------------------------


def freeze(model: nn.Module, count: int) -> int:
    """Leave the embeddings and the lowest `count` layers as they are; returns how many layers that is."""
    layers = encoder_layers(model)
    if count == 0 or not layers:
        return 0
    embeddings = [part for name, part in model.base_model.named_children() if name.startswith(("embed", "wte", "wpe"))]
    for part in [*embeddings, *layers[:count]]:
        part.requires_grad_(False)
    return min(count, len(layers))


def encoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a transformer, lowest first: its longest list of modules that are alike."""
    lists = [part for part in model.base_model.modules() if isinstance(part, nn.ModuleList)]
    alike = [part for part in lists if len({type(layer) for layer in part}) == 1]
    return list(max(alike, key=len, default=[]))


def _layers_to_freeze(model: nn.Module, args: SATConfig, options: AuditOptions) -> int:
    if options.freeze_layers is not None:
        return options.freeze_layers
    is_new = options.model is None and model.config.model_type == "resnet"
    # The lower ones know what an audit needs of them; their backward pass is what a CPU has no time for.
    return 0 if args.device.type != "cpu" or is_new else len(encoder_layers(model)) // 6


# ---- progress -------------------------------------------------------------------------------------------------------


class Progress(TrainerCallback):
    """A bar on stderr; a line now and then where that is no terminal."""

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm import tqdm

        every = 0.2 if sys.stderr.isatty() else 20
        self.bar = tqdm(total=state.max_steps, desc="training", unit="step", file=sys.stderr, mininterval=every)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if logs and "sat/corrected" in logs:
            self.bar.set_postfix_str(f"{100 * logs['sat/corrected']:.1f} % of the labels contradicted", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
