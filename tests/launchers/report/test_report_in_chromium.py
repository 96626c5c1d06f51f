"""The page of `ebbtide report` in a real browser: fits, follows the theme, works by keyboard, asks for nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from launchers.report.page import report
from tests.launchers.report.test_report_page import hostile_run
from tests.support.chromium import CHROMIUM, Browser
from tests.support.report_runs import write_report_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(report([write_report_run(folder / "one"), write_report_run(folder / "two", 3, 4)]))
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "report.html"
    path.write_text(report([hostile_run(folder / str(seed), seed) for seed in range(3)]))
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_follows_the_theme(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().height))"
    assert browser.value(smallest) >= 10
    picture = Image.open(io.BytesIO(browser.picture(height=800))).convert("L")
    assert picture.size == (width, 800)
    assert (picture.getpixel((3, 3)) < 60) == dark
    darkest, lightest = picture.getextrema()
    assert lightest - darkest > 150
    assert (browser.complaints, browser.requests) == ([], [f"file://{page}"])


def test_hostile_texts_do_nothing_in_a_browser(browser: Browser, hostile: Path) -> None:
    browser.open(hostile, 400)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.complaints == []
    assert browser.requests == [f"file://{hostile}"]
    assert "<" in browser.value("document.title")
    assert browser.value("document.title") not in ("pwned", "1")
    assert browser.value("document.querySelectorAll('img, iframe, object, embed, link, base').length") == 0
    assert browser.value("document.scripts.length") == 1
    assert browser.value("document.documentElement.scrollWidth") <= 400


def test_samples_are_filtered_and_opened_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1600)
    shown = "[...document.querySelectorAll('.sample')].filter((one) => one.checkVisibility()).length"
    everything = browser.value(shown)
    assert browser.value("document.querySelector('output').textContent") == f"{everything} of {everything}"
    browser.value("document.querySelector('[name=kind]').focus()")
    browser.press("w", 87, "w")  # a select jumps to the option that begins so
    worst = browser.value(shown)
    assert 0 < worst < everything
    assert browser.value("document.querySelector('output').textContent") == f"{worst} of {everything}"
    browser.value("document.querySelector('.sample:not([hidden]) summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.value("document.querySelector('.sample:not([hidden])').open") is True
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.tagName") == "PRE"  # long texts scroll by keyboard


def test_it_can_be_printed(browser: Browser, page: Path) -> None:
    browser.open(page, 1600, dark=True)
    pdf = browser.printed()
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 12
    assert browser.value("document.querySelector('#settings details').open") is True
