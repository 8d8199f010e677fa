"""What a step of SAM costs over the plain Trainer's: time, and peak memory. Writes `results/sam_cost.json`.

    python recipes/benchmarks/sam_cost.py --steps 60

All ways of a model train in one process, a step at a time in turn, from batch to batch: the plain Trainer, SATTrainer
with SAM, with ASAM and with late SAM, and SAM with a loop over the parameters, as in https://github.com/davda54/sam.
Beside them runs a bare forward and backward pass, which is what SAM cannot do without. Extra memory is the most that
tensors take during a run, less the same of the plain Trainer, over the size of the trainable weights.
"""

import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peak_memory import HOW, peak_bytes
from per_parameter_sam import PerParameterSAM
from small_bert import Sentences, bert, device_name, trainer_of
from transformers import HfArgumentParser, Trainer, TrainingArguments, default_data_collator, logging
from turns import CLOCK, Turns, in_turn, median_ms, ratio, warm_up

from hf_sat import SATConfig, SATTrainer

RESULTS = Path(__file__).parent / "results"
LATE = 0.85
OFF = {"label_correction": "none"}
WAYS = {
    "plain": (Trainer, TrainingArguments, {}),
    "sam": (SATTrainer, SATConfig, {**OFF, "sam": "sam"}),
    "asam": (SATTrainer, SATConfig, {**OFF, "sam": "asam"}),
    "per-parameter loop": (PerParameterSAM, TrainingArguments, {}),
    "late sam": (SATTrainer, SATConfig, {**OFF, "sam": "sam", "sam_start": LATE}),
}
BARE = "bare forward and backward"


@dataclass(frozen=True)
class Size:
    width: int
    batch_size: int
    tokens: int


# The heavy one has many parameters and small batches, so that what is done to each parameter weighs most.
SIZES = {"small": Size(256, 8, 32), "heavy": Size(768, 2, 16)}


@dataclass
class Options:
    models: str = field(default=",".join(SIZES), metadata={"help": "small, heavy, or both with a comma."})
    steps: int = field(default=60, metadata={"help": "Steps of each; the first tenth is not counted."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    out: str = field(default=str(RESULTS / "sam_cost.json"), metadata={"help": "File of the result."})


def measure(name: str, steps: int, threads: int, folder: str) -> dict:
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    size = SIZES[name]
    model = bert(size.width)
    result = {"model": name, "parameters": model.num_parameters(), "batch_size": size.batch_size, "tokens": size.tokens}
    trainers = {way: trainer(way, size, steps, folder) for way in WAYS}

    def bare(turns: Turns, player: int) -> None:
        batch = [Sentences(size.batch_size, size.tokens)[i] for i in range(size.batch_size)]
        there = {key: value.to(trainers["plain"].args.device) for key, value in default_data_collator(batch).items()}
        model.to(trainers["plain"].args.device).train()
        for _ in range(steps):
            model(**there).loss.backward()
            model.zero_grad()
            turns.hand_over(player)

    seconds = dict(zip([*WAYS, BARE], in_turn(list(trainers.values()), bare), strict=True))
    memory = {way: peak_of_run(way, size, folder) for way in WAYS if way != "late sam"}
    weights = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    two_passes = [plain + bare for plain, bare in zip(seconds["plain"], seconds[BARE], strict=True)]
    ways = {BARE: {"ms": median_ms(seconds[BARE])}}
    for way in WAYS:
        ways[way] = {"ms": median_ms(seconds[way])}
        if way == "late sam":
            ways[way] |= {"ms": None, "over_plain": over_plain_late(seconds, steps)}
        elif way != "plain":
            extra = (memory[way] - memory["plain"]) / weights
            over = {"over_plain": ratio(seconds[way], seconds["plain"])}
            ways[way] |= {**over, "over_plain_and_pass": ratio(seconds[way], two_passes), "extra_memory": extra}
    return {**result, "weight_bytes": weights, "ways": ways}


def over_plain_late(seconds: dict[str, list[float]], steps: int) -> float:
    """Cost of a whole run: its plain and its SAM part each by their medians, weighed by their shares."""
    late, plain = seconds["late sam"], seconds["plain"]
    plain_steps = sum(step < LATE * steps for step in range(steps))
    at = plain_steps - warm_up(steps)
    share = plain_steps / steps
    return share * ratio(late[:at], plain[:at]) + (1 - share) * ratio(late[at:], plain[at:])


def trainer(way: str, size: Size, steps: int, folder: str) -> Trainer:
    kind, config, settings = WAYS[way]
    data = Sentences(steps * size.batch_size, size.tokens)
    same = {"max_steps": steps, "per_device_train_batch_size": size.batch_size}
    return trainer_of(kind, config, folder, data, size.width, **same, **settings)


def peak_of_run(way: str, size: Size, folder: str) -> int:
    """Of three steps: from the second on the optimizer has its state, and the way what it keeps."""
    return peak_bytes(lambda: trainer(way, size, 3, folder).train())


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)  # which the result names
    models = []
    # Each model in a process of its own, as people train: an allocator that has served other models hands a plain step
    # memory that it would otherwise ask the system for at each step.
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models.split(","):
            with ProcessPoolExecutor(1, spawn) as own_process:
                models.append(own_process.submit(measure, name, options.steps, options.threads, folder).result())
            print(name, *models[-1]["ways"].items(), sep="\n  ", flush=True)
    same = {"device": device_name(), "torch": torch.__version__, "clock": CLOCK, "memory": HOW, "steps": options.steps}
    Path(options.out).write_text(json.dumps({**same, "models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
