"""Token labels made by a dictionary: WikiGold's distant tags, the plain Trainer against SATTrainer.

    python recipes/benchmarks/ner.py --data_dir ../shared/data --seeds 0,1

MiniLM-L6 learns from the distant tags of WikiGold's training sentences; span F1 is against the gold tags of its test
sentences, at the last epoch. Writes `results/ner.json`: also how well the report finds the tags that are wrong.
"""

import json
import platform
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import HfArgumentParser, Trainer, logging

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.results import Result, add_corrections, clean_labels
from hf_sat.tasks.run import Task, train_and_evaluate, trainer_of
from hf_sat.tasks.tokens import TokenOptions, token_task

RESULTS = Path(__file__).parent / "results" / "ner.json"


@dataclass
class Options:
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder that holds ner/wikigold_*.conll."})
    seeds: str = field(default="0", metadata={"help": "Comma-separated."})
    epochs: int = field(default=5, metadata={"help": "Length of training."})


def task_of(folder: Path, args: SATConfig) -> Task:
    """The distant tags to train on, the gold ones to measure against."""
    options = TokenOptions(
        train_file=str(folder / "wikigold_train.conll"),
        validation_file=str(folder / "wikigold_test.conll"),
        tokens_column="token",
        label_column="distant",
        clean_label_column="gold",
        max_length=128,
    )
    return token_task(options, args)


def run(kind: type[Trainer], seed: int, options: Options) -> dict:
    """Train once, measure after each epoch."""
    with tempfile.TemporaryDirectory() as output:
        args = SATConfig(
            output_dir=output,
            num_train_epochs=options.epochs,
            learning_rate=1e-4,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="epoch",
            seed=seed,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            bf16=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        task = task_of(Path(options.data_dir) / "ner", args)
        trainer = trainer_of(kind, task, args)
        result = train_and_evaluate(trainer, kind.__name__, task.metric)
    row = {
        "trainer": result.name,
        "seed": seed,
        "f1": result.score,
        "f1_by_epoch": result.score_by_epoch,
    }
    return row | (found(trainer, result, task.train) if kind is SATTrainer else {})


def found(trainer: SATTrainer, result: Result, train: datasets.Dataset) -> dict:
    """How well the report finds the distant tags that are not gold."""
    report = trainer.label_report()
    add_corrections(result, report, train)
    wrong = report.columns["given_label"] != clean_labels(train)
    suspicion = -report.columns["label_quality"]
    return {
        "tokens": len(wrong),
        "wrong": int(wrong.sum()),
        "auroc": float(roc_auc_score(wrong, suspicion)),
        "average_precision": float(average_precision_score(wrong, suspicion)),
        "corrected": result.corrected,
        "precision": result.precision or 0.0,
        "recall": result.recall,
    }


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    rows = [run(kind, int(seed), options) for seed in options.seeds.split(",") for kind in (Trainer, SATTrainer)]
    about = {"device": f"CPU {platform.machine()}", "torch": torch.__version__, "epochs": options.epochs}
    RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    for name in ("Trainer", "SATTrainer"):
        scores = [row["f1"] for row in rows if row["trainer"] == name]
        print(f"{name}: span F1 {100 * statistics.mean(scores):.1f} over {len(scores)} seeds")
    print(rows[-1])


if __name__ == "__main__":
    main()
