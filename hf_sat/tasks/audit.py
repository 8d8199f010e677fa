"""`hf-sat audit DATA`: from a file, a folder or a name to the list of its wrong labels."""

import contextlib
import os
import sys
from typing import Any

from .audit_data import audit_data
from .audit_options import FEWEST_EPOCHS, AuditOptions
from .audit_output import Audit, as_json, print_audit, visible, write_corrected, write_report
from .audit_sources import read_table
from .audit_training import MANY_ROWS, run_audit
from .machine import require, use_idle_cores

ABOVE_LIMIT = 3  # exit status
UNKNOWN_NOISE = (
    f"too few passes to estimate the noise, so no label is held to be wrong; give --epochs {FEWEST_EPOCHS} or more."
)


def audit_command(options: AuditOptions) -> int:
    """Audit, write and print; returns the exit status, 0 or that of a noise rate that is above
    `fail_above`, or not known.

    Raises:
        ValueError: for data, a model or an option that cannot be used.
        ModuleNotFoundError: for a missing package, with the `pip install` that helps.
    """
    if not options.json:
        require("rich", extra="recipes")
    use_idle_cores()
    # Whatever is printed on the way is no part of the JSON.
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        audit = audit_file(options)
    print(as_json(audit)) if options.json else print_audit(audit)
    rate = audit.report.noise_rate
    if options.fail_above is None or (rate is not None and rate.rate <= options.fail_above):
        return 0
    found = "is not known, which may be" if rate is None else f"{rate.rate:.1%} is"
    print(f"The estimated noise rate {found} above {options.fail_above:.1%}.", file=sys.stderr)
    return ABOVE_LIMIT


def audit_file(options: AuditOptions) -> Audit:
    """Audit what the options name, and write the report."""
    table = read_table(options)
    data = audit_data(table, options)
    _check_outputs(table, options)
    for warning in data.warnings:
        print(f"Note: {visible(warning)}", file=sys.stderr)
    name = os.path.basename(os.path.abspath(options.data)) if os.path.exists(options.data) else options.data
    kind, classes = "images" if data.is_image else "texts", len(data.names)
    print(f"Auditing {len(data.rows):,} {kind} of {visible(name)}, {classes} classes", file=sys.stderr)
    if len(data.rows) >= MANY_ROWS:
        print("Note: so many rows take hours without a GPU; --sample 20000 audits a part of them.", file=sys.stderr)
    report, facts = run_audit(data, options)
    if report.noise is None:
        data.warnings.append(UNKNOWN_NOISE)
        print(f"Note: {UNKNOWN_NOISE}", file=sys.stderr)
    audit = Audit(name, data, report, facts, len(table))
    write_report(audit, options.out)
    if options.write_corrected is not None:
        write_corrected(audit, table, options.write_corrected)
    return audit


def _check_outputs(table: Any, options: AuditOptions) -> None:
    """Refuse before training what could not be written after it."""
    path = options.write_corrected
    if path is not None:
        if os.path.splitext(path)[1].lower() not in table.suffixes:
            raise ValueError(
                f"--write-corrected {path!r}: it is written as it was read; end it in {table.suffixes[0]}."
            )
        if os.path.exists(options.data) and os.path.exists(path) and os.path.samefile(path, options.data):
            raise ValueError(f"--write-corrected {path!r}: this is the data itself; name another file.")
        if os.path.isdir(path):
            raise ValueError(f"--write-corrected {path!r}: this is a folder; name a file.")
    try:
        os.makedirs(options.out, exist_ok=True)
        if path is not None:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {options.out!r}: it cannot be made ({error.strerror}); name a folder.") from None
    for folder in [options.out, *([os.path.dirname(path) or "."] if path else [])]:
        if not os.access(folder, os.W_OK):
            raise ValueError(f"--out {folder!r}: nothing can be written there; name another folder.")
