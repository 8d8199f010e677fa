"""What an audit leaves and prints: the table of all labels, the page, the corrected data, and a few lines."""

import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..audit import REPORT_FILE, LabelReport
from .audit_data import AuditData

PAGE_FILE, SKIPPED_FILE = "report.html", "skipped.csv"
SHOWN = 10  # suspects in the terminal
SHOWN_SKIPPED = 5
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


@dataclass
class Audit:
    """All that came of an audit.

    Args:
        name: of the data.
        data: what was audited.
        report: of its labels.
        facts: about the run.
        num_rows: of the table, skipped ones included.
        table: see `table_of`.
        files: what was written, by kind.
    """

    name: str
    data: AuditData
    report: LabelReport
    facts: dict[str, str]
    num_rows: int
    table: pd.DataFrame = field(init=False)
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.table = table_of(self.report, self.data)

    @property
    def suspects(self) -> pd.DataFrame:
        """All rows, the most suspicious first."""
        return self.table.sort_values("label_quality", kind="stable")


def table_of(report: LabelReport, data: AuditData) -> pd.DataFrame:
    """The report with the names of the classes, and what the labels are of."""
    table, names = report.to_pandas(), np.array(data.names, dtype=object)
    for kind in ("given", "corrected"):
        table[f"{kind}_class"] = names[table[f"{kind}_label"]]
    if data.is_image:
        table["image"] = [picture["path"] for picture in data.examples]
    else:
        table["text"] = data.examples
        table["same_text_other_label"] = data.contradictions
    return table


def write_report(audit: Audit, folder: str) -> None:
    """Write `labels.parquet`, `report.html`, and `skipped.csv` where rows were skipped."""
    files = {"labels": REPORT_FILE, "page": PAGE_FILE, "skipped": SKIPPED_FILE}
    paths = {kind: os.path.join(folder, name) for kind, name in files.items()}
    audit.table.to_parquet(paths["labels"], index=False)
    title, about = f"Label audit of {audit.name}", {"data": audit.name, **_counts(audit), **audit.facts}
    audit.report.to_html(paths["page"], title=title, examples=audit.data.examples, about=about)
    if audit.data.skipped:
        rows = [(skipped.row, skipped.reason) for skipped in audit.data.skipped]
        pd.DataFrame(rows, columns=["sample_id", "reason"]).to_csv(paths["skipped"], index=False)
    else:
        del paths["skipped"]
        if os.path.exists(os.path.join(folder, SKIPPED_FILE)):  # of an audit before
            os.remove(os.path.join(folder, SKIPPED_FILE))
    audit.files |= paths


def write_corrected(audit: Audit, table: Any, path: str) -> None:
    """The data once more, as it is, with the corrected label where one is suspected and the given ones beside it."""
    name, used = f"given_{audit.data.label}", set(table.columns)
    while name in used:
        name += "_"
    issues = audit.table[audit.table["is_label_issue"]]
    labels = {int(row): audit.data.written[label] for row, label in zip(issues["sample_id"], issues["corrected_label"])}
    table.write(path, audit.data.label, labels, name)
    audit.files["corrected"] = path


def _counts(audit: Audit) -> dict[str, str]:
    data = audit.data
    counts = {"rows": f"{audit.num_rows:,}", "skipped": f"{len(data.skipped):,}"}
    if not data.is_image:
        counts["repeated texts"] = f"{data.repeats:,}, {int(data.contradictions.sum()):,} rows with different labels"
    return counts


# ---- JSON -----------------------------------------------------------------------------------------------------------


def as_json(audit: Audit) -> str:
    """The audit as one JSON object."""
    data, rate = audit.data, audit.report.noise_rate
    columns = ["sample_id", "label_quality", "given_class", "corrected_class", "image" if data.is_image else "text"]
    suspects = [dict(zip(columns, row)) for row in audit.suspects[columns].head(SHOWN).itertuples(index=False)]
    result = {
        "data": audit.name,
        "rows": audit.num_rows,
        "audited": len(data.rows),
        "skipped": [vars(skipped) for skipped in data.skipped],
        "content_column": data.content,
        "label_column": data.label,
        "classes": data.names,
        "noise_rate": rate and {"rate": rate.rate, "low": rate.low, "high": rate.high},
        "issues": audit.report.num_issues,
        "suspects": suspects,
        "repeated_texts": data.repeats,
        "same_text_other_label": 0 if data.is_image else int(data.contradictions.sum()),
        "warnings": data.warnings,
        "run": audit.facts,
        "files": audit.files,
    }
    return json.dumps(result, ensure_ascii=True, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


# ---- the terminal ---------------------------------------------------------------------------------------------------


def print_audit(audit: Audit) -> None:
    """Print what was found and where it lies."""
    from rich.console import Console

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character gets a sign in its place
    console = Console(width=None if sys.stdout.isatty() else 110, markup=False, highlight=False, emoji=False)
    data, rate = audit.data, audit.report.noise_rate
    console.print(_suspects_table(audit))
    issues, audited = audit.report.num_issues, f"{len(data.rows):,} labels audited"
    if rate is None:
        print(f"{audited}; the noise rate is not known")
    else:
        print(f"{audited}, {issues:,} of them suspected to be wrong ({issues / len(data.rows):.1%})")
        print(f"Estimated noise rate: {rate.rate:.1%} (95 % interval {rate.low:.1%} to {rate.high:.1%})")
    if not data.is_image and data.repeats:
        contradicting = int(data.contradictions.sum())
        print(f"{data.repeats:,} rows repeat a text; {contradicting:,} rows share a text but not its label")
    if data.skipped:
        print(f"{len(data.skipped):,} rows skipped, listed in {audit.files['skipped']}:")
        for skipped in data.skipped[:SHOWN_SKIPPED]:
            print(f"  row {skipped.row}: {skipped.reason}")
    print(f"All labels:  {audit.files['labels']}")
    if "corrected" in audit.files:
        print(f"Corrected:   {audit.files['corrected']}")
    print(f"Page:        {audit.files['page']}")


def _suspects_table(audit: Audit) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"The most suspicious labels of {visible(audit.name)}", expand=True)
    for header in ("row", "quality"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("given", "proposed"):
        table.add_column(header, max_width=20, overflow="ellipsis", no_wrap=True)
    table.add_column("image" if audit.data.is_image else "text", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in audit.suspects.head(SHOWN).itertuples():
        content = (row.image or "") if audit.data.is_image else row.text
        cells = (row.sample_id, f"{row.label_quality:.3f}", row.given_class, row.corrected_class, content[:300])
        table.add_row(*(Text(visible(str(cell))) for cell in cells))
    return table


def visible(text: str) -> str:
    """A text in one line, without what would move a terminal's cursor or turn its direction.

    Example:
        >>> visible("two\\nlines")
        'two lines'
    """
    return UNPRINTABLE.sub(" ", text)
