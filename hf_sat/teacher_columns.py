"""Columns of its own for a teacher with another tokenizer or image processor: `teacher_input_ids` and so on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .config.checks import refuse
from .sample_ids import StreamAround

PREFIX = "teacher_"
# Where a batch carries what its collator made of those columns.
TEACHER_KEY = "teacher_inputs"
STREAM_WAY_OUT = (
    "a torch IterableDataset does not tell its columns: give them in a datasets.IterableDataset "
    "(IterableDataset.from_generator) or in a data set with a length"
)


def add_teacher_columns(
    dataset: datasets.Dataset, processing: Callable, columns: str | Sequence[str], **settings: Any
) -> datasets.Dataset:
    """The data set with what a teacher reads beside what the student reads, each name after "teacher_".

    Args:
        dataset: has the raw texts or images.
        processing: the teacher's tokenizer or image processor.
        columns: of the raw inputs: a text, two for pairs of texts, or an image.
        settings: of the processing, such as `truncation=True, max_length=128`.

    Raises:
        ValueError: for a column that is not there.

    Example:
        >>> data = datasets.Dataset.from_dict({"text": ["good", "bad"], "input_ids": [[5], [6]], "labels": [1, 0]})
        >>> def tokenize(texts):
        ...     return {"input_ids": [[len(text)] for text in texts]}
        >>> add_teacher_columns(data, tokenize, "text")["teacher_input_ids"][:]
        [[4], [3]]
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    for column in columns:
        if column not in dataset.column_names:
            raise refuse("columns", column, f"the data set has no such column, it has {dataset.column_names}.")

    def process(rows: Mapping[str, list]) -> dict[str, Any]:
        processed = processing(*(rows[column] for column in columns), **settings)
        return {PREFIX + name: values for name, values in processed.items()}

    return dataset.map(process, batched=True, desc="columns of the teacher")


def teacher_column_names(dataset: Any) -> list[str]:
    """Columns that are meant for a teacher."""
    names = getattr(dataset, "column_names", None)
    if names is None and isinstance(dataset, datasets.IterableDataset):
        names = [name for item in dataset.take(1) for name in item]
    if names is None and not isinstance(dataset, torch.utils.data.IterableDataset) and len(dataset):
        first = dataset[0]
        names = list(first) if isinstance(first, Mapping) else []
    return [name for name in names or [] if name.startswith(PREFIX)]


class WithoutTeacherColumns(StreamAround):
    """A stream that does not tell its columns, and whose items may have none for a teacher: with those that the student
    does not know they would be removed in silence.
    """

    def _item(self, item: Any) -> Any:
        names = [name for name in item if name.startswith(PREFIX)] if isinstance(item, Mapping) else []
        if names:
            raise ValueError(
                f"train_dataset has items with {names}, which are the teacher's inputs by their name and would not "
                f"reach it, as {STREAM_WAY_OUT}; or rename or remove them, so that the teacher reads the student's."
            )
        return item


class TeacherCollator:
    """The user's collator for the student, beside one for the columns of a teacher.

    Args:
        collate: items -> batch, the user's; sees no column of the teacher.
        processing: the teacher's tokenizer, to pad with; default: zeros, or `pad_token_id` for ids.
        pad_token_id: of the teacher.
    """

    def __init__(self, collate: Callable, processing: Any = None, pad_token_id: int | None = None):
        self.collate = collate
        self.processing = processing
        self.pad_token_id = pad_token_id or 0

    def __call__(self, items: list[Mapping]) -> Mapping:
        theirs = [{name.removeprefix(PREFIX): item[name] for name in item if name.startswith(PREFIX)} for item in items]
        batch = self.collate([{name: item[name] for name in item if not name.startswith(PREFIX)} for item in items])
        batch[TEACHER_KEY] = self._together(theirs)
        return batch

    def _together(self, items: list[Mapping]) -> dict[str, Tensor]:
        if hasattr(self.processing, "pad") and "input_ids" in items[0]:
            return dict(self.processing.pad(items, return_tensors="pt"))
        columns = {name: [torch.as_tensor(item[name]) for item in items] for name in items[0]}
        if "input_ids" in columns and "attention_mask" not in columns:
            columns["attention_mask"] = [torch.ones_like(ids) for ids in columns["input_ids"]]
        return {name: self._stacked(name, values) for name, values in columns.items()}

    def _stacked(self, name: str, values: list[Tensor]) -> Tensor:
        if len({value.shape for value in values}) == 1:
            return torch.stack(values)
        fill = self.pad_token_id if name == "input_ids" else 0
        return pad_sequence(values, batch_first=True, padding_value=fill)
