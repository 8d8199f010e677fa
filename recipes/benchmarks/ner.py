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
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    logging,
    set_seed,
)

from hf_sat import SATConfig, SATTrainer
from hf_sat.tasks.text import packaged_encoder

RESULTS = Path(__file__).parent / "results" / "ner.json"
IGNORED = -100


@dataclass
class Options:
    data_dir: str = field(default="../shared/data", metadata={"help": "Folder that holds ner/wikigold_*.conll."})
    seeds: str = field(default="0", metadata={"help": "Comma-separated."})
    epochs: int = field(default=5, metadata={"help": "Length of training."})


def read(path: Path) -> list[list[list[str]]]:
    """Sentences of (token, gold tag, distant tag)."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    sentences = [[line.split("\t") for line in block.splitlines() if not line.startswith("# ")] for block in blocks]
    return [sentence for sentence in sentences if sentence]


def encode(sentences: list, column: int, tokenizer, tags: list[str]) -> datasets.Dataset:
    """The first piece of each word has the word's tag, the others none."""
    words = [[row[0] for row in sentence] for sentence in sentences]
    rows = tokenizer(words, is_split_into_words=True, truncation=True, max_length=128)
    rows["labels"] = []
    for number, sentence in enumerate(sentences):
        pieces, before = rows.word_ids(number), None
        labels = []
        for word in pieces:
            labels.append(IGNORED if word is None or word == before else tags.index(sentence[word][column]))
            before = word
        rows["labels"].append(labels)
    return datasets.Dataset.from_dict(dict(rows))


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """(first, end, type) of each BIO span; an I that follows nothing of its type begins one."""
    found, start, kind = set(), None, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if start is not None and (prefix != "I" or name != kind):
            found.add((start, i, kind))
            start = None
        if prefix != "O" and start is None:
            start, kind = i, name
    return found


def span_f1(prediction: EvalPrediction, tags: list[str]) -> dict[str, float]:
    """Micro F1 of exact spans over the counted tokens; a `compute_metrics`."""
    shared = guessed = gold = 0
    for logits, labels in zip(prediction.predictions, prediction.label_ids):
        counted = labels != IGNORED
        truth = spans([tags[i] for i in labels[counted]])
        guess = spans([tags[i] for i in logits[counted].argmax(axis=-1)])
        shared, guessed, gold = shared + len(truth & guess), guessed + len(guess), gold + len(truth)
    return {"f1": 2 * shared / max(guessed + gold, 1)}


def run(kind: type[Trainer], seed: int, options: Options) -> dict:
    folder = Path(options.data_dir) / "ner"
    train, test = read(folder / "wikigold_train.conll"), read(folder / "wikigold_test.conll")
    tags = sorted({row[1] for sentence in train + test for row in sentence})
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder())
    distant, gold = encode(train, 2, tokenizer, tags), encode(train, 1, tokenizer, tags)
    set_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(packaged_encoder(), num_labels=len(tags))
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
        trainer = kind(
            model,
            args,
            train_dataset=distant,
            eval_dataset=encode(test, 1, tokenizer, tags),
            data_collator=DataCollatorForTokenClassification(tokenizer),
            compute_metrics=partial(span_f1, tags=tags),
        )
        trainer.train()
    scores = [log["eval_f1"] for log in trainer.state.log_history if "eval_f1" in log]
    result = {"trainer": kind.__name__, "seed": seed, "f1": scores[-1], "f1_by_epoch": scores}
    return result | (found(trainer, gold) if kind is SATTrainer else {})


def found(trainer: SATTrainer, gold: datasets.Dataset) -> dict:
    """How well the report finds the distant tags that are not gold."""
    report = trainer.label_report().columns
    clean = np.concatenate([[label for label in row if label != IGNORED] for row in gold["labels"]])
    wrong = report["given_label"] != clean
    suspicion = -report["label_quality"]
    changed = report["is_label_issue"]
    right = (report["corrected_label"] == clean) & changed
    return {
        "tokens": len(clean),
        "wrong": int(wrong.sum()),
        "auroc": float(roc_auc_score(wrong, suspicion)),
        "average_precision": float(average_precision_score(wrong, suspicion)),
        "corrected": int(changed.sum()),
        "precision": float(right.sum() / max(changed.sum(), 1)),
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
