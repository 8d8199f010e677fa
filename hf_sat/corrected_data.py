"""The training set with what a run found about its labels."""

from typing import Any

import datasets
import numpy as np

from .audit import LabelReport
from .config.checks import one_of, refuse
from .samples import IGNORED, LABEL_NAMES

POLICIES = ("relabel", "drop", "soft")


def corrected_dataset(dataset: Any, report: LabelReport, label_key: str, policy: str = "relabel") -> Any:
    """The data set without its label issues.

    Args:
        dataset: a `datasets.Dataset`; or, to relabel it, any map-style data set whose items are mappings.
        report: the labels of its rows, in its order.
        label_key: name of the labels in a batch; the column may have another of the usual names.
        policy: "relabel" puts the corrected label in place of the given one; "drop" leaves examples with a label issue
            out (for tokens their labels, which become -100); "soft" leaves the label as it is and adds `soft_<column>`,
            the soft target over the classes.

    Returns:
        A `datasets.Dataset` with `given_<column>` beside the label column, and `label_quality` and `is_label_issue` of
        each example (for tokens of each counted one); for another data set a wrapper that relabels its items.

    Raises:
        ValueError: for another policy, a data set without a column of labels, labels that a transform or collator made
            otherwise, and for what only a `datasets.Dataset` can be given.
    """
    one_of("policy", policy, POLICIES)
    labels = report.columns["corrected_label"]
    if not isinstance(dataset, datasets.Dataset):
        if policy != "relabel":
            raise refuse("policy", policy, "train_dataset is no datasets.Dataset: take label_report().to_pandas().")
        return RelabelledDataset(dataset, _per_example(dataset, report, labels), label_key)
    column = next((name for name in (label_key, *LABEL_NAMES) if name in dataset.column_names), None)
    if column is None:
        raise ValueError(
            f"train_dataset has no column of labels, only {dataset.column_names}, as a transform or collator makes "
            "them: take label_report().to_pandas()."
        )
    given = dataset.with_format(None)[column][:]
    _check_language(_per_example(given, report, report.columns["given_label"]), given, column)
    marked = _with_provenance(dataset, report, column, given)
    if policy == "relabel":
        return _replaced(marked, column, _per_example(given, report, labels))
    if policy == "soft":
        return _with_soft_targets(marked, report, column)
    if "token_index" in report.columns:
        kept = np.where(report.columns["is_label_issue"], IGNORED, report.columns["given_label"])
        return _replaced(marked, column, _per_example(given, report, kept))
    return marked.select(np.flatnonzero(~report.columns["is_label_issue"]))


def _with_provenance(dataset: datasets.Dataset, report: LabelReport, column: str, given: list) -> datasets.Dataset:
    marks = {name: report.columns[name] for name in ("label_quality", "is_label_issue")}
    if "token_index" in report.columns:
        ends = np.cumsum([np.sum(np.asarray(sequence) != IGNORED) for sequence in given])[:-1].astype(int)
        marks = {name: [part.tolist() for part in np.split(values, ends)] for name, values in marks.items()}
    kept = dataset.add_column(f"given_{column}", given, feature=dataset.features[column])
    for name, values in marks.items():
        kept = kept.remove_columns(name) if name in kept.column_names else kept
        kept = kept.add_column(name, values if isinstance(values, list) else values.tolist())
    return kept


def _replaced(dataset: datasets.Dataset, column: str, values: list) -> datasets.Dataset:
    """The column with other values, in its place."""
    feature, order = dataset.features[column], dataset.column_names
    return dataset.remove_columns(column).add_column(column, values, feature=feature).select_columns(order)


def _with_soft_targets(dataset: datasets.Dataset, report: LabelReport, column: str) -> datasets.Dataset:
    if "token_index" in report.columns or report.soft_targets is None:
        raise refuse("policy", "soft", "it is for one label an example; take label_report().soft_targets() for tokens.")
    return dataset.add_column(f"soft_{column}", report.soft_targets().tolist())


def _check_language(seen: list, stored: list, column: str) -> None:
    """A transform or collator that makes labels of its own corrects labels of its own, too."""
    if seen != stored:
        raise ValueError(
            f"column {column!r} does not hold the labels that training saw, as a transform or collator makes them: "
            "take label_report().to_pandas() and translate its corrected_label back."
        )


def _per_example(given: Any, report: LabelReport, labels: np.ndarray) -> list:
    """Corrected labels by position; labels of tokens go back to where the counted ones stood."""
    if "token_index" not in report.columns:
        return labels.tolist()
    corrected, start = [], 0
    for sequence in given:
        sequence = np.array(sequence)
        counted = sequence != IGNORED
        end = start + int(counted.sum())
        sequence[counted] = labels[start:end]
        corrected.append(sequence.tolist())
        start = end
    return corrected


class RelabelledDataset:
    """A map-style data set that gives the corrected label with each item, and the old one as `given_<label>`."""

    def __init__(self, dataset: Any, labels: list, label_key: str):
        self.dataset = dataset
        self.labels = labels
        self.label_key = label_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict:
        item = dict(self.dataset[position])
        name = next((name for name in (self.label_key, *LABEL_NAMES) if name in item), self.label_key)
        return {**item, f"given_{name}": item.get(name), name: self.labels[position]}
