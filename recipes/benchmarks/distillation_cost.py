"""What a step with a teacher costs over the plain Trainer's, and how fast a cache is built.

    python recipes/benchmarks/distillation_cost.py --steps 80

All ways train in one process, a step at a time in turn, from batch to batch: the plain Trainer on the student alone,
SATTrainer with a live teacher, and SATTrainer with cached logits; beside them runs the bare forward pass of the
teacher. A cache is then built batch by batch in turn with a bare loop over the same batches. The student is a BERT of
four layers, its teacher one of eight; for sentences with six classes, and for tokens with a hundred, of which the cache
keeps the eight largest logits. Writes `results/distillation_cost.json`.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from small_bert import Sentences, Tokens, bert, device_name, token_bert, trainer_of
from torch.utils.data import DataLoader
from transformers import HfArgumentParser, PreTrainedModel, Trainer, TrainingArguments, default_data_collator, logging
from turns import CLOCK, Turns, in_turn, median_ms, ratio

from hf_sat import SATConfig, SATTrainer
from hf_sat.teacher_cache import TeacherCache

RESULTS = Path(__file__).parent / "results"
TEACHER_LAYERS = 8
KD = {"label_correction": "none", "kd_weight": 0.5}
CLOCKS = {"wall": (time.perf_counter, CLOCK), "cpu": (time.process_time, f"processor time {CLOCK}")}
PLAIN, LIVE, CACHED, BARE = "plain", "live teacher", "cached teacher", "bare teacher"


@dataclass(frozen=True)
class Head:
    """What is classified.

    Args:
        data: rows -> a data set.
        model: layers -> a model.
        cache: settings of its cache.
    """

    data: Callable
    model: Callable[[int], PreTrainedModel]
    cache: dict[str, Any]


HEADS = {
    "sentences": Head(Sentences, lambda layers: bert(layers=layers), {}),
    "tokens": Head(Tokens, lambda layers: token_bert(layers=layers), {"kd_cache_top_k": 8}),
}


@dataclass
class Options:
    heads: str = field(default=",".join(HEADS), metadata={"help": "sentences, tokens, or both with a comma."})
    steps: int = field(default=80, metadata={"help": "Steps of each; the first tenth is not counted."})
    batch_size: int = field(default=8, metadata={"help": "Examples a step, of 32 tokens."})
    cached_examples: int = field(default=1000, metadata={"help": "Examples of the cache that is built."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    clock: str = field(default="wall", metadata={"help": "wall, or cpu on a machine that does other things too."})
    out: str = field(default=str(RESULTS / "distillation_cost.json"), metadata={"help": "File of the result."})


def measure(head: Head, options: Options, folder: str) -> dict[str, Any]:
    """Steps of all ways, and the building of a cache."""
    teacher = head.model(TEACHER_LAYERS).eval()
    return {**steps(head, teacher, options, folder), **building(head, teacher, options, folder)}


def steps(head: Head, teacher: PreTrainedModel, options: Options, folder: str) -> dict[str, Any]:
    rows, cache = options.steps * options.batch_size, {"kd_cache_dir": f"{folder}/logits", **head.cache}
    trainers = {
        PLAIN: trainer(head, rows, options, folder, None, {}),
        LIVE: trainer(head, rows, options, folder, teacher, KD),
        CACHED: trainer(head, rows, options, folder, teacher, {**KD, **cache}),
    }
    beside = partial(bare, head, teacher, options)
    seconds = in_turn(list(trainers.values()), beside, clock=CLOCKS[options.clock][0])
    seconds = dict(zip([*trainers, BARE], seconds, strict=True))
    both = [plain + bare for plain, bare in zip(seconds[PLAIN], seconds[BARE], strict=True)]
    return {
        "ms": {way: median_ms(each) for way, each in seconds.items()},
        "cached_over_plain": ratio(seconds[CACHED], seconds[PLAIN]),
        "live_over_plain": ratio(seconds[LIVE], seconds[PLAIN]),
        "live_over_plain_and_teacher": ratio(seconds[LIVE], both),
    }


def trainer(
    head: Head, rows: int, options: Options, folder: str, teacher: PreTrainedModel | None, settings: dict
) -> Trainer:
    kind, config = (SATTrainer, SATConfig) if settings else (Trainer, TrainingArguments)
    same = {"max_steps": options.steps, "per_device_train_batch_size": options.batch_size}
    same["per_device_eval_batch_size"] = options.batch_size  # of a cache that is built
    made = trainer_of(kind, config, folder, head.data(rows), make_model=lambda: head.model(4), **same, **settings)
    made.teacher_model = teacher
    return made


def bare(head: Head, teacher: PreTrainedModel, options: Options, turns: Turns, player: int) -> None:
    """The teacher's forward pass on a batch that is there."""
    data = head.data(options.batch_size)
    batch = default_data_collator([data[i] for i in range(options.batch_size)])
    for _ in range(options.steps):
        forward(teacher, batch)
        turns.hand_over(player)


@torch.no_grad()
def forward(teacher: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
    device = teacher.device
    teacher(**{name: value.to(device) for name, value in batch.items() if name != "labels"})


def building(head: Head, teacher: PreTrainedModel, options: Options, folder: str) -> dict[str, Any]:
    """Seconds of a bare loop over those of a cache, all that belongs to it included, and examples a second."""
    turns, rows = Turns(2, CLOCKS[options.clock][0]), options.cached_examples
    settings = {**KD, **head.cache, "kd_cache_dir": f"{folder}/new"}
    builds = Building(turns, trainer(head, rows, options, folder, teacher, settings))
    turns.run([builds.run, partial(bare_loop, head, teacher, options, turns, 1)])
    cache, loop = (sum(seconds[1:]) for seconds in turns.seconds)  # the first turn is what comes before
    return {"cached_examples_per_second": rows / cache, "cache_over_bare_loop": loop / cache}


class Building:
    """Trains a step, handing over as its cache is begun, after each batch that is written, and as it is whole."""

    def __init__(self, turns: Turns, trainer: Trainer):
        self.turns, self.trainer = turns, trainer
        trainer.args.max_steps = 1
        fill = trainer._filled_cache

        def filled() -> TeacherCache:
            turns.hand_over(0)
            cache = fill()
            turns.hand_over(0)
            return cache

        trainer._filled_cache = filled

    def run(self) -> None:
        write = TeacherCache.write

        def written(*args) -> None:
            write(*args)
            self.turns.hand_over(0)

        TeacherCache.write = written
        try:
            self.trainer.train()
        finally:
            TeacherCache.write = write


def bare_loop(head: Head, teacher: PreTrainedModel, options: Options, turns: Turns, player: int) -> None:
    turns.hand_over(player)
    for batch in DataLoader(head.data(options.cached_examples), options.batch_size, collate_fn=default_data_collator):
        forward(teacher, batch)
        turns.hand_over(player)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    heads = {}
    for name in options.heads.split(","):
        with tempfile.TemporaryDirectory() as folder:
            heads[name] = measure(HEADS[name], options, folder)
        print(name, heads[name], flush=True)
    same = {
        "device": device_name(),
        "torch": torch.__version__,
        "clock": CLOCKS[options.clock][1],
        "steps": options.steps,
    }
    same |= {"batch_size": options.batch_size, "cached_examples": options.cached_examples}
    Path(options.out).write_text(json.dumps({**same, "heads": heads}, indent=1) + "\n")


if __name__ == "__main__":
    main()
