"""The page as text: what it holds, what it refuses, and that nothing in the data can become part of it.

What it does in a browser is in test_audit_page_browser.py.
"""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_sat.audit_page import PageData, curves_of_log, plot_curves, plot_transition, render_page, save_page
from hf_sat.audit_page import examples as parts
from hf_sat.audit_page.curves import chart, lines_of, nice_ticks
from hf_sat.audit_page.heatmap import heat_map
from hf_sat.audit_page.payload import script_json
from hf_sat.audit_page.summary import Matrix, class_rows, headline, matrix_of, top_confusions

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- <script>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eright to left\u2028\u2029",
    "nul\x00 bell\x07 half \ud83d pair",
    "🙂",
    "",
    "x" * 5000,
]


def table(given, corrected, quality=None, **more):
    given, corrected = np.array(given, dtype=int), np.array(corrected, dtype=int)
    quality = np.where(given == corrected, 0.9, 0.1) if quality is None else np.array(quality, dtype=float)
    columns = {"sample_id": np.arange(len(given)), "given_label": given, "corrected_label": corrected}
    return pd.DataFrame({**columns, "label_quality": quality, "is_label_issue": given != corrected, **more})


def many(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    given = rng.integers(0, classes, count)
    return table(given, np.where(rng.random(count) < 0.2, rng.integers(0, classes, count), given), rng.random(count))


def names(count):
    return [f"class {k}" for k in range(count)]


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.inside = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] in ("script", "style") and self.lasttag == self.tags[-1][0]:
            self.inside.append((self.tags[-1][0], self.tags[-1][1].get("type"), text))

    def parts(self, tag, kind=None):
        return [text for name, type_, text in self.inside if (name, type_) == (tag, kind) and text.strip()]


def data_of(page):
    return json.loads(Elements(page).parts("script", "application/json")[0])


def test_the_page_holds_the_whole_audit():
    rows = table([0, 0, 1, 1], [0, 1, 1, 1], n_visits=[3, 3, 3, 0], quality=[0.9, 0.04321, 0.8, np.nan])
    curves = pd.DataFrame({"epoch": [1.0, 2.0], "labels corrected": [0.0, 0.25]})
    page = render_page(
        PageData("Tiny", rows, ["cat", "dog"], (0.3, 0.2, 0.4), None, curves, list("abcd"), about={"model": "m"})
    )
    for text in ("Tiny", "of 4; 1 without a label or never visited", "33.33 %", "30.0 %", "between 20.0 % and 40.0 %"):
        assert text in page
    data = data_of(page)
    assert data["id"] == [1, 2, 0, 3]  # most suspicious first, never visited last
    assert data["quality"] == [0.0432, 0.8, 0.9, None]
    assert data["examples"] == ["b", "c", "a", "d"]
    assert data["given"] == [0, 1, 0, 1] and data["proposed"] == [1, 1, 0, 1] and data["issue"] == [1, 0, 0, 0]
    assert data["scores"] == [{"name": "n_visits", "number": True, "values": [3, 3, 3, 0]}]


def test_nothing_is_loaded_and_only_our_script_runs():
    page = render_page(PageData("Tiny", many(50, 3), names(3)))
    elements = Elements(page)
    policy = next(
        a["content"] for tag, a in elements.tags if tag == "meta" and "Content-Security" in a.get("http-equiv", "")
    )
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        digest = base64.b64encode(hashlib.sha256(elements.parts(tag)[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    addresses = [a[key] for _, a in elements.tags for key in ("src", "href", "action", "srcset") if key in a]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not any("style" in a or any(key.startswith("on") for key in a) for _, a in elements.tags)
    assert "@import" not in page and "url(" not in page


def test_hostile_text_stays_text(tmp_path):
    rows = many(90, len(HOSTILE))
    rows["sample_id"] = pd.Series([HOSTILE[k % len(HOSTILE)] + str(k) for k in range(90)], dtype=object)
    rows[HOSTILE[0]] = pd.Series(HOSTILE * 10, dtype=object)
    curves = pd.DataFrame({"epoch": [1.0], HOSTILE[1]: [0.5]})
    data = PageData(HOSTILE[0], rows, HOSTILE, None, None, curves, HOSTILE * 10, about=dict(zip(HOSTILE, HOSTILE)))
    page = Path(save_page(data, tmp_path / "new" / "page.html")).read_text(encoding="utf-8")
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 2
    assert not any(tag == "img" for tag, _ in elements.tags)
    assert "\x00" not in page and "{{ 7 * 7 }}" in page
    packed = data_of(page)
    assert packed["classes"] == HOSTILE and packed["title"] == HOSTILE[0]
    assert {text[:1999] for text in packed["examples"]} == {text[:1999] for text in HOSTILE}


def test_json_cannot_leave_its_element():
    text = script_json({"a": ["</script>", "<!--", "\u2028\u2029", "\ud800", "\x00", "é"]})
    assert "<" not in text and "\u2028" not in text and "é" in text
    text.encode("utf-8")
    assert json.loads(text)["a"] == ["</script>", "<!--", "\u2028\u2029", "\ud800", "\x00", "é"]


@pytest.mark.parametrize(
    "data",
    [
        PageData("no rows", many(0, 2), names(2)),
        PageData("no rows and no classes", many(0, 2), []),
        PageData("one class", table([0] * 5, [0] * 5), ["only"]),
        PageData("one row", table([0], [1]), ["a", "b"], examples=["text"]),
        PageData("no issues", table([0, 1], [0, 1]), ["a", "b"]),
        PageData("never visited", table([0, 1], [0, 1], [np.nan, np.nan]), ["a", "b"]),
        PageData("no label", table([-100, 1], [-100, 1], [np.nan, 0.5]), ["a", "b"]),
        PageData("no examples in it", many(3, 2), names(2), examples=[None] * 3),
        PageData("numbers as names", many(20, 3), [0, 1.5, None]),
        PageData("equal names", many(20, 3), ["a", "a", "a"]),
        PageData("many classes", many(3000, 1000), names(1000)),
        PageData("empty matrix", many(20, 3), names(3), transition=np.zeros((3, 3))),
        PageData("gaps in the matrix", many(20, 2), names(2), transition=[[np.nan, np.nan], [0.1, 0.9]]),
        PageData("no curve", many(20, 2), names(2), curves=pd.DataFrame({"epoch": []})),
        PageData("text curve", many(20, 2), names(2), curves=pd.DataFrame({"epoch": [1], "a": ["b"], "c": [np.nan]})),
        PageData("one point", many(20, 2), names(2), curves=pd.DataFrame({"epoch": [1.0], "a": [0.0]})),
        PageData("other index", many(20, 2).iloc[::-1], names(2), examples=["text"] * 20),
    ],
    ids=lambda data: data.title,
)
def test_degenerate_data_has_a_page(data):
    packed = data_of(render_page(data))
    assert len(packed["id"]) == len(data.rows)


def test_limits():
    data = PageData("Large", many(500, 4), names(4), examples=["word " * 100] * 500)
    page = render_page(data, max_rows=100, max_chars=50)
    packed = data_of(page)
    assert len(packed["id"]) == 100 and packed["total"] == 500
    assert "The 100 most suspicious of 500 labels" in page and "Texts are cut at 50 characters" in page
    assert all(len(text) == 50 and text.endswith("…") for text in packed["examples"])
    assert packed["quality"] == sorted(data.rows["label_quality"].round(4))[:100]


def test_texts_share_the_budget(monkeypatch):
    assert parts.text_limit(["a" * 10] * 100, 2000) == 2000
    monkeypatch.setattr(parts, "TEXT_BUDGET", 100_000)
    texts = ["a" * 10] * 100 + ["b" * 3000] * 100
    limit = parts.text_limit(texts, 2000)
    assert 0.98 * 100_000 < sum(min(len(text), limit) for text in texts) <= 100_000
    assert parts.text_limit(["é" * 3000] * 100, 2000) == pytest.approx(500, abs=1)
    assert parts.text_limit(["a" * 3000] * 1000, 2000) == parts.SHORTEST
    assert parts.text_limit([], 2000) == 2000


def test_the_most_suspicious_texts_are_kept_longer(monkeypatch):
    monkeypatch.setattr(parts, "TEXT_BUDGET", 100_000)
    page = render_page(PageData("Long", many(2500, 2), names(2), examples=["a" * 900] * 2500), max_chars=700)
    lengths = [len(text) for text in data_of(page)["examples"]]
    assert lengths == [700] * 2000 + [200] * 500
    assert "cut at 700 characters, beyond the most suspicious at 200." in page


def test_tokens_share_their_sentence():
    rows = table([0, 1, 0, 1], [0, 1, 1, 1]).assign(token_index=[0, 1, 0, 1], sample_id=["x", "x", "y", "y"])
    data = PageData("Tokens", rows, ["O", "PER"], examples=[["Mrs", "Dalloway"], ["said", "so"]])
    assert data.example_of.tolist() == [0, 0, 1, 1]
    packed = data_of(render_page(data))
    assert packed["kind"] == "words" and packed["examples"] == [["said", "so"], ["Mrs", "Dalloway"]]
    assert packed["example_of"] == [0, 1, 1, 0] and packed["token"] == [0, 0, 1, 1]
    assert parts.cut_words(["aa", "bb", "cc"], 5) == ["aa", "bb", "…"]
    assert parts.cut_words(["aa", "bb"], 5) == ["aa", "bb"]


def pictures():
    pixels = np.random.default_rng(0).integers(0, 255, (200, 100, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    modes = [image.convert(mode) for mode in ("L", "RGBA", "P", "LA", "CMYK", "1", "I", "F")]
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    encoded = [buffer.getvalue(), {"bytes": buffer.getvalue(), "path": None}]
    return [image, *modes, deep, *encoded, pixels, pixels[..., 0], pixels[..., :1]]


@pytest.mark.parametrize("picture", pictures(), ids=lambda picture: getattr(picture, "mode", type(picture).__name__))
def test_pictures_become_thumbnails(picture):
    kind, _, encoded = parts.thumbnail(picture).partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.size == (48, 96) and len(encoded) < 20_000
    assert parts.kind_of([None, picture]) == "image"


def test_only_the_most_suspicious_get_a_picture():
    class Pictures(list):
        read = 0

        def __getitem__(self, position):
            self.read += 1
            return super().__getitem__(position)

    rows = table([0] * 6, [1] * 6, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    examples = Pictures([Image.new("RGB", (9, 9))] * 4 + [b"no picture", None])
    page = render_page(PageData("Pictures", rows, ["a", "b"], examples=examples), max_thumbnails=3)
    packed = data_of(page)
    assert [bool(picture) for picture in packed["examples"]] == [False, False, True]
    assert "Only the 3 most suspicious examples have their picture" in page and examples.read == 3


def test_summary_counts():
    rows = table([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], [0.9, 0.1, 0.2, 0.8, 0.3, np.nan])
    data = PageData("Counts", rows, list("abc"))
    head = headline(data)
    assert (head.total, head.audited, head.issues, head.share) == (6, 5, 3, 0.6)
    first, second, third = class_rows(data)
    assert (first.labels, first.issues, first.proposed, first.proposed_count) == (3, 2, 1, 2)
    assert first.share == pytest.approx(2 / 3) and first.quality == pytest.approx(0.4) and first.noise_rate is None
    assert (second.proposed, third.labels, third.share, third.proposed) == (0, 1, None, None)
    assert top_confusions(data, 5) == [(0, 1, 2), (1, 0, 1)]
    matrix = matrix_of(data)
    assert not matrix.is_estimate and matrix.counts.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(matrix.shares, [[1 / 2, 1 / 2, 0], [2 / 3, 1 / 3, 0], [np.nan] * 3])


@pytest.mark.parametrize("transition", [[[30, 10], [0, 60]], [[0.75, 0.25], [0.0, 1.0]]], ids=["counts", "shares"])
def test_noise_of_classes_follows_from_the_transition(transition):
    rows = table([0] * 40 + [1] * 60, [0] * 40 + [1] * 60)
    data = PageData("Transition", rows, ["a", "b"], transition=transition)
    assert matrix_of(data).shares.tolist() == [[0.75, 0.25], [0, 1]]
    assert [row.noise_rate for row in class_rows(data)] == pytest.approx([0, 10 / 70])


def test_heat_map_takes_the_form_its_size_allows():
    def drawn(size):
        shares = np.random.default_rng(0).dirichlet(np.ones(size), size)
        return heat_map(Matrix(shares, None, True)), shares

    heat, shares = drawn(3)
    assert heat.paths is None and heat.cells[1][0].share == shares[1, 0]
    assert [heat.cells[k][k].level for k in range(3)] == ["hd"] * 3
    assert "h10" in {cell.level for row in heat.cells for cell in row}
    heat, _ = drawn(50)
    assert heat.cells is None and heat.kept == list(range(50))
    assert sum(path.count("M") for _, path in heat.paths) >= 2400 and len(heat.paths) <= 12
    heat, _ = drawn(300)
    assert len(heat.kept) == 200 == len(heat.shares) and heat.kept == sorted(heat.kept)


def test_curves():
    log = [{"epoch": 1.0, "loss": 1.0, "sat/agreement": 0.5}, {"epoch": 1.0, "eval_loss": 2.0}, {"train_runtime": 1}]
    curves = curves_of_log([*log, {"epoch": 2.0, "sat/agreement": 0.6, "sat/corrected": 0.1}])
    assert list(curves) == ["epoch", "agrees with the given label", "labels corrected"] and len(curves) == 2
    assert curves_of_log([]) is None and curves_of_log(log[1:]) is None
    drawn = chart(lines_of(curves), 600, 300)
    assert [line.last for line in drawn.lines] == [0.6, 0.1]
    assert [text for _, text in drawn.y_ticks] == ["0 %", "20 %", "40 %", "60 %"]
    assert all(44 <= x <= 588 for x, _ in drawn.x_ticks)
    assert nice_ticks(0.0, 0.013, 5)[-1] >= 0.013 and nice_ticks(0, 6, 7) == [0, 1, 2, 3, 4, 5, 6]
    long = lines_of(pd.DataFrame({"epoch": np.arange(9000), "a": 0.5}))
    assert chart(long, 600, 300).lines[0].path.count("L") < 400


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_plots_are_png_files(tmp_path, classes):
    data = PageData("Plots", many(200, classes), ["$x_$ \ud800", "b" * 90, *names(classes)][:classes])
    data.curves = pd.DataFrame({"epoch": [1, 2], "$a": [0.1, np.nan], "b": [0.5, 0.6]})
    for plot, name in ((plot_transition, "t.png"), (plot_curves, "c.png")):
        with Image.open(plot(data, tmp_path / "figures" / name)) as image:
            assert image.format == "PNG" and min(image.size) > 300
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_curves(PageData("none", many(3, 2), names(2)), tmp_path / "c.png")
    with pytest.raises(ValueError, match="no transition"):
        plot_transition(PageData("none", many(0, 2), names(2)), tmp_path / "t.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": many(3, 2).drop(columns="label_quality")}, r"no column \['label_quality'\].*to_pandas"),
        ({"class_names": ["a"]}, "class_names has 1 names"),
        ({"noise_rate": (0.1, 0.2, 0.3)}, r"low <= rate <= high"),
        ({"transition": np.eye(3)}, r"shape \(3, 3\)"),
        ({"transition": -np.eye(2)}, "negative"),
        ({"curves": pd.DataFrame({"step": [1]})}, "'epoch'"),
        ({"examples": ["a"]}, "1 examples do not fit 9 rows"),
        ({"examples": ["a"] * 9, "example_of": [0, 1]}, "set example_of"),
        ({"examples": ["a"] * 9, "example_of": [9] * 9}, "set example_of"),
    ],
)
def test_wrong_data_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PageData(**{"title": "Wrong", "rows": many(9, 2), "class_names": ["a", "b"], **change})


def test_wrong_limits_and_examples_are_refused():
    data = PageData("Wrong", many(9, 2), names(2), examples=[3.5] * 9)
    with pytest.raises(ValueError, match="holds a float"):
        render_page(data)
    for limit, value in {"max_rows": -1, "max_chars": 0, "max_thumbnails": -5}.items():
        with pytest.raises(ValueError, match=f"{limit}={value}"):
            render_page(data, **{limit: value})
    with pytest.raises(ValueError, match="150,000"):
        render_page(data, max_rows=10**6)


def test_numbers_that_json_or_javascript_cannot_hold():
    rows = many(3, 2).assign(
        sample_id=[2**60, 1, 2], loss=[np.inf, np.nan, 1.23456], flag=[True, False, True], word=["a", None, pd.NA]
    )
    rows["label_quality"] = [0.1, 0.2, 0.3]
    packed = data_of(render_page(PageData("Numbers", rows, names(2))))
    assert packed["id"] == [str(2**60), 1, 2]
    assert [score["values"] for score in packed["scores"]] == [[None, None, 1.2346], [1, 0, 1], ["a", "", ""]]


def test_a_hundred_thousand_tweets_stay_small():
    """The size that the issue asks for; how fast it opens is measured by hand."""
    rows = many(100_000, 10)
    page = render_page(PageData("Tweets", rows, names(10), examples=["tweet " * 23] * 100_000))
    assert len(page.encode()) < 25e6
    assert re.search(r"Labels audited</h2>\s*<p class=\"big\">100,000", page)
