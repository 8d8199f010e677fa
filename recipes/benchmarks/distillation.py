"""How much of its teacher's accuracy a student of half its layers keeps, and what it would have without the teacher.

    nice -n 5 python recipes/benchmarks/distillation.py --data_dir ../shared/data --seeds 0,1,2

MiniLM-L6 is fine-tuned on real text and distilled by the functions of `recipes/distill_bert.py`; for each seed another
sample of the training file. `--split held_out` measures on held-out training data, for choosing;
`--split test` on the test file, for reporting. Writes `results/distillation.json`; other data sets go with `--out` into
files beside it, named `distillation_on_<data>.json`.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from noisy_labels.columns import Column
from noisy_labels.data import SOURCES, Examples, read
from noisy_labels.hub import source_of
from small_bert import device_name
from transformers import HfArgumentParser, logging

from hf_sat.tasks.distill import distill_texts, read_distill_options
from hf_sat.tasks.text import Texts

RESULTS = Path(__file__).parent / "results"
# Chosen on held-out training data of TREC. Both students start from the pretrained layers, so that the one without the
# teacher has heard nothing of it.
CHOSEN = (
    "--student_layers 0,1,2 --student_start pretrained --per_device_train_batch_size 32 --num_train_epochs 8 "
    "--learning_rate 4e-4 --teacher_num_train_epochs 8 --teacher_learning_rate 2e-4 "
    "--kd_weight 0.9 --kd_temperature 5 --kd_hidden_weight 30"
)


@dataclass
class Options:
    data_dir: str = field(
        default="../shared/data", metadata={"help": "Folder of the data; hub: by their names on the Hub."}
    )
    data: str = field(default="trec", metadata={"help": "Data set: trec, trec_fine, sst, subj or ag."})
    samples: int = field(default=1000, metadata={"help": "Training examples; 0 takes all."})
    eval_samples: int = field(default=0, metadata={"help": "At most so many examples of the test file; 0 takes all."})
    split: str = field(default="test", metadata={"help": "What is measured on: test or held_out."})
    seeds: str = field(default="0,1,2", metadata={"help": "Seeds, comma-separated."})
    flags: str = field(default=CHOSEN, metadata={"help": "Flags of the recipe, in one string; default those chosen."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    out: str = field(default=str(RESULTS / "distillation.json"), metadata={"help": "File of the result."})


def one_seed(options: Options, seed: int, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What came of a seed, and the settings of its run."""
    column = Column.parse(f"{options.data}/clean")
    examples = read(column, options.data_dir, seed, options.samples, options.split, options.eval_samples)
    texts = Texts(*map(as_dataset, examples), column="text", source=options.data)
    flags = (
        f"--output_dir {folder} --save_strategy no --report_to none --bf16 true --use_cpu {not_cuda()} --seed {seed} "
    )
    flags += f"--max_length {SOURCES[options.data].max_length} {options.flags}"
    settings, args = read_distill_options(flags.split())
    (teacher, alone, student), _ = distill_texts(texts, settings, args)
    row = {
        "seed": seed,
        **{result.name: result.score for result in (teacher, alone, student)},
        "kept": student.kept,
        "speed_up": student.speed_up,
        "seconds": {result.name: result.seconds for result in (teacher, alone, student)},
    }
    told = {
        "train": len(texts.train),
        "held_out": len(texts.validation),
        "teacher_epochs": settings.teacher_num_train_epochs or args.num_train_epochs,
        "teacher_learning_rate": settings.teacher_learning_rate or args.learning_rate,
        "epochs": args.num_train_epochs,
        "learning_rate": args.learning_rate,
        "batch_size": args.per_device_train_batch_size,
        "kd_weight": args.kd_weight,
        "kd_temperature": args.kd_temperature,
        "kd_loss": args.kd_loss,
        "kd_hidden_weight": args.kd_hidden_weight,
        "kd_hidden_loss": args.kd_hidden_loss,
        "student_layers": settings.student_layers,
        "student_start": settings.student_start,
        "parameters": {"teacher": teacher.parameters, "student": student.parameters},
        "weight_bytes": {"teacher": teacher.weight_bytes, "student": student.weight_bytes},
    }
    return row, told


def as_dataset(examples: Examples) -> datasets.Dataset:
    features = {"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=examples.classes)}
    columns = {"text": list(examples.inputs), "labels": examples.labels}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def not_cuda() -> bool:
    return not torch.cuda.is_available()


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    about = {"device": device_name(), "torch": torch.__version__, "precision": "bfloat16 autocast"}
    about |= {"data": options.data, "source": source_of(options.data_dir), "split": options.split}
    rows = []
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            row, settings = one_seed(options, seed, folder)
        rows.append(row)
        print(row, flush=True)
        # After each, so that a run that is stopped leaves what it has.
        Path(options.out).write_text(json.dumps({**about, **settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
