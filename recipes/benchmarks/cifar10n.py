"""Labels that people gave carelessly: CIFAR-10N worse, the plain Trainer against SATTrainer.

    python recipes/benchmarks/cifar10n.py --data_dir ../shared/data --seeds 0
    python recipes/benchmarks/cifar10n.py --split held_out      # for choosing settings; stores nothing

MobileNetV2, pretrained on ImageNet, learns from the "worse" labels of the first 10,000 training pictures, 40 % of them
wrong; accuracy is on clean labels after the last epoch. "held_out" measures on 2,000 pictures of the second training
file, "test" on the test file. Everything goes through the task of `recipes/finetune_vit_sat.py`. Writes
`results/cifar10n.json`.
"""

import json
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import torch
from transformers import HfArgumentParser, logging

from hf_sat import SATConfig
from hf_sat.tasks.compare import compare
from hf_sat.tasks.images import ImageOptions, image_task
from hf_sat.tasks.results import Result
from hf_sat.tasks.run import Task

RESULTS = Path(__file__).parent / "results" / "cifar10n.json"
NUM_HELD_OUT = 2000


@dataclass
class Options:
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder that holds cifar10n and mobilenet_v2."})
    seeds: str = field(default="0", metadata={"help": "Comma-separated."})
    split: str = field(default="test", metadata={"help": "test, or held_out for choosing."})
    label: str = field(default="worse_label", metadata={"help": "Column of the labels that are trained on."})
    train_samples: int = field(default=10_000, metadata={"help": "The first so many training pictures."})
    eval_samples: int = field(default=10_000, metadata={"help": "The first so many test pictures."})
    epochs: float = field(default=8, metadata={"help": "Length of training."})
    image_size: int = field(default=48, metadata={"help": "Side of the pictures, pixels."})
    batch_size: int = field(default=32, metadata={"help": "Pictures of a step."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Largest; it falls to 0."})
    start: str = field(default="auto", metadata={"help": "sat_start_epoch."})
    momentum: str = field(default="auto", metadata={"help": "sat_momentum."})
    plain: bool = field(default=True, metadata={"help": "Run the plain Trainer too."})


def files(options: Options, folder: Path) -> tuple[str, str]:
    """Training and held-out pictures as Parquet files of their own."""
    source = Path(options.data_dir) / "cifar10n"
    train = pq.read_table(source / "train_0.parquet")[: options.train_samples]
    if options.split == "test":
        held_out = pq.read_table(source / "test.parquet")[: options.eval_samples]
    elif options.split == "held_out":
        held_out = pq.read_table(source / "train_1.parquet")[:NUM_HELD_OUT]
    else:
        raise ValueError(f"split={options.split!r}: choose held_out or test")
    for name, rows in {"train": train, "held_out": held_out}.items():
        pq.write_table(rows, folder / f"{name}.parquet")
    return str(folder / "train.parquet"), str(folder / "held_out.parquet")


def task_of(options: Options, args: SATConfig, folder: Path) -> Task:
    train, held_out = files(options, folder)
    wanted = ImageOptions(
        model_name_or_path=str(Path(options.data_dir) / "mobilenet_v2"),
        train_file=train,
        validation_file=held_out,
        label_column=options.label,
        clean_label_column="label",
        image_size=options.image_size,
    )
    task = image_task(wanted, args)
    make_model = task.make_model
    # A third faster on CPU; the weights are the same.
    task.make_model = lambda: make_model().to(memory_format=torch.channels_last)
    return task


def arguments(options: Options, seed: int, folder: Path) -> SATConfig:
    return SATConfig(
        output_dir=str(folder / "run"),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        warmup_steps=0.05,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=250,
        sat_start_epoch=options.start,
        sat_momentum=options.momentum,
        save_strategy="no",
        logging_strategy="epoch",
        seed=seed,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )


def run(options: Options, seed: int) -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        datasets.config.HF_DATASETS_CACHE = Path(name) / "cache"
        args = arguments(options, seed, Path(name))
        return compare(task_of(options, args, Path(name)), args, with_plain=options.plain)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    rows = []
    for seed in map(int, options.seeds.split(",")):
        rows += [{"seed": seed, **asdict(result)} for result in run(options, seed)]
    for name in dict.fromkeys(row["name"] for row in rows):
        scores = [row["score"] for row in rows if row["name"] == name]
        print(f"{name}: {100 * statistics.mean(scores):.1f} % over {len(scores)} seeds")
    if options.split != "test":
        sys.exit()
    threads = torch.get_num_threads()
    about = {"device": f"CPU {platform.machine()}, {threads} thread{'s' * (threads > 1)}", "torch": torch.__version__}
    settings = {name: value for name, value in asdict(options).items() if name not in ("data_dir", "plain")}
    RESULTS.write_text(json.dumps({**about, "settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
