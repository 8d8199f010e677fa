"""The data sets by their names on the Hub, for machines with a network and without the folder of files.

Labels that people or rules made are not among them; those are in the files alone.
"""

from dataclasses import dataclass

import datasets
import pandas as pd

DATA_DIR = "hub"  # what `--data_dir` says for it
MOBILENET = "google/mobilenet_v2_1.0_224"


@dataclass(frozen=True)
class HubSource:
    """A data set with splits "train" and "test".

    Args:
        name: on the Hub.
        input: column of the texts or images.
        label: column of the clean labels.
    """

    name: str
    input: str
    label: str


SOURCES = {
    "trec": HubSource("SetFit/TREC-QC", "text", "label_coarse_original"),
    "trec_fine": HubSource("SetFit/TREC-QC", "text", "label_original"),
    "sst": HubSource("SetFit/sst2", "text", "label_text"),
    "subj": HubSource("SetFit/subj", "text", "label_text"),
    "ag": HubSource("fancyzhx/ag_news", "text", "label"),
    "cifar": HubSource("uoft-cs/cifar10", "img", "label"),
}


def source_of(data_dir: str) -> str:
    """What results say of their data: "hub" or "files", whose splits differ."""
    return "hub" if data_dir == DATA_DIR else "files"


def hub_tables(data: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows: "input", a text or the bytes of an image, and "label", the name of a class."""
    source = SOURCES[data]
    splits = datasets.load_dataset(source.name)
    return _table(splits["train"], source), _table(splits["test"], source)


def _table(split: datasets.Dataset, source: HubSource) -> pd.DataFrame:
    if isinstance(split.features[source.input], datasets.Image):
        split = split.cast_column(source.input, datasets.Image(decode=False))
    inputs = [one["bytes"] if isinstance(one, dict) else one for one in split[source.input]]
    feature, labels = split.features[source.label], list(split[source.label])
    names = feature.int2str(labels) if isinstance(feature, datasets.ClassLabel) else labels
    return pd.DataFrame({"input": inputs, "label": names})
