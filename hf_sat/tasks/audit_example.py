"""Real text to try an audit on, without a download: the docstring sentences of the recipes, some labels made wrong."""

import os

from ..noise import inject_label_noise
from .corpus import docstring_corpus


def write_example(folder: str, num_rows: int = 1000, noise_rate: float = 0.1) -> str:
    """Write `docstrings.csv` with the columns "text", "label" (a library), and "clean_label" to compare with.

    Returns:
        The path of the file.
    """
    train = docstring_corpus(num_rows, 4)["train"]
    noisy = inject_label_noise(train, noise_rate, "symmetric", label_column="label", seed=0)
    table, names = noisy.to_pandas(), train.features["label"].names
    for column in ("label", "clean_label"):
        table[column] = [names[label] for label in table[column]]
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "docstrings.csv")
    table[["text", "label", "clean_label"]].to_csv(path, index=False)
    return path
