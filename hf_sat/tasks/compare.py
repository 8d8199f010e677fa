"""SATTrainer, and the plain Trainer beside it, on the same task: same labels, same seed, same first weights."""

from transformers import Trainer

from ..config import SATConfig
from ..quiet import no_weight_bars
from ..trainer import SATTrainer
from .machine import require
from .results import Result, print_results, save_results
from .run import Task, args_below, length_of, quiet_args, save_run, train_and_evaluate, trainer_of

PLAIN_FOLDER = "plain"


def compare(task: Task, args: SATConfig, with_plain: bool = True) -> list[Result]:
    """Train, report, and print the table. Every process calls it; the main one writes and prints.

    Leaves in `args.output_dir` the model, `labels.parquet` (see `LabelReport`) and `results.json`; the plain Trainer's
    checkpoints lie in `plain` below it. `args.resume_from_checkpoint` is a checkpoint of SATTrainer's, or "true" for
    the last one there is; the plain Trainer then goes on from its own last one.

    With gradient accumulation, or more than one process, upstream's loss of BERT and DistilBERT is too large by that
    factor for the plain Trainer: compare without either.

    Args:
        with_plain: run the plain Trainer too, first.

    Returns:
        The results, SATTrainer's last.

    Raises:
        ModuleNotFoundError: before training, without rich.
    """
    require("rich", extra="recipes")
    args = quiet_args(args)
    is_main = args.process_index == 0
    stages = [("plain Trainer", _run_plain), ("SATTrainer", _run_sat)][0 if with_plain else 1 :]
    results = []
    with no_weight_bars():
        for number, (name, run) in enumerate(stages, start=1):
            if is_main:
                print(f"{number}/{len(stages)} {name}: {task.title}, {length_of(args)}", flush=True)
            results.append(run(task, args, name))
    if is_main:
        save_results(results, args.output_dir)
        print_results(results, task.title, len(task.validation or ()), args.output_dir)
    return results


def _run_plain(task: Task, args: SATConfig, name: str) -> Result:
    return train_and_evaluate(trainer_of(Trainer, task, args_below(args, PLAIN_FOLDER)), name, task.metric)


def _run_sat(task: Task, args: SATConfig, name: str) -> Result:
    trainer = trainer_of(SATTrainer, task, args)
    result = train_and_evaluate(trainer, name, task.metric)
    save_run(trainer, result, task)
    return result
