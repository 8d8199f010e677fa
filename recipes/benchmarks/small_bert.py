"""The model that costs are measured on: a BERT of four layers, on sentences that cost nothing to load."""

import platform
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

CLASSES = 6
TOKEN_CLASSES = 100


class Sentences(torch.utils.data.Dataset):
    """As many rows as wanted, none of them stored."""

    def __init__(self, rows: int, tokens: int = 32, classes: int = CLASSES):
        self.rows, self.tokens, self.classes = rows, tokens, classes

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": torch.full((self.tokens,), i % 997), "labels": i % self.classes}


class Tokens(Sentences):
    """The same with a label for each token."""

    def __getitem__(self, i: int) -> dict:
        labels = torch.arange(i, i + self.tokens) % TOKEN_CLASSES
        return {"input_ids": torch.full((self.tokens,), i % 997), "labels": labels}


def bert(width: int = 256, layers: int = 4, classes: int = CLASSES) -> BertForSequenceClassification:
    """The same at each call."""
    torch.manual_seed(0)
    return BertForSequenceClassification(_config(width, layers, classes))


def token_bert(width: int = 256, layers: int = 4) -> BertForTokenClassification:
    """Likewise."""
    torch.manual_seed(0)
    return BertForTokenClassification(_config(width, layers, TOKEN_CLASSES))


def _config(width: int, layers: int, classes: int) -> BertConfig:
    size = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 4 * width}
    return BertConfig(vocab_size=1000, num_labels=classes, **size)


def trainer_of(
    kind: type[Trainer],
    config: type[TrainingArguments],
    folder: str,
    data: Sentences,
    width: int = 256,
    make_model: Callable[[], PreTrainedModel] | None = None,
    **settings: Any,
) -> Trainer:
    """A Trainer of this model that writes and logs nothing while it runs.

    Args:
        kind, config: classes of the Trainer and of its arguments.
        folder: for what it would write.
        width: of the model, where `make_model` makes no other.
        settings: further arguments.
    """
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True}
    device = {"use_cpu": not torch.cuda.is_available(), "dataloader_pin_memory": False}
    args = config(output_dir=folder, **{**quiet, **device, **settings})
    trainer = kind(make_model() if make_model else bert(width), args, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    return trainer


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU {platform.machine()}, {threads} {'thread' if threads == 1 else 'threads'}"
