"""From the data to one HTML file."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from importlib.resources import files

import jinja2
from markupsafe import Markup

from .curves import chart, lines_of, table_rows
from .data import PageData
from .heatmap import LEVELS, TABLE_UP_TO, heat_map
from .payload import payload, script_json
from .summary import class_rows, headline, matrix_of, top_confusions

STYLES = ("page.css", "labels.css")
SCRIPTS = ("data.js", "view.js", "rows.js", "table.js", "overview.js", "keys.js")
CHARTS = {"wide": (620, 300), "narrow": (330, 240)}
MOST_ROWS = 150_000
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def render_page(data: PageData, *, max_rows: int = 100_000, max_thumbnails: int = 1000, max_chars: int = 2000) -> str:
    """The page as a string: one file without a request to anywhere.

    Args:
        data: what to show.
        max_rows: rows of the table, the most suspicious, up to 150,000; the numbers above it are of all rows.
        max_thumbnails: rows with a picture, the most suspicious; each takes 2 to 5 kB.
        max_chars: characters kept of a text; fewer, but for the 2,000 most suspicious, where all together would take
            more than 32 MB.

    Raises:
        ValueError: a limit is out of range, or the examples are nothing that can be shown.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({
        ...     "sample_id": [0], "given_label": [1], "corrected_label": [0], "label_quality": [0.03],
        ...     "is_label_issue": [True],
        ... })
        >>> page = render_page(PageData("Reviews", rows, ["good", "bad"], examples=["I would buy it again."]))
        >>> "I would buy it again." in page
        True
    """
    _check_limits(max_rows=max_rows, max_thumbnails=max_thumbnails, max_chars=max_chars)
    matrix = matrix_of(data)
    heat = None if matrix is None else heat_map(matrix)
    packed = payload(data, heat, max_rows, max_thumbnails, max_chars)
    script = _script()
    style = "".join(map(_file, STYLES))
    lines = lines_of(data.curves)
    classes = class_rows(data)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            names=[_class_name(name, k) for k, name in enumerate(data.class_names)],
            packed=packed,
            head=headline(data),
            heat=heat,
            levels=range(LEVELS + 1),
            confusions=top_confusions(data, 6 if len(data.class_names) <= TABLE_UP_TO else 15),
            classes=classes,
            has_rates=any(row.noise_rate is not None for row in classes),
            charts={} if lines is None else {name: chart(lines, *size) for name, size in CHARTS.items()},
            curve_rows=None if lines is None else table_rows(lines),
            max_thumbnails=max_thumbnails,
            max_chars=max_chars,
            style=Markup(style),
            script=Markup(script),
            json=Markup(script_json(packed)),
            # Nothing may be loaded, and nothing run but this very script.
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
        )
    )


def save_page(data: PageData, path: str | os.PathLike, **limits: int) -> str:
    """Write the page to `path`, into a folder that is made where it is missing; returns the path.

    Args:
        data: what to show.
        path: of the HTML file; an existing one is replaced.
        limits: those of `render_page`.
    """
    path = os.fspath(path)
    text = render_page(data, **limits)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return path


def _check_limits(**limits: int) -> None:
    for name, value in limits.items():
        if value < (name == "max_chars"):
            raise ValueError(f"{name}={value} is too small; use a positive number")
    if limits["max_rows"] > MOST_ROWS:
        raise ValueError(f"max_rows={limits['max_rows']}: browsers scroll through {MOST_ROWS:,} rows at most; lower it")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = _percent
    return environment


def _percent(share: float | None, digits: int = 1) -> str:
    return "\u2013" if share is None else f"{100 * share:.{digits}f} %"


def _visible(value):
    """Control characters and halves of surrogate pairs as a sign in their place: UTF-8 and HTML refuse them."""
    if isinstance(value, Markup) or not isinstance(value, str) or not UNPRINTABLE.search(value):
        return value
    return UNPRINTABLE.sub(lambda match: _sign(match[0]), value)


def _sign(character: str) -> str:
    code = ord(character)
    return "\ufffd" if code > 0x7F else chr(0x2421 if code == 0x7F else 0x2400 + code)


def _class_name(name: str, number: int) -> str:
    return name if name.strip() else f"(class {number})"


def _file(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(_file(name) for name in SCRIPTS) + "})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
