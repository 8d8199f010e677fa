"""Finding wrong labels: the report of one run of SATTrainer, beside cleanlab on the predictions of five trainings.

    python recipes/benchmarks/audit.py --columns trec/symmetric20,trec/pair40,ag/weak --seeds 0,1

Both have the same model, epochs and settings; the one run does as `hf-sat audit` does: texts of about the same length
share a batch, the lowest weights stay as they are, and training ends where the order of the labels has settled.
cleanlab takes out-of-sample probabilities of five folds, which cost five trainings on four fifths of the data, and is
used as its defaults have it: label quality by self-confidence, the noise rate from the confident joint. A pair of
column and seed that stands in `results/audit.json` is not run again.
"""

import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from noisy_labels.cell import machine
from noisy_labels.columns import Column, select
from noisy_labels.data import Examples, read
from noisy_labels.hub import source_of
from noisy_labels.models import Setting, setting
from noisy_labels.training import detection, fit, out_of_sample
from torch import nn
from transformers import HfArgumentParser, Trainer, TrainingArguments, logging

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.audit_stopping import StopWhenSettled

RESULTS = Path(__file__).parent / "results" / "audit.json"
COLUMNS = (
    "trec/symmetric20,trec/symmetric40,trec/pair20,trec/pair40,trec/instance20,trec/instance40,trec/weak,ag/weak,"
    "trec/clean,subj/clean"
)


@dataclass
class Options:
    columns: str = field(default=COLUMNS, metadata={"help": "data/noise, comma-separated; see columns.py."})
    seeds: str = field(default="0", metadata={"help": "Seeds of sample, noise, head and order, comma-separated."})
    epochs: int = field(default=5, metadata={"help": "Epochs of every training."})
    samples: int = field(default=1500, metadata={"help": "Training examples; 0: all there are."})
    layers: int = field(default=3, metadata={"help": "Layers of MiniLM, of its 6."})
    image_size: int = field(default=96, metadata={"help": "Side that images are resized to, in pixels."})
    bf16: bool = field(default=True, metadata={"help": "Autocast to bfloat16."})
    data_dir: str = field(
        default="../shared/data", metadata={"help": "Folder of the data; hub: by their names on the Hub."}
    )
    out: str = field(default=str(RESULTS), metadata={"help": "File of the results."})


def by_report(run: partial, made: Setting, train: Examples, is_image: bool) -> dict[str, Any]:
    """What the report of one run finds."""
    order = {} if is_image else {"train_sampling_strategy": "group_by_length"}
    run = partial(run, made=replace(made, make_model=lambda: frozen_below(made.make_model())), **order)
    trainer = run(SATTrainer, SATConfig, train=train, held_out=None, callback=StopWhenSettled)
    report = trainer.label_report()
    columns, rate = report.columns, report.noise_rate
    found = detection(train, columns["label_quality"], columns["is_label_issue"], columns["corrected_label"])
    visits = round(trainer.state.epoch)
    return {**found, "rate": rate.rate, "rate_low": rate.low, "rate_high": rate.high, "visits": visits}


def frozen_below(model: nn.Module) -> nn.Module:
    """The model with its embeddings, or the first half of its convolutions, left as they are."""
    if hasattr(model, "encoder"):
        lowest = [model.encoder.embeddings]
    else:
        body = model.network.mobilenet_v2
        lowest = [body.conv_stem, *body.layer[: len(body.layer) // 2]]
    for part in lowest:
        part.requires_grad_(False)
    return model


def by_cleanlab(run: partial, made: Setting, train: Examples, seed: int) -> dict[str, Any]:
    """What cleanlab finds in out-of-sample probabilities."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    plain = partial(run, Trainer, TrainingArguments, made=made)
    probabilities = out_of_sample(
        lambda examples, held_out: plain(train=examples, held_out=held_out), made, train, seed
    )
    issues = find_label_issues(train.labels, probabilities, n_jobs=1)
    found = detection(
        train, get_label_quality_scores(train.labels, probabilities), issues, probabilities.argmax(axis=1)
    )
    return {**found, "rate": float(1 - np.trace(estimate_joint(train.labels, probabilities)))}


def timed(work: Any, *args: Any) -> dict[str, Any]:
    begun = time.process_time()
    found = work(*args)
    return {**found, "cpu_seconds": round(time.process_time() - begun, 1)}


def run_pair(name: str, seed: int, options: Options) -> dict[str, Any]:
    column = Column.parse(name)
    train, _ = read(column, options.data_dir, seed, options.samples)
    made = setting(column, len(train.classes), seed, options.data_dir, options.layers, options.image_size)
    run = partial(fit, epochs=options.epochs, seed=seed, bf16=options.bf16)
    return {
        "wrong": float(train.is_wrong.mean()),
        "num_train": len(train),
        "report": timed(by_report, run, made, train, column.is_image),
        "cleanlab": timed(by_cleanlab, run, made, train, seed),
    }


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = Path(options.out)
    stored = json.loads(path.read_text()) if path.exists() else {"runs": []}
    same = {name: getattr(options, name) for name in ("epochs", "samples", "layers", "image_size", "bf16")}
    same["source"] = source_of(options.data_dir)
    known = [{key: row[key] for key in ("column", "seed", *same)} for row in stored["runs"]]
    for seed in map(int, options.seeds.split(",")):
        for name in select(options.columns):
            cell = {"column": name, "seed": seed, **same}
            if cell in known:
                continue
            found = run_pair(name, seed, options)
            stored["runs"].append({**cell, **found, **machine()})
            path.write_text(json.dumps(stored, indent=1) + "\n")
            print(name, seed, {key: found[key] for key in ("wrong", "report", "cleanlab")}, flush=True)


if __name__ == "__main__":
    main()
