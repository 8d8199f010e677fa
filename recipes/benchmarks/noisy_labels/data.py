"""One reader for all columns: what a run trains on, with given and clean labels, and what it is measured on.

The data lie outside of the repository, in `--data_dir`; their README says where they come from. With `--data_dir hub`
what is on the Hub is read from there.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from hf_sat.noise import inject_label_noise

from .columns import Column
from .hub import DATA_DIR as HUB
from .hub import hub_tables

NUM_HELD_OUT = 1000


@dataclass(frozen=True)
class Source:
    """Where a data set lies.

    Args:
        train, test: files under the data folder; without a test file, 2,000 fixed rows of the first are the test.
        label: column of the clean labels.
        max_length: tokens of a text; longer ones are cut.
    """

    train: str
    test: str | None
    label: str
    max_length: int = 48


SOURCES = {
    "trec": Source("trec_weak/train.tsv", "trec_weak/test.tsv", "gold", max_length=32),
    "trec_fine": Source("trec/train.tsv", "trec/test.tsv", "fine", max_length=32),
    "sst": Source("sst/sst2_sentences_train.tsv", "sst/sst2_sentences_test.tsv", "label"),
    "subj": Source("subj/subj.tsv", None, "label"),
    "ag": Source("ag_news_weak/train_5k_title_description.tsv", "ag_news_weak/test.tsv", "gold"),
    "cifar": Source("cifar10n/train_*.parquet", "cifar10n/test.parquet", "label"),
}
REAL_NOISE = {"weak": "weak_majority_vote", "aggre": "aggre_label", "worse": "worse_label"}
NOT_COVERED = -1  # no rule of the weak labels spoke


@dataclass(frozen=True)
class Examples:
    """Inputs with the labels given to training and the clean ones.

    Args:
        inputs: N texts, or images (N, 3, H, W) uint8.
        labels, clean: (N,) int64.
        classes: their names.
    """

    inputs: Sequence[str] | np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "Examples":
        inputs = self.inputs[rows] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in rows]
        return replace(self, inputs=inputs, labels=self.labels[rows], clean=self.clean[rows])

    def with_clean_labels(self) -> "Examples":
        return replace(self, labels=self.clean)

    @property
    def is_wrong(self) -> np.ndarray:
        return self.labels != self.clean


def read(
    column: Column, data_dir: str, seed: int, samples: int = 0, split: str = "held_out", eval_samples: int = 0
) -> tuple[Examples, Examples]:
    """Training and held-out examples of a cell.

    Args:
        column: data and noise.
        data_dir: folder of the data, or "hub".
        seed: of the sample and of the injected noise.
        samples: training examples; 0 takes all there are.
        split: "held_out" measures on 1,000 examples of the training file that depend on the seed and are not trained
            on, for choosing; "test" on the test file, for reporting.
        eval_samples: at most so many of the test file, the same for all seeds; 0 takes all.
    """
    rows, test = tables(data_dir, column.data)
    rows = rows.sample(frac=1, random_state=seed)
    if split == "held_out":
        test, rows = rows[:NUM_HELD_OUT], rows[NUM_HELD_OUT:]
    elif split == "test":
        test = test.sample(min(eval_samples or len(test), len(test)), random_state=0)
    else:
        raise ValueError(f"split={split!r}: choose held_out or test")
    given = REAL_NOISE.get(column.noise, "clean")
    if given not in rows:
        where = "on the Hub; name a data_dir with its files" if data_dir == HUB else f"in data_dir={data_dir!r}"
        raise ValueError(f"column {column}: {column.data!r} has no labels {column.noise!r} {where}")
    rows = rows[rows[given] != NOT_COVERED]
    if samples > len(rows):
        raise ValueError(f"samples={samples}: {column} has {len(rows)} for training")
    train = _examples(rows[: samples or None], given)
    return _with_noise(train, column, seed), _examples(test, "clean")


def _with_noise(examples: Examples, column: Column, seed: int) -> Examples:
    if column.injected is None:
        return examples
    kind, rate = column.injected
    columns = {"labels": examples.labels}
    if kind == "instance":
        columns["inputs"] = list(examples.inputs)
    noisy = inject_label_noise(
        datasets.Dataset.from_dict(columns), rate, kind, seed=seed, num_classes=len(examples.classes)
    )
    return replace(examples, labels=np.asarray(noisy["labels"][:]))


@lru_cache
def tables(data_dir: str, data: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows: "input", a text or bytes of an image, and class numbers: "clean", and real noisy ones."""
    train, test = hub_tables(data) if data_dir == HUB else _file_tables(Path(data_dir), SOURCES[data])
    classes = [str(name) for name in sorted(train["label"].unique())]
    train, test = _numbered(train, classes), _numbered(test, classes)
    # A few questions and sentences stand twice, or in the test file too.
    return train[~train["input"].duplicated() & ~train["input"].isin(test["input"])], test


def _file_tables(folder: Path, source: Source) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows as they are in the files: "input", "label", and names of real noisy labels."""
    train = _file_table(folder, source.train, source.label)
    if source.test is not None:
        return train, _file_table(folder, source.test, source.label)
    train = train.sample(frac=1, random_state=0)
    return train[2000:], train[:2000]


def _file_table(folder: Path, pattern: str, label: str) -> pd.DataFrame:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"data_dir={str(folder)!r}: there is no {pattern} in it")
    if files[0].suffix == ".parquet":
        table = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    else:
        table = pd.read_csv(files[0], sep="\t", keep_default_na=False)
    return table.rename(columns={"image_webp": "input", "text": "input", label: "label"})


def _numbered(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """The inputs, and labels as numbers of classes; -1 is none of them."""
    rows = pd.DataFrame({"input": table["input"]})
    for name, column in (("clean", "label"), *zip(REAL_NOISE.values(), REAL_NOISE.values())):
        if column in table:
            rows[name] = pd.Index(classes).get_indexer(table[column].astype(str))
    rows.attrs["classes"] = classes
    return rows


def _examples(rows: pd.DataFrame, given: str) -> Examples:
    inputs = rows["input"].tolist()
    if inputs and isinstance(inputs[0], bytes):
        inputs = np.stack([_pixels(image) for image in inputs])
    labels, clean = (rows[name].to_numpy(np.int64) for name in (given, "clean"))
    return Examples(inputs, labels, clean, rows.attrs["classes"])


@lru_cache(maxsize=60_000)
def _pixels(image: bytes) -> np.ndarray:
    """(3, H, W) uint8, decoded once in a process."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).transpose(2, 0, 1)
