"""CSV as it is found: any usual delimiter and encoding, quotes or none, and rows that do not fit."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

DELIMITERS = ",\t;|"
SNIFFED = 100_000  # characters
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decode(data: bytes, name: str, encoding: str | None = None) -> tuple[str, str, list[str]]:
    """The text of a file, its encoding, and what is to be told about it.

    Raises:
        ValueError: where the encoding named does not fit, or the file is no text.

    Example:
        >>> decode("café".encode("cp1252"), "menu.csv")[:2]
        ('café', 'cp1252')
    """
    if encoding is not None:
        try:
            return data.decode(encoding), encoding, []
        except LookupError:
            raise ValueError(
                f"--encoding {encoding!r}: Python knows no such encoding; utf-8 is the usual one."
            ) from None
        except UnicodeDecodeError as error:
            raise ValueError(f"--encoding {encoding!r}: {name} does not fit it ({error}); leave it out.") from None
    guess = next((guess for bom, guess in BOMS.items() if data.startswith(bom)), None)
    if guess is None and b"\0" in data[:4096]:
        raise ValueError(
            f"{name} is no text file (it has zero bytes); name its --encoding if it is, such as utf-16-le."
        )
    for candidate in [guess or "utf-8", "cp1252", "latin-1"]:
        try:
            text = data.decode(candidate)
        except UnicodeDecodeError as error:
            bad = error.start
            continue
        if candidate == (guess or "utf-8"):
            return text, candidate, []
        line = data.count(b"\n", 0, bad) + 1
        return text, candidate, [f"{name} is not UTF-8 (line {line}); read as {candidate}. Name it with --encoding."]
    raise AssertionError("latin-1 decodes everything")


@dataclass
class CsvTable:
    """The rows of a CSV file, as they are written there.

    Args:
        columns: the header.
        rows: cells; of rows that do not fit the header, too.
        form: arguments of `csv.writer` that write it likewise, and the encoding.
        unreadable: row -> why it cannot be used.
    """

    columns: list[str]
    rows: list[list[str]]
    form: dict
    encoding: str
    warnings: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)
    suffixes = (".csv", ".tsv", ".txt")

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> list[str | None]:
        """The cells of a column; None where a row does not have it."""
        place = self.columns.index(column)
        return [row[place] if place < len(row) else None for row in self.rows]

    def write(self, path: str, column: str, labels: dict[int, str], kept: str) -> None:
        """The same file with `labels` (by row) in `column`, and what was there in a last column `kept`."""
        place, width = self.columns.index(column), len(self.columns)
        with open(path, "w", encoding=self.encoding, newline="") as file:
            writer = csv.writer(file, **self.form)
            writer.writerow([*self.columns, kept])
            for number, row in enumerate(self.rows):
                cells = row + [""] * (width - len(row))
                given = cells[place]
                cells[place] = labels.get(number, given)
                writer.writerow([*cells, given] if len(row) <= width else row)


def read_csv(
    data: bytes, name: str, wanted: Sequence[str] = (), encoding: str | None = None, delimiter: str | None = None
) -> CsvTable:
    """Read a CSV file with a header.

    Args:
        data: content of the file.
        name: of the file, for messages.
        wanted: columns it should have; they help to find the delimiter.
        encoding, delimiter: as named; None finds them.

    Raises:
        ValueError: where the file has no header and rows in any delimiter.
    """
    text, encoding, warnings = decode(data, name, encoding)
    if "\0" in text:
        text, warnings = text.replace("\0", ""), [*warnings, f"{name} has zero bytes; they are left out."]
    if not text.strip():
        raise ValueError(f"{name} is empty; it needs a header and rows.")
    with _any_length():
        delimiter = delimiter or _delimiter(text, name, wanted)
        spaced = _is_spaced(text, delimiter)
        records, quoting, note = _records(text, name, delimiter, spaced)
    columns, *rows = records
    columns = [column.strip() for column in columns]
    form = {
        "delimiter": delimiter,
        "quoting": quoting,
        "lineterminator": "\r\n" if "\r\n" in text[:SNIFFED] else "\n",
        "quotechar": '"' if quoting == csv.QUOTE_MINIMAL else None,
    }
    table = CsvTable(columns, rows, form, encoding, warnings + note)
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            table.unreadable[number] = f"{len(row)} fields where the header has {len(columns)}"
    return table


def _records(text: str, name: str, delimiter: str, spaced: bool) -> tuple[list[list[str]], int, list[str]]:
    """Non-empty records; where quotes are not used as CSV uses them, they are characters like others.

    A stray quote at the start of a cell would swallow all up to the next one, and many rows with it.
    """
    try:
        return _parse(text, delimiter, skipinitialspace=spaced, strict=True), csv.QUOTE_MINIMAL, []
    except csv.Error as error:
        plain = _parse(text, delimiter, quoting=csv.QUOTE_NONE)
        if all(len(row) == len(plain[0]) for row in plain):
            return plain, csv.QUOTE_NONE, [f"{name}: quotes in it are unbalanced; they are read as plain characters."]
        note = f"{name}: quotes in it are unbalanced ({error}); some rows may have been read as one."
        return _parse(text, delimiter, skipinitialspace=spaced), csv.QUOTE_MINIMAL, [note]


def _parse(text: str, delimiter: str, **form) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **form) if row]


def _delimiter(text: str, name: str, wanted: Sequence[str]) -> str:
    """The one that gives most rows the width of the header, which names more than one column."""
    best = (0, 0.0, "")
    for delimiter in DELIMITERS:
        rows = _parse(text[:SNIFFED], delimiter)
        rows = rows[:-1] if len(text) > SNIFFED and len(rows) > 2 else rows
        if len(rows[0]) < 2:
            continue
        header = [cell.strip() for cell in rows[0]]
        fitting = sum(len(row) == len(header) for row in rows) / len(rows)
        named = sum(column in header for column in wanted)
        best = max(best, (named, fitting, delimiter), key=lambda found: found[:2])
    if not best[2]:
        raise ValueError(
            f"{name}: its first line, {text.lstrip().splitlines()[0][:80]!r}, is no header of two columns or more; "
            "name the --delimiter, or add a header."
        )
    return best[2]


def _is_spaced(text: str, delimiter: str) -> bool:
    """Whether cells stand apart from their delimiters, as in `text, label`; quotes are only seen without the space."""
    header = text.splitlines()[0].split(delimiter)
    return delimiter != "\t" and all(cell.startswith(" ") for cell in header[1:])


@contextmanager
def _any_length() -> Iterator[None]:
    """Cells of any length; the limit is the module's."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
