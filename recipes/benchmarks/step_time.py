"""What a step of label correction costs over the plain Trainer's, from step begin to step end.

Two trainers of the same 4-layer BERT train in one process, a step at a time in turn, so that whatever else the machine
does hits both alike; medians are compared. On two processes it also says what they tell each other. Writes
`results/step_time.json`, or `results/step_time_2_processes.json`.

    python recipes/benchmarks/step_time.py --steps 120 --rows 10000,1000000
    accelerate launch --multi_gpu --num_processes 2 recipes/benchmarks/step_time.py --rows 10000 --use_cpu
"""

import json
import platform
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
)

from hf_sat import SATConfig, SATTrainer
from hf_sat.exchange import Exchange, InFlight

RESULTS = Path(__file__).parent / "results"


@dataclass
class Options:
    steps: int = field(default=120, metadata={"help": "Steps of each trainer; the first tenth is not counted."})
    batch_size: int = field(default=8, metadata={"help": "Examples a step, of 32 tokens."})
    rows: str = field(default="10000,100000,1000000", metadata={"help": "Sizes of the training set."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    use_cpu: bool = field(default=True, metadata={"help": "As the Trainer knows it; needed where two are launched."})


class Sentences(torch.utils.data.Dataset):
    """As many rows as wanted, none of them stored."""

    def __init__(self, rows: int):
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": torch.full((32,), i % 997), "labels": i % 6}


class Clocked:
    """Adds up what a method takes, call by call."""

    def __init__(self, owner: type, name: str):
        self.owner, self.name, self.method = owner, name, getattr(owner, name)
        self.seconds: list[float] = []

    def __enter__(self) -> "Clocked":
        def clocked(*args):
            begun = time.perf_counter()
            result = self.method(*args)
            self.seconds.append(time.perf_counter() - begun)
            return result

        setattr(self.owner, self.name, clocked)
        return self

    def __exit__(self, *error) -> None:
        setattr(self.owner, self.name, self.method)

    def median_ms(self) -> float:
        return 1e3 * statistics.median(self.seconds)


class TakeTurns(TrainerCallback):
    """Times each step and hands over to the other trainer after it."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore):
        self.mine, self.other = mine, other
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.begun)
        self.other.release()
        self.mine.acquire()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    size = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    return BertForSequenceClassification(BertConfig(vocab_size=1000, num_labels=6, **size))


def measure(rows: int, options: Options, folder: str) -> dict:
    """Median step of both, in milliseconds, and the median of the ratios of neighbouring steps."""
    turns = [threading.Semaphore(0), threading.Semaphore(0)]
    # The costly state: correction from the first step on.
    kinds = [(Trainer, TrainingArguments, {}), (SATTrainer, SATConfig, {"sat_start_epoch": 0, "sat_momentum": 0.9})]
    trainers, callbacks, threads = [], [], []
    for i, (trainer_class, config, settings) in enumerate(kinds):
        callback = TakeTurns(turns[i], turns[1 - i])
        args = config(
            output_dir=f"{folder}/{i}",
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            save_strategy="no",
            logging_steps=10 * options.steps,
            report_to=[],
            disable_tqdm=True,
            use_cpu=options.use_cpu,
            dataloader_pin_memory=False,
            **settings,
        )
        trainer = trainer_class(bert(), args, train_dataset=Sentences(rows), callbacks=[callback])
        trainers.append(trainer)
        callbacks.append(callback)
        threads.append(threading.Thread(target=run_in_turn, args=(trainer, turns[i], turns[1 - i])))
    with Clocked(Exchange, "start") as start, Clocked(InFlight, "wait") as wait:
        for thread in threads:
            thread.start()
        turns[0].release()
        for thread in threads:
            thread.join()
    plain, ours = (callback.seconds[options.steps // 10 :] for callback in callbacks)
    result = {
        "rows": rows,
        "plain_ms": 1e3 * statistics.median(plain),
        "sat_ms": 1e3 * statistics.median(ours),
        "ratio": statistics.median(b / a for a, b in zip(plain, ours)),
    }
    exchange = trainers[1]._correction.exchange
    if exchange is not None:
        message = 4 * exchange.width * (exchange.capacity + 1)
        result |= {"message_bytes": message, "send_ms": start.median_ms(), "wait_ms": wait.median_ms()}
    return result


def run_in_turn(trainer: Trainer, mine: threading.Semaphore, other: threading.Semaphore) -> None:
    mine.acquire()
    trainer.train()
    other.release()


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(int(rows), options, folder) for rows in options.rows.split(",")]
    processes = PartialState().num_processes
    device = f"CPU {platform.machine()}, {options.threads} thread in each of {processes} processes"
    result = {"device": device, "torch": torch.__version__, "rows": rows}
    if PartialState().is_main_process:
        RESULTS.mkdir(exist_ok=True)
        name = "step_time.json" if processes == 1 else f"step_time_{processes}_processes.json"
        (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n")
        for row in rows:
            print(row)


if __name__ == "__main__":
    main()
