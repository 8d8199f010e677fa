"""What a step of label correction costs over the plain Trainer's, from batch to batch.

Two trainers of the same 4-layer BERT train in one process, a step at a time in turn; medians are compared. On two
processes it also says what they tell each other. Writes `results/step_time.json`, or
`results/step_time_2_processes.json`.

    python recipes/benchmarks/step_time.py --steps 120 --rows 10000,1000000
    accelerate launch --multi_gpu --num_processes 2 recipes/benchmarks/step_time.py --rows 10000 --use_cpu
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from small_bert import Sentences, device_name, trainer_of
from transformers import HfArgumentParser, Trainer, TrainingArguments, logging
from turns import CLOCK, Clocked, in_turn, median_ms, ratio

from hf_sat import SATConfig, SATTrainer
from hf_sat.exchange import Exchange, InFlight

RESULTS = Path(__file__).parent / "results"
# The costly state: correction from the first step on.
WAYS = ((Trainer, TrainingArguments, {}), (SATTrainer, SATConfig, {"sat_start_epoch": 0, "sat_momentum": 0.9}))


@dataclass
class Options:
    steps: int = field(default=120, metadata={"help": "Steps of each trainer; the first tenth is not counted."})
    batch_size: int = field(default=8, metadata={"help": "Examples a step, of 32 tokens."})
    rows: str = field(default="10000,100000,1000000", metadata={"help": "Sizes of the training set."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    use_cpu: bool = field(default=True, metadata={"help": "As the Trainer knows it; needed where two are launched."})
    out: str = field(default=str(RESULTS), metadata={"help": "Folder of the results."})


def measure(rows: int, options: Options, folder: str) -> dict:
    """Median step of both, in milliseconds, and the median of the ratios of neighbouring steps."""
    same = {"max_steps": options.steps, "per_device_train_batch_size": options.batch_size, "use_cpu": options.use_cpu}
    trainers = [trainer_of(*way, folder, Sentences(rows), **same, **settings) for *way, settings in WAYS]
    with Clocked(Exchange, "start") as start, Clocked(InFlight, "wait") as wait:
        plain, ours = in_turn(trainers)
    result = {"rows": rows, "plain_ms": median_ms(plain), "sat_ms": median_ms(ours), "ratio": ratio(ours, plain)}
    exchange = trainers[1]._correction.exchange
    if exchange is not None:
        message = 4 * exchange.width * (exchange.capacity + 1)
        result |= {"message_bytes": message, "send_ms": start.median_ms(), "wait_ms": wait.median_ms()}
    return result


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(int(rows), options, folder) for rows in options.rows.split(",")]
    processes = PartialState().num_processes
    device = device_name() if processes == 1 else f"{device_name()} in each of {processes} processes"
    how = {"clock": CLOCK, "steps": options.steps, "batch_size": options.batch_size}
    result = {"device": device, "torch": torch.__version__, **how, "rows": rows}
    if PartialState().is_main_process:
        name = "step_time.json" if processes == 1 else f"step_time_{processes}_processes.json"
        (Path(options.out) / name).write_text(json.dumps(result, indent=1) + "\n")
        for row in rows:
            print(row)


if __name__ == "__main__":
    main()
