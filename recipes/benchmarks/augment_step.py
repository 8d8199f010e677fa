"""What augmentation costs a training step: views made in two workers of the loader, beside texts tokenised before.

    python recipes/benchmarks/augment_step.py --steps 60

Both train in one process, a step at a time in turn, from batch to batch: three layers of MiniLM on sentences of 18 to
22 words. Writes `results/augment_step.json`.
"""

import json
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import datasets
import torch
from augment_speed import sentences_of
from noisy_labels.columns import Column
from noisy_labels.models import setting
from small_bert import device_name
from transformers import AutoTokenizer, HfArgumentParser, logging
from transformers.trainer_callback import PrinterCallback
from turns import CLOCK, in_turn, median_ms, ratio

from hf_sat import SATConfig, SATTrainer
from hf_sat.augment import AugmentedTexts, TextAugmenter
from hf_sat.tasks.text import packaged_encoder

RESULTS = Path(__file__).parent / "results"
OPERATIONS = "deletion:0.1,swap:0.1,insertion:0.1,case:0.1,shuffle:0.1"


@dataclass
class Options:
    steps: int = field(default=60, metadata={"help": "Steps of each; the first tenth is not counted."})
    batch_size: int = field(default=32, metadata={"help": "Texts of a batch."})
    workers: int = field(default=2, metadata={"help": "Workers of the loader."})
    sentences: int = field(default=2000, metadata={"help": "Different texts."})
    texts: str = field(default="", metadata={"help": "A file of sentences, as for augment_speed.py."})
    out: str = field(default=str(RESULTS / "augment_step.json"), metadata={"help": "File of the result."})


def trainer(data, workers: int, options: Options, folder: str) -> SATTrainer:
    made = setting(Column.parse("sst/clean"), 2, 0, "")
    args = SATConfig(
        output_dir=folder,
        label_correction="none",
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        dataloader_num_workers=workers,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    found = SATTrainer(made.make_model(), args, train_dataset=data, data_collator=made.collator)
    found.remove_callback(PrinterCallback)
    return found


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder())
    tokenize = partial(tokenizer, truncation=True, max_length=48, return_token_type_ids=False)
    texts = sentences_of(options)
    rows = datasets.Dataset.from_dict({"text": texts, "labels": [i % 2 for i in range(len(texts))]})
    ready = rows.map(tokenize, input_columns="text", batched=True).remove_columns("text")
    views = AugmentedTexts(rows, TextAugmenter(OPERATIONS), tokenize=tokenize)
    with tempfile.TemporaryDirectory() as folder:
        plain, augmented = in_turn(
            [trainer(ready, 0, options, folder), trainer(views, options.workers, options, folder)]
        )
    result = {"plain_ms": median_ms(plain), "augmented_ms": median_ms(augmented), "ratio": ratio(augmented, plain)}
    about = {"operations": OPERATIONS, "workers": options.workers, "batch_size": options.batch_size, "clock": CLOCK}
    print(result)
    Path(options.out).write_text(json.dumps({**result, **about, "device": device_name()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
