"""What a step of each method costs over the plain Trainer's: time, and peak memory. Writes `results/cost.json`.

    python recipes/benchmarks/cost.py --steps 120

Time: plain Trainer and method train in one process, a step at a time in turn, from batch to batch; the median of the
ratios of neighbouring steps. Memory: each trains alone in a process of its own; on a GPU the most that was allocated,
on CPU the most that was resident.
"""

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from noisy_labels.methods import method
from small_bert import CLASSES, Sentences, bert, device_name, trainer_of
from transformers import HfArgumentParser, Trainer, TrainingArguments, logging
from turns import CLOCK, in_turn, median_ms, ratio

from hf_sat import SATConfig, SATTrainer

RESULTS = Path(__file__).parent / "results"
PLAIN = "ce"
# "sat" as it is stays before its onset in so few steps; from the first step on it corrects at each.
METHODS = "ls_positive,ls_negative,gce,sce,elr,bootstrap,sat_paper:sat_start_epoch=0,sat,sat:sat_start_epoch=0"


@dataclass
class Options:
    methods: str = field(default=METHODS, metadata={"help": "As in grid.py, comma-separated."})
    steps: int = field(default=120, metadata={"help": "Steps of each; the first tenth is not counted."})
    memory_steps: int = field(default=10, metadata={"help": "Steps of each while memory is measured."})
    batch_size: int = field(default=8, metadata={"help": "Examples a step, of 32 tokens."})
    examples: int = field(default=100_000, metadata={"help": "Size of the training set."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    memory_of: str | None = field(default=None, metadata={"help": "Only print the peak memory of a method, in bytes."})
    out: str = field(default=str(RESULTS / "cost.json"), metadata={"help": "File of the result."})


def trainer(name: str, options: Options, folder: str, steps: int, classes: int = CLASSES) -> Trainer:
    chosen = method(name)
    kind, config = (Trainer, TrainingArguments) if chosen.plain else (SATTrainer, SATConfig)
    same = {"max_steps": steps, "per_device_train_batch_size": options.batch_size}
    settings = chosen.settings_for(steps * options.batch_size / options.examples)
    data, make_model = Sentences(options.examples, classes=classes), partial(bert, classes=classes)
    return trainer_of(kind, config, folder, data, make_model=make_model, **same, **settings)


def time_over_plain(name: str, options: Options, folder: str) -> dict[str, float]:
    trainers = [trainer(one, options, folder, options.steps) for one in (PLAIN, name)]
    plain, ours = in_turn(trainers)
    return {"plain_ms": median_ms(plain), "ms": median_ms(ours), "ratio": ratio(ours, plain)}


def peak_memory(name: str, options: Options, folder: str) -> int:
    """Of this process, which should have done nothing else."""
    trainer(name, options, folder, options.memory_steps).train()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def peak_resident() -> int:
    """Not `getrusage`, whose peak a process inherits from the one that started it, on Linux."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def peak_memory_alone(name: str, options: Options) -> int:
    flags = {**asdict(options), "memory_of": name}
    argv = [str(part) for flag, value in flags.items() for part in (f"--{flag}", value)]
    done = subprocess.run([sys.executable, __file__, *argv], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def measure(options: Options, folder: str) -> dict:
    plain_bytes = peak_memory_alone(PLAIN, options)
    rows = []
    for name in options.methods.split(","):
        extra = {"extra_bytes": peak_memory_alone(name, options) - plain_bytes}
        rows.append({"method": name, **time_over_plain(name, options, folder), **extra})
        print("{method}: {ratio:.3f} of the plain step, {extra_bytes:+,} bytes".format(**rows[-1]), flush=True)
    kind = "allocated on the device" if torch.cuda.is_available() else "resident in the process"
    return {
        "device": device_name(),
        "torch": torch.__version__,
        "clock": CLOCK,
        "memory": f"the most that was {kind}",
        "steps": options.steps,
        "batch_size": options.batch_size,
        "examples": options.examples,
        "plain_bytes": plain_bytes,
        "rows": rows,
    }


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory_of is not None:
            print(peak_memory(options.memory_of, options, folder))
            return
        result = measure(options, folder)
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
