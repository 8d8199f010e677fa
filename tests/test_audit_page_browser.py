"""The page in a real Chromium: what one sees, what the keys do, and that it asks nobody for anything."""

import csv

import numpy as np
import pandas as pd
import pytest
from browser import DOWN, END, ENTER, ESCAPE, UP, Browser
from PIL import Image
from test_audit_page import HOSTILE, many, names, table

from hf_sat.audit_page import PageData, save_page

TEXTS = ["A fine day", "rain again", "a FINE evening", "storm", "fog", 'said "no, thanks"']


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    browser = Browser(downloads)
    browser.downloads = downloads
    yield browser
    browser.quit()


@pytest.fixture
def show(chromium, tmp_path):
    """Opens the page of some data; at the end of the test it must have asked for nothing and complained of nothing."""

    def run(data, **limits):
        path = tmp_path / "page.html"
        save_page(data, path, **limits)
        chromium.requests(), chromium.complaints()
        chromium.open(path)
        if chromium.run("const kept = localStorage.length; localStorage.clear(); return kept"):  # of the test before
            chromium.open(path)
        show.address = path.as_uri()
        return chromium

    show = run
    yield run
    assert set(chromium.requests()) <= {show.address}
    assert chromium.complaints() == []


def weather(**more):
    rows = table([0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0], [0.9, 0.1, 0.2, 0.8, np.nan, 0.3], n_visits=[4, 4, 4, 4, 0, 4])
    curves = pd.DataFrame({"epoch": [1.0, 2.0, 3.0], "agrees": [0.5, 0.6, 0.7], "corrected": [0.0, 0.1, 0.2]})
    return PageData(**{"title": "Weather", "rows": rows, "class_names": ["sun", "rain"], "noise_rate": (0.5, 0.4, 0.6),
                       "curves": curves, "examples": TEXTS, **more})  # fmt: skip


def ids(browser):
    return browser.texts("#rows .c-id")


def shown(browser, text):
    browser.wait(lambda: browser.text("#shown").startswith(text))
    return ids(browser)


def exported(browser, name):
    path = browser.downloads / name
    browser.wait(lambda: path.exists() and path.stat().st_size)  # Chromium first reserves the name by an empty file
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    path.unlink()
    return lines


def test_overview(show):
    page = show(weather())
    assert page.run("return document.title") == "Weather · label audit"
    assert page.texts(".big") == ["5", "3", "50.0 %"]
    assert page.texts("#heat tbody td") == ["50", "50", "67", "33"]
    assert page.run("return document.querySelectorAll('.chart.wide path.line').length") == 2
    assert page.texts("#class-table tbody th") == ["sun", "rain"]
    page.click("#class-table thead th:nth-child(3) button")
    assert page.texts("#class-table tbody th") == ["sun", "rain"]
    page.click("#class-table thead th:nth-child(3) button")
    assert page.texts("#class-table tbody th") == ["rain", "sun"]


def test_sort_filter_and_search(show):
    page = show(weather())
    assert shown(page, "6 of 6 labels") == ["1", "2", "5", "3", "0", "4"]
    assert page.texts("#rows .c-quality .value")[-1] == "not seen"
    page.click("[data-sort=quality] button")
    assert ids(page) == ["0", "3", "5", "2", "1", "4"]  # never visited stays last
    assert page.run("return document.querySelector('[data-sort=quality]').ariaSort") == "descending"
    page.click("[data-sort=example] button")
    assert page.texts("#rows .c-example") == sorted(TEXTS, key=str.lower)
    page.run("const s = arguments[0]; document.getElementById(s).value = '0';"
             "document.getElementById(s).dispatchEvent(new Event('change'))", "given")  # fmt: skip
    assert set(shown(page, "3 of 6")) == {"0", "1", "2"}
    page.click("#issues")
    assert set(shown(page, "2 of 6")) == {"1", "2"}
    page.click("#reset")
    page.press("/fine")
    assert set(shown(page, "2 of 6")) == {"0", "2"}
    page.click("#reset")
    page.click("#heat tbody tr:nth-child(2) td:nth-child(2)")
    assert set(shown(page, "2 of 6")) == {"1", "2"}
    page.click("#reset")
    page.click(".confusions li:nth-child(2) button")
    assert shown(page, "1 of 6") == ["5"]


def test_keys(show):
    page = show(weather())
    current = "return document.querySelector('.row.current .c-id').textContent"
    page.press("jj")
    assert page.run(current) == "5"
    page.press("k" + DOWN + DOWN + UP + " ")
    assert page.run(current) == "5" and page.text("#shown").endswith(", 1 ticked")
    page.press(END + "x")
    assert page.text("#shown").endswith(", 2 ticked")
    active = page.run("return document.querySelector('#grid').getAttribute('aria-activedescendant')")
    assert page.run("return document.getElementById(arguments[0]).ariaSelected", active) == "true"
    page.press("e")
    head = ["sample_id", "given_label", "proposed_label", "label_quality"]
    assert exported(page, "Weather-ticked.csv") == [head, ["5", "rain", "sun", "0.3"], ["4", "rain", "rain", ""]]
    page.press(ENTER)
    assert "n_visits" in page.text(".detail") and "fog" in page.text(".detail .whole")
    page.press(ESCAPE)
    assert page.texts(".detail") == []
    page.press("i")
    assert shown(page, "3 of 6") == ["1", "2", "5"]
    page.press("a")
    assert page.text("#shown").endswith("4 ticked")
    page.press("?")
    assert page.run("return document.getElementById('help').open")
    page.press("x" + ESCAPE)
    assert not page.run("return document.getElementById('help').open") and page.text("#shown").endswith("4 ticked")
    page.press("/xe" + ESCAPE + "j")  # letters in the search are letters
    assert shown(page, "0 of 6") == [] and "No label fits" in page.text("#none")


def test_ticks_and_theme_outlive_the_tab(show, chromium):
    page = show(weather())
    page.click("#rows .row:nth-child(3) input")
    assert page.text("#export-ticked") == "Export 1 ticked"
    assert page.run("return document.querySelectorAll('#rows input:checked').length") == 1
    page.click("#rows .row:nth-child(4) .c-tick")
    page.click("#rows .row:nth-child(4) input")
    assert page.run("return document.querySelectorAll('#rows input:checked').length") == 1
    page.click("#theme")
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert page.run(colour) == "rgb(16, 19, 22)"
    page.wait(lambda: page.run("return Object.keys(localStorage).some((key) => key.startsWith('hf_sat.ticks'))"))
    page.run("window.isOld = true; location.reload()")
    page.wait(lambda: page.run("return !window.isOld && performance.getEntriesByName('hf_sat:ready').length"))
    assert page.text("#shown").endswith("1 ticked") and page.run(colour) == "rgb(16, 19, 22)"
    page.click("#tick-none")
    assert page.text("#shown") == "6 of 6 labels shown"


def test_dark_by_preference(show):
    page = show(weather())
    page.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 22)"
    page.wait(lambda: page.text("#theme") == "Light")
    page.devtools("Emulation.setEmulatedMedia", features=[])


def test_hostile_text_is_shown_and_never_run(show):
    rows = many(90, len(HOSTILE))
    rows["sample_id"] = pd.Series([HOSTILE[k % 9] + str(k) for k in range(90)], dtype=object)
    rows["is_label_issue"] = True
    page = show(PageData(HOSTILE[0], rows, HOSTILE, examples=HOSTILE * 10, about=dict(zip(HOSTILE, HOSTILE))))
    assert page.text("h1") == HOSTILE[0]
    assert page.run("return document.querySelectorAll('script').length") == 2
    assert page.run("return document.querySelectorAll('img').length") == 0
    page.press("/alert(1)")
    shown(page, "20 of 90")
    assert set(page.texts("#rows .clamp")) == {*HOSTILE[:2]}
    page.press(ESCAPE + "o")
    assert page.text(".detail .whole") in HOSTILE[:2]
    page.click("#export-issues")
    lines = exported(page, "script-script-alert-1-script-issues.csv")
    known = {str(sample).encode("utf-8", "replace").decode() for sample in rows["sample_id"]}
    assert len(lines) == 91 and {line[0].replace("\ufffd", "?") for line in lines[1:]} == known


def test_tokens_are_marked_in_their_sentence(show):
    words = [f"word{k}" for k in range(40)]
    rows = table([0, 1, 0], [1, 1, 0], [0.1, 0.5, 0.9]).assign(token_index=[30, 0, 39], sample_id=0)
    page = show(PageData("Tokens", rows, ["O", "PER"], examples=[words]))
    assert page.texts("#rows mark") == ["word30", "word0", "word39"]
    assert page.texts("#rows .clamp")[0].startswith("… word23")
    page.press("jo")
    assert page.text(".detail .whole") == " ".join(words)
    page.press("x")
    page.click("#export-ticked")
    assert exported(page, "Tokens-ticked.csv")[1] == ["0", "0", "PER", "PER", "0.5"]


def test_pictures(show):
    rows = table([0, 0, 1], [1, 0, 1], [0.1, 0.2, 0.3])
    page = show(PageData("Pictures", rows, ["a", "b"], examples=[Image.new("RGB", (200, 100))] * 3), max_thumbnails=2)
    sizes = "return Array.from(document.querySelectorAll('#rows img'), (image) => image.naturalWidth)"
    page.wait(lambda: page.run(sizes) == [96, 96])
    assert page.texts("#rows .c-example")[2] == "no picture"
    page.press("o")
    assert page.run("return document.querySelectorAll('.detail img').length") == 1


def test_many_rows_are_drawn_only_where_one_looks(show):
    rows = many(30_000, 5)
    page = show(PageData("Many", rows, names(5), examples=[f"text {k}" for k in range(30_000)]))
    assert len(ids(page)) < 80
    order = rows.sort_values("label_quality", kind="stable").index
    page.press("o" + END)  # with details open far above
    page.wait(lambda: ids(page) and ids(page)[-1] == str(order[-1]))
    bottom = "const at = (e) => e.getBoundingClientRect().bottom; return at(document.querySelector('.row.current'))"
    assert abs(page.run(bottom + " - at(document.getElementById('grid'))")) < 20
    page.run("document.getElementById('grid').scrollTop = 29 * 10000")
    page.wait(lambda: str(order[5000]) in ids(page))
    assert len(ids(page)) < 80
    page.click("#tick-all")
    assert page.text("#shown").endswith("30,000 ticked")


def test_drawn_heat_map_with_keys_and_pointer(show):
    page = show(PageData("Classes", many(4000, 60), names(60)))
    page.run("document.getElementById('heat-svg').focus()")
    page.press(DOWN + DOWN)
    assert page.text("#heat-readout").startswith("proposed class 2, given class 0: ")
    page.press(ENTER)
    count = page.run("return document.getElementById('given').value + document.getElementById('proposed').value")
    assert count == "02"
    page.click("#heat-svg")
    assert "of 4,000 labels shown" in page.text("#shown")


@pytest.mark.parametrize("width", [360, 700, 1000])
def test_narrow_windows_do_not_scroll_sideways(show, width):
    page = show(weather(class_names=["sun " * 20, "r" * 300], about={"model": "m" * 200}))
    page.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.wait(lambda: page.run("return document.querySelector('#rows .row').offsetHeight")) > 50
    finally:
        page.devtools("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize(
    "data",
    [
        PageData("no rows", many(0, 2), names(2)),
        PageData("no classes", many(0, 2), []),
        PageData("one class", table([0], [0]), ["only"]),
        PageData("never visited", table([0, 1], [0, 1], [np.nan, np.nan]), ["a", "b"], examples=["x", "y"]),
        PageData("no label", table([-100], [-100], [np.nan]), ["a"], examples=[None]),
        PageData("a thousand classes", many(3000, 1000), names(1000)),
    ],
    ids=lambda data: data.title,
)
def test_degenerate_data_opens(show, data):
    page = show(data)
    assert page.text("#shown").startswith(f"{len(data.rows):,} of ")
    page.press("jkxoia")
    assert page.run("return performance.getEntriesByName('hf_sat:ready').length") == 1


def test_paper_gets_the_first_rows(show):
    page = show(PageData("Print", many(300, 3), names(3)))
    page.devtools("Emulation.setEmulatedMedia", media="print")
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert len(ids(page)) == 60
    assert page.run("return document.getElementById('grid').scrollHeight") < 60 * 58 + 100
    page.run("window.dispatchEvent(new Event('afterprint'))")
    page.devtools("Emulation.setEmulatedMedia", media="")
    page.wait(lambda: len(ids(page)) < 60)
