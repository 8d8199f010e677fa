"""JSON as it is found: an array of objects, or an object in each line; a line that holds none is left as it is."""

import json
from dataclasses import dataclass, field
from typing import Any

from .audit_csv import decode


@dataclass
class JsonTable:
    """Rows of a JSON array, or of a file with an object in each line (`lines`)."""

    rows: list[dict]
    lines: bool
    indent: int | None
    encoding: str
    warnings: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)
    raw: dict[int, str] = field(default_factory=dict)  # lines that hold no object

    def __post_init__(self):
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self.suffixes = (".jsonl", ".ndjson", ".json") if self.lines else (".json",)

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> list[Any]:
        return [row.get(column) for row in self.rows]

    def write(self, path: str, column: str, labels: dict[int, Any], kept: str) -> None:
        rows = [
            {**row, column: labels.get(i, row.get(column)), kept: row.get(column)} for i, row in enumerate(self.rows)
        ]
        # Halves of surrogate pairs, which no encoding has, go back to the escapes they came from.
        with open(path, "w", encoding=self.encoding, newline="\n", errors="backslashreplace") as file:
            if not self.lines:
                json.dump(rows, file, ensure_ascii=False, indent=self.indent)
                return
            for number, row in enumerate(rows):
                file.write(self.raw.get(number) or json.dumps(row, ensure_ascii=False))
                file.write("\n")


def read_json(data: bytes, name: str, encoding: str | None = None) -> JsonTable:
    """Read an array of objects, or an object in each line.

    Raises:
        ValueError: where it is neither.
    """
    text, encoding, warnings = decode(data, name, encoding)
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is no valid JSON: {error}.") from None
        indent = 2 if text.lstrip()[1:].lstrip(" ").startswith(("\n", "\r")) else None
        table = JsonTable([row if isinstance(row, dict) else {} for row in rows], False, indent, encoding, warnings)
        table.unreadable = {i: "is no JSON object" for i, row in enumerate(rows) if not isinstance(row, dict)}
        return table
    lines = [line for line in text.split("\n") if line.strip()]
    rows = [_object(line) for line in lines]
    bad = {i: "is no JSON object" for i, row in enumerate(rows) if row is None}
    if len(bad) > len(rows) // 2 or not rows:
        raise ValueError(f"{name} holds neither an array of objects nor an object in each line; write one of the two.")
    raw = {i: lines[i].rstrip("\r") for i in bad}
    return JsonTable([row or {} for row in rows], True, None, encoding, warnings, bad, raw)


def _object(line: str) -> dict | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
