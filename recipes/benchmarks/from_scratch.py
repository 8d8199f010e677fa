"""Learning from scratch with wrong labels: a small ResNet on CIFAR-10, as SAT's authors train theirs, but for the size.

    python recipes/benchmarks/from_scratch.py --data_dir ../shared/data --seeds 0

SGD with momentum and a cosine, 40 % symmetric noise, with and without augmentation (crops and flips): with it hardly a
label is learned by heart, without it all are. Accuracy on 1,000 clean held-out training pictures after the last epoch.
Each run is added to `results/from_scratch.json` when it ends; what stands there is not run again.
"""

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from noisy_labels.columns import Column
from noisy_labels.data import Examples, read
from noisy_labels.methods import method
from small_bert import device_name
from torch import Tensor, nn
from transformers import HfArgumentParser, Trainer, TrainingArguments, logging

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.results import accuracy

RESULTS = Path(__file__).parent / "results" / "from_scratch.json"
# Of CIFAR-10's channels, 0 to 255.
MEAN, DEVIATION = (torch.tensor(of)[:, None, None] for of in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
PADDING = 4


@dataclass
class Options:
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder that holds cifar10n."})
    methods: str = field(default="ce,sat_paper,sat", metadata={"help": "Of the grid, comma-separated."})
    augmented: str = field(default="1,0", metadata={"help": "1 with crops and flips, 0 without, comma-separated."})
    seeds: str = field(default="0", metadata={"help": "Comma-separated."})
    samples: int = field(default=4000, metadata={"help": "Training pictures."})
    epochs: int = field(default=40, metadata={"help": "Length of training."})
    noise: str = field(default="symmetric40", metadata={"help": "Noise of the grid."})
    width: int = field(default=16, metadata={"help": "Channels of the first of the three stages."})


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels: int, wider: int, stride: int):
        super().__init__()
        self.first = _convolution(channels, wider, 3, stride)
        self.second = _convolution(wider, wider, 3)
        self.shortcut = nn.Identity() if channels == wider else _convolution(channels, wider, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(images))) + self.shortcut(images))


class SmallResNet(nn.Module):
    """Seven convolutions for pictures of 32 pixels."""

    def __init__(self, width: int, num_labels: int = 10):
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, width, 3), nn.ReLU())
        stages = [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)]
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(4 * width, num_labels)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.classifier(self.stages(self.stem(pixel_values)).mean(dim=(2, 3)))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def _convolution(channels: int, wider: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, wider, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wider))


class Pictures(torch.utils.data.Dataset):
    """Normalised pictures, cropped and flipped anew at each visit where they are augmented."""

    def __init__(self, examples: Examples, augmented: bool):
        self.images, self.labels, self.augmented = np.asarray(examples.inputs), examples.labels, augmented

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        image = (torch.from_numpy(self.images[i]).float() - MEAN) / DEVIATION
        return {"pixel_values": _augmented(image) if self.augmented else image, "labels": int(self.labels[i])}


def _augmented(image: Tensor) -> Tensor:
    side = image.shape[-1]
    top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
    cut = F.pad(image, [PADDING] * 4)[:, top : top + side, left : left + side]
    return cut.flip(2) if torch.rand(()) < 0.5 else cut


def run(name: str, augmented: bool, seed: int, options: Options) -> dict[str, Any]:
    """Train once; accuracy after each epoch, and what "auto" came to."""
    train, held_out = read(Column.parse(f"cifar/{options.noise}"), options.data_dir, seed, options.samples)
    chosen = method(name)
    kind, config = (Trainer, TrainingArguments) if chosen.plain else (SATTrainer, SATConfig)
    train = train.with_clean_labels() if chosen.labels == "clean" else train
    torch.manual_seed(seed)
    model = SmallResNet(options.width)
    with tempfile.TemporaryDirectory() as folder:
        args = config(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=128,
            per_device_eval_batch_size=500,
            save_strategy="no",
            eval_strategy="epoch",
            logging_strategy="epoch",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            seed=seed,
            **chosen.settings_for(options.epochs),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = -(-len(train) // args.per_device_train_batch_size) * options.epochs
        trainer = kind(
            model,
            args,
            train_dataset=Pictures(train, augmented),
            eval_dataset=Pictures(held_out, augmented=False),
            compute_metrics=accuracy,
            optimizers=(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)),
        )
        trainer.train()
    history = trainer.state.log_history
    curve = [log["eval_accuracy"] for log in history if "eval_accuracy" in log]
    found = {key: value for log in history for key, value in log.items() if key.startswith("sat/")}
    return {"accuracy": curve[-1], "accuracy_by_epoch": curve, "log": found}


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
    same = {key: value for key, value in asdict(options).items() if key in ("samples", "epochs", "noise", "width")}
    for seed in map(int, options.seeds.split(",")):
        for augmented in map(int, options.augmented.split(",")):
            for name in options.methods.split(","):
                key = {"method": name, "augmented": bool(augmented), "seed": seed, **same}
                if any(key.items() <= stored.items() for stored in result["runs"]):
                    continue
                row = key | run(name, bool(augmented), seed, options)
                row |= {"device": device_name(), "torch": torch.__version__}
                print(key, f"{100 * row['accuracy']:.1f} %", flush=True)
                result["runs"].append(row)
                RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
