"""Whether augmentation helps: few examples with wrong labels, and tests with slips of the keyboard.

    python recipes/benchmarks/augmentation.py --seeds 0,1,2

500 questions of TREC with 40 % symmetric label noise, without and with label correction, augmented in different ways;
accuracy after the last epoch on the test questions as they are, and on the same with typing slips. Nothing is tuned. A
run that stands in `results/augmentation.json` is not run again.
"""

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import torch
from noisy_labels.columns import Column
from noisy_labels.data import Examples, read
from noisy_labels.models import Setting, setting
from small_bert import device_name
from transformers import AutoTokenizer, HfArgumentParser, logging
from transformers.trainer_callback import PrinterCallback

from hf_sat import SATConfig, SATTrainer
from hf_sat.augment import AugmentedTexts, TextAugmenter
from hf_sat.tasks.results import accuracy
from hf_sat.tasks.text import packaged_encoder

RESULTS = Path(__file__).parent / "results" / "augmentation.json"
COLUMN = "trec/symmetric40"
METHODS = {
    "none": {"label_correction": "none"},
    "sat": {},
    "sat, start 5": {"sat_start_epoch": 5},
}
WAYS = {
    "none": "",
    "deletion, swap": "deletion:0.1,swap:0.1",
    "slips": "keyboard:0.1,spelling:0.1",
    "all": "deletion:0.05,swap:0.05,insertion:0.05,case:0.05,keyboard:0.05,spelling:0.05",
}
# Other slips than those trained on: another seed, and those of text recognition with them.
TEST_SLIPS = TextAugmenter("keyboard:0.15,ocr:0.1", seed=12345)


@dataclass
class Options:
    seeds: str = field(default="0,1,2", metadata={"help": "Seeds of sample, noise, head and order, comma-separated."})
    samples: int = field(default=500, metadata={"help": "Training examples."})
    epochs: int = field(default=12, metadata={"help": "Epochs."})
    layers: int = field(default=3, metadata={"help": "Layers of MiniLM, of its 6."})
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder of the data."})
    out: str = field(default=str(RESULTS), metadata={"help": "File of the results."})


class Tokenize:
    def __init__(self):
        self.tokenizer = AutoTokenizer.from_pretrained(packaged_encoder())

    def __call__(self, texts: list[str]) -> dict:
        return self.tokenizer(texts, truncation=True, max_length=32, return_token_type_ids=False)


def data_of(examples: Examples, operations: str, seed: int) -> AugmentedTexts:
    rows = datasets.Dataset.from_dict({"text": list(examples.inputs), "labels": examples.labels.tolist()})
    if not operations:
        return AugmentedTexts(rows, TextAugmenter("case:0", seed), tokenize=Tokenize()).unaugmented()
    return AugmentedTexts(rows, TextAugmenter(operations, seed=seed), tokenize=Tokenize())


def with_slips(examples: Examples) -> Examples:
    texts = TEST_SLIPS.augment(list(examples.inputs))
    return Examples(texts, examples.labels, examples.clean, examples.classes)


def run(method: str, operations: str, seed: int, options: Options) -> dict:
    column = Column.parse(COLUMN)
    train, test = read(column, options.data_dir, seed, options.samples, "test", 0)
    made: Setting = setting(column, len(train.classes), seed, options.data_dir, layers=options.layers)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        args = SATConfig(
            output_dir=folder,
            **METHODS[method],
            num_train_epochs=options.epochs,
            learning_rate=1e-4,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=128,
            seed=seed,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="epoch",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SATTrainer(
            made.make_model(),
            args,
            data_collator=made.collator,
            train_dataset=data_of(train, operations, seed),
            compute_metrics=accuracy,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        found = [trainer.evaluate(data_of(each, "", 0))["eval_accuracy"] for each in (test, with_slips(test))]
    return {"accuracy": found[0], "accuracy_slips": found[1], "seconds": round(time.perf_counter() - begun, 1)}


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    path = Path(options.out)
    stored = json.loads(path.read_text()) if path.exists() else {"runs": []}
    same = {"samples": options.samples, "epochs": options.epochs, "layers": options.layers}
    known = [{key: row[key] for key in ("method", "way", "seed", *same)} for row in stored["runs"]]
    for seed in map(int, options.seeds.split(",")):
        for method in METHODS:
            for way, operations in WAYS.items():
                cell = {"method": method, "way": way, "seed": seed, **same}
                if cell in known:
                    continue
                stored["runs"].append({**cell, "operations": operations, **run(method, operations, seed, options)})
                print(*stored["runs"][-1].values(), flush=True)
                about = {"column": COLUMN, "device": device_name(), "torch": torch.__version__}
                path.write_text(json.dumps({**stored, **about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
