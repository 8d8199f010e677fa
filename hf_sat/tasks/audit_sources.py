"""The rows of an audit as they stand in a file, a folder of images, or a data set of the Hub.

Each kind of table has `columns`, `warnings`, `unreadable` (row -> why), `suffixes` (of a file it can write),
`values(column)` and `write(path, column, labels, kept)`; see `CsvTable` of audit_csv.py for what they do.
"""

import csv
import json
import os
from dataclasses import dataclass, field
from typing import Any

from .audit_csv import CsvTable, read_csv
from .audit_json import JsonTable, read_json
from .audit_options import AuditOptions
from .pictures import EXTENSIONS

FILE, LABEL = "file", "label"  # columns of a folder of images


@dataclass
class ArrowTable:
    """Rows of a Parquet file, or of a `datasets.Dataset`.

    Args:
        table: a `pyarrow.Table`.
        classes: names of the classes of columns that hold their numbers.
    """

    table: Any
    classes: dict[str, list[str]]
    warnings: list[str] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    suffixes = (".parquet",)

    def __post_init__(self):
        self.columns = self.table.column_names

    def __len__(self) -> int:
        return len(self.table)

    def values(self, column: str) -> list[Any]:
        return self.table.column(column).to_pylist()

    def write(self, path: str, column: str, labels: dict[int, Any], kept: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        given, place = self.table.column(column), self.table.schema.get_field_index(column)
        new = [labels.get(i, value) for i, value in enumerate(given.to_pylist())]
        kind = given.type.value_type if pa.types.is_dictionary(given.type) else given.type
        new = pa.chunked_array([pa.array(new, type=kind)]).cast(given.type)
        table = self.table.set_column(place, self.table.schema.field(place), new).append_column(kept, given)
        pq.write_table(table.replace_schema_metadata(_with_column(table.schema.metadata, column, kept)), path)


def _with_column(metadata: dict | None, column: str, kept: str) -> dict | None:
    """What `datasets` remembers of the columns, with the one more."""
    known = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = known.get("info", {}).get("features", {})
    if column not in features:
        return metadata
    features[kept] = features[column]
    return {**metadata, b"huggingface": json.dumps(known).encode()}


def read_parquet(path: str) -> ArrowTable:
    """Read a Parquet file.

    Raises:
        ValueError: where it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file that can be read: {error}") from None
    known = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = known.get("info", {}).get("features", {})
    return ArrowTable(table, {name: kind["names"] for name, kind in features.items() if "names" in kind})


@dataclass
class ImageFolder:
    """Images of a folder, sorted by path; the class is the folder an image lies in."""

    root: str
    files: list[str]
    warnings: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)
    columns = (FILE, LABEL)
    suffixes = (".csv",)

    def __len__(self) -> int:
        return len(self.files)

    def values(self, column: str) -> list[str | None]:
        if column == FILE:
            return self.files
        return [os.path.basename(os.path.dirname(file)) or None for file in self.files]

    def write(self, path: str, column: str, labels: dict[int, str], kept: str) -> None:
        """A CSV file, as a folder cannot hold both labels."""
        given = self.values(LABEL)
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([FILE, LABEL, kept])
            writer.writerows([name, labels.get(i, given[i]), given[i]] for i, name in enumerate(self.files))


def read_folder(root: str) -> Any:
    """The images below a folder, or the data set that `save_to_disk` left in it.

    Raises:
        ValueError: where there are neither.
    """
    if os.path.exists(os.path.join(root, "state.json")):
        import datasets

        return _arrow(datasets.load_from_disk(root))
    found = sorted(
        os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
        for folder, _, names in os.walk(root)
        for name in names
        if not name.startswith(".")
    )
    images = [name for name in found if name.lower().endswith(EXTENSIONS)]
    if not images:
        raise ValueError(
            f"{root}: there is no image in this folder; put them into class folders ({root}/cat/1.jpg), or name a file."
        )
    others = len(found) - len(images)
    return ImageFolder(
        root, images, [f"{others} files are no images by their names; they are left out."] * (others > 0)
    )


def _arrow(dataset: Any) -> ArrowTable:
    classes = {name: kind.names for name, kind in dataset.features.items() if hasattr(kind, "names")}
    return ArrowTable(dataset.with_format("arrow")[:], classes)


def _read_hub(options: AuditOptions) -> ArrowTable:
    if os.path.splitext(options.data)[1] in READERS or options.data.count("/") > 1:
        raise ValueError(f"{options.data}: there is no such file under {os.getcwd()!r}.")
    import datasets

    try:
        return _arrow(datasets.load_dataset(options.data, options.config_name, split=options.split))
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{options.data}: there is no such file or folder under {os.getcwd()!r}, and the Hub does not give it "
            f"({error})."
        ) from None


READERS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    ".parquet": "parquet",
}


def read_table(options: AuditOptions) -> CsvTable | JsonTable | ArrowTable | ImageFolder:
    """The rows of what `options.data` names: a file, a folder, or else a name on the Hub.

    Raises:
        ValueError: where it cannot be read.
    """
    path = options.data
    if os.path.isdir(path):
        return read_folder(path)
    if not os.path.isfile(path):
        return _read_hub(options)
    kind = READERS.get(os.path.splitext(path)[1].lower())
    if kind is None:
        raise ValueError(f"{path}: a file ends in one of {', '.join(READERS)}; rename or convert it.")
    if kind == "parquet":
        return read_parquet(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except PermissionError:
        raise ValueError(f"{path}: you may not read this file; change its mode, or copy it.") from None
    name = os.path.basename(path)
    if kind == "json":
        return read_json(data, name, options.encoding)
    wanted = [column for column in (options.text, options.label, options.image) if column]
    return read_csv(data, name, wanted, options.encoding, options.delimiter)
