"""What `sat_top_k` loses: soft targets kept as k entries and tail mass against whole ones, on the same predictions.

MiniLM-L6 learns TREC's 50 fine classes with 40 % symmetric noise while its soft targets are kept whole; every visit is
written down, and the moving average is replayed over them with each k. Writes `results/top_k.json`.

    python recipes/benchmarks/top_k.py --data_dir ../shared/data
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from noisy_labels.columns import Column
from noisy_labels.data import read
from noisy_labels.models import setting
from transformers import HfArgumentParser, logging

from hf_sat import SATConfig, SATTrainer
from hf_sat.methods import update_soft_targets
from hf_sat.soft_targets import soft_targets

RESULTS = Path(__file__).parent / "results" / "top_k.json"


@dataclass
class Options:
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder of the data."})
    samples: int = field(default=1000, metadata={"help": "Training examples."})
    epochs: int = field(default=5, metadata={"help": "Passes over them."})
    ks: str = field(default="1,2,4,8,16,50", metadata={"help": "Entries kept, comma-separated."})
    out: str = field(default=str(RESULTS), metadata={"help": "File of the result."})


class Recording(SATTrainer):
    """Keeps the example numbers and logits of every visit."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:
            self.visits.append((self.state.epoch or 0.0, self._examples.clone(), outputs["logits"].detach().clone()))
        return (loss, outputs) if return_outputs else loss


def train(options: Options) -> tuple[torch.Tensor, list]:
    column = Column.parse("trec_fine/symmetric40")
    examples, _ = read(column, options.data_dir, seed=0, samples=options.samples)
    made = setting(column, len(examples.classes), seed=0, data_dir=options.data_dir, layers=6)
    with tempfile.TemporaryDirectory() as folder:
        args = SATConfig(
            output_dir=folder,
            num_train_epochs=options.epochs,
            learning_rate=2e-4,
            per_device_train_batch_size=16,
            sat_start_epoch=1,
            sat_momentum=0.6,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        data = made.prepare(examples)
        trainer = Recording(made.make_model(), args, train_dataset=data, data_collator=made.collator)
        trainer.visits = []
        trainer.train()
    return torch.from_numpy(examples.labels), trainer.visits


def replay(labels: torch.Tensor, visits: list, k: int | None) -> torch.Tensor:
    """Soft targets at the end, (N, C)."""
    classes = visits[0][2].shape[1]
    storage = soft_targets(len(labels), classes, k, torch.float32, torch.device("cpu"))
    every = torch.arange(len(labels))
    storage.write(every, torch.eye(classes)[labels])
    for epoch, examples, logits in visits:
        if epoch >= 1:
            storage.write(examples, update_soft_targets(storage.read(examples), logits, 0.6))
    return storage.read(every)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    labels, visits = train(options)
    dense = replay(labels, visits, None)
    rows = []
    for k in map(int, options.ks.split(",")):
        kept = replay(labels, visits, k)
        distance = (kept - dense).abs().sum(dim=1) / 2
        same = (kept.argmax(dim=1) == dense.argmax(dim=1)).float().mean()
        row = {"k": k, "mean": distance.mean().item(), "largest": distance.max().item(), "same_label": same.item()}
        rows.append(row)
        print(
            "k={k}: total variation from dense {mean:.4f} (largest {largest:.4f}), same label {same_label:.1%}".format(
                **row
            )
        )
    result = {"classes": dense.shape[1], "examples": len(labels), "epochs": options.epochs, "rows": rows}
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
