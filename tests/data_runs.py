"""A run whose targets tell which rows they belong to.

The model's prediction depends on the example, the momentum is 0 and the learning rate too, so that each target must end
as the prediction for its own row.
"""

from dataclasses import dataclass

import datasets
import numpy as np
import torch
from small import bert, make_trainer, pad, text_rows
from transformers import BatchEncoding

from hf_sat import SATTrainer

N, EPOCHS = 21, 2
BASE = text_rows(N)
PROBE = {
    "sat_momentum": 0,
    "sat_start_epoch": 0,
    "learning_rate": 0.0,
    "num_train_epochs": EPOCHS,
    "sat_reweight": False,
    "per_device_train_batch_size": 4,
}


def telling_model(classes: int = 4):
    """Its predictions differ from example to example by more than rounding."""
    return bert(0.0, classes, initializer_range=0.4)


def predictions(model, rows) -> np.ndarray:
    """The model's own, example by example, without any Trainer."""
    model.eval()
    with torch.no_grad():
        return np.stack([model(torch.tensor([row])).logits[0].softmax(-1).numpy() for row in rows])


def train(folder, data, collator=pad, trainer=SATTrainer, **settings):
    made = make_trainer(folder, telling_model(), data, trainer, collator, **{**PROBE, **settings})
    made.train()
    return made


ALL = list(range(N))
SHUFFLED = np.random.default_rng(1).permutation(N).tolist()


def table(name="labels", **columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": BASE["input_ids"], name: BASE["labels"], **columns})


def with_extras() -> datasets.Dataset:
    return table(text=[f"row {i}" for i in ALL], weight=np.linspace(0, 1, N), ragged=[[[0]] * (i % 3) for i in ALL])


def encode(batch: dict) -> dict:
    """A transform that makes the model's inputs of a column the model does not know."""
    ids = [BASE["input_ids"][int(text.split()[1])] for text in batch["text"]]
    return {"input_ids": ids, "labels": batch["labels"]}


def raw() -> datasets.Dataset:
    return with_extras().remove_columns("input_ids")


class Items(torch.utils.data.Dataset):
    """A map-style data set of whatever `make` gives for a row of the base data."""

    def __init__(self, make, order=ALL):
        self.make = make
        self.order = order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, i):
        at = self.order[i]
        return self.make(BASE["input_ids"][at], BASE["labels"][at], at)


@dataclass
class Example:
    input_ids: list
    labels: int


def of_dataclasses(items):
    return pad([vars(item) for item in items])


def of_tuples(items):
    return pad([{"input_ids": ids, "labels": label} for ids, label in items])


def of_names(items):
    """Labels are words in the data set and numbers in the batch."""
    return pad([{**item, "labels": "abcd".index(item["labels"])} for item in items])


def shifted(items):
    """The data set counts from 1, the model from 0."""
    return pad([{**item, "labels": item["labels"] - 1} for item in items])


def encoded(items):
    return BatchEncoding(pad(items))


def plain_items(order=ALL):
    return Items(lambda ids, label, at: {"input_ids": ids, "labels": label}, order)


names = datasets.ClassLabel(names=list("abcd"))
# name -> (data set, rows of the base data, settings)
DATASETS = {
    "labels": lambda: (table(), ALL, {}),
    "label": lambda: (table("label"), ALL, {}),
    "ClassLabel": lambda: (table("label").cast_column("label", names), ALL, {}),
    "int8": lambda: (table().cast_column("labels", datasets.Value("int8")), ALL, {}),
    "bool": lambda: (table().cast_column("labels", datasets.Value("uint8")), ALL, {}),
    "extra columns": lambda: (with_extras(), ALL, {}),
    "extra columns kept": lambda: (with_extras(), ALL, {"remove_unused_columns": False}),
    "set_transform": lambda: (raw().with_transform(encode), ALL, {}),
    "set_transform, columns kept": lambda: (raw().with_transform(encode), ALL, {"remove_unused_columns": False}),
    "torch": lambda: (table().with_format("torch"), ALL, {}),
    "numpy": lambda: (with_extras().with_format("numpy"), ALL, {}),
    "arrow chunks": lambda: (
        datasets.concatenate_datasets([table().select(ALL[:7]), table().select(ALL[7:])]),
        ALL,
        {},
    ),
    "selected": lambda: (table().select(SHUFFLED[:9]), SHUFFLED[:9], {}),
    "shuffled": lambda: (table().select(SHUFFLED).sort("labels"), sorted(SHUFFLED, key=BASE["labels"].__getitem__), {}),
    "transform on a selection": lambda: (raw().with_transform(encode).select(SHUFFLED), SHUFFLED, {}),
    "list of dicts": lambda: (list(plain_items()), ALL, {}),
    "python numbers": lambda: (plain_items(), ALL, {}),
    "numpy numbers": lambda: (Items(lambda x, y, i: {"input_ids": np.array(x), "label": np.int64(y)}), ALL, {}),
    "tensors": lambda: (Items(lambda x, y, i: {"input_ids": torch.tensor(x), "labels": torch.tensor(y)}), ALL, {}),
    "ragged extras": lambda: (Items(lambda x, y, i: {"input_ids": x, "labels": y, "pairs": [[1], [2, 3]]}), ALL, {}),
    "subset": lambda: (torch.utils.data.Subset(table(), SHUFFLED[:9]), SHUFFLED[:9], {}),
    "subset of a transform": lambda: (torch.utils.data.Subset(raw().with_transform(encode), SHUFFLED), SHUFFLED, {}),
    "concatenated": lambda: (plain_items(ALL[:5]) + plain_items(ALL[5:]), ALL, {}),
    "one example": lambda: (table().select([4]), [4], {}),
    "batch above data": lambda: (table().select(ALL[:5]), ALL[:5], {"per_device_train_batch_size": 64}),
    "dataclasses": lambda: (Items(lambda x, y, i: Example(x, y)), ALL, {"collator": of_dataclasses}),
    "tuples": lambda: (Items(lambda x, y, i: (x, y)), ALL, {"collator": of_tuples}),
    "words": lambda: (Items(lambda x, y, i: {"input_ids": x, "labels": "abcd"[y]}), ALL, {"collator": of_names}),
    "words in a table": lambda: (
        table().remove_columns("labels").add_column("labels", ["abcd"[y] for y in BASE["labels"]]),
        ALL,
        {"collator": of_names},
    ),
    "shifted": lambda: (
        table().map(lambda row: {"labels": row["labels"] + 1}),
        ALL,
        {"collator": shifted, "remove_unused_columns": False},
    ),
    "BatchEncoding": lambda: (table(), ALL, {"collator": encoded}),
}
