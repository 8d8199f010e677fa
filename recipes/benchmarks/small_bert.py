"""The model that costs are measured on: a BERT of four layers, on sentences that cost nothing to load."""

import platform
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

CLASSES = 6


class Sentences(torch.utils.data.Dataset):
    """As many rows as wanted, none of them stored."""

    def __init__(self, rows: int, tokens: int = 32):
        self.rows, self.tokens = rows, tokens

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": torch.full((self.tokens,), i % 997), "labels": i % CLASSES}


def bert(width: int = 256) -> BertForSequenceClassification:
    """The same at each call."""
    torch.manual_seed(0)
    size = {"hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 4 * width}
    return BertForSequenceClassification(BertConfig(vocab_size=1000, num_labels=CLASSES, **size))


def trainer_of(
    kind: type[Trainer],
    config: type[TrainingArguments],
    folder: str,
    data: Sentences,
    width: int = 256,
    **settings: Any,
) -> Trainer:
    """A Trainer of this model that writes and logs nothing while it runs.

    Args:
        kind, config: classes of the Trainer and of its arguments.
        folder: for what it would write.
        settings: further arguments.
    """
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True}
    device = {"use_cpu": not torch.cuda.is_available(), "dataloader_pin_memory": False}
    args = config(output_dir=folder, **{**quiet, **device, **settings})
    trainer = kind(bert(width), args, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    return trainer


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU {platform.machine()}, {threads} {'thread' if threads == 1 else 'threads'}"
