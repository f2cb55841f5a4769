"""The comparison's page in a browser: it loads whole, asks for nothing, complains of nothing, fits a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from browser import NO_BROWSER, Browser, PageError, find_chromium
from made_runs import keep_mistakes, picture, progression
from test_report_grid import long_grid

from cnnexp.runs.comparison import write_report

pytestmark = [pytest.mark.pictures, pytest.mark.browser, pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page of seven variants with thumbnails."""
    folder = tmp_path_factory.mktemp("page")
    comparison = progression(folder, seeds=2, fixed=12)
    for run in comparison.runs:
        assert run.predictions_path is not None
        keep_mistakes(Path(run.predictions_path), grey=100)
    write_report(folder, comparison, "Seven <variants> & their photos")
    return (folder / "comparison.html").as_uri()


def test_page_loads_whole_and_alone(browser: Browser, page: str) -> None:
    browser.open(page)
    assert browser.evaluate("document.title") == "Seven <variants> & their photos"
    assert browser.complaints == []
    assert browser.outside == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page]
    widths = browser.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert widths[0] == 1600
    assert widths[1:] == [64] * 6 * 8  # eight photos of each step
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 2 * 7  # figures, and costs


@pytest.fixture(scope="module")
def grid_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """That of a grid of four points with long names and a long line."""
    folder = tmp_path_factory.mktemp("grid")
    facts = {"line": "cnnexp train -m " + "dataset.source=/a/very/long/folder/of/images" * 5}
    write_report(folder, long_grid(), "a_title_without_blanks_" * 8, facts)
    return (folder / "comparison.html").as_uri()


@pytest.mark.parametrize("kind", ["page", "grid_page"])
@pytest.mark.parametrize("width", [1280, 1200, 400, 390])
def test_nothing_sticks_out(browser: Browser, request: pytest.FixtureRequest, kind: str, width: int) -> None:
    """A chart may scroll in its own box, a table need not; the text is not smaller than 11 pixels."""
    browser.open(request.getfixturevalue(kind))
    browser.resize(width, 900)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('body *:not(.scroll *)')]
        .filter(e => e.getClientRects().length)
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []
    boxes = "[...document.querySelectorAll('.scroll:has(table)')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.evaluate(boxes)) <= 0
    sizes = "[...document.querySelectorAll('body *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(browser.evaluate(sizes)) >= 11


def test_tables_sort_at_a_click(browser: Browser, grid_page: str) -> None:
    """Rising, then falling, then rising again; numbers by their value."""
    browser.open(grid_page)
    browser.resize(1280, 900)
    rows = """[...document.querySelectorAll('table')[0].querySelectorAll('tbody tr')]
        .sort((one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top)
        .map(row => row.children[COLUMN].textContent)"""
    click = """(() => {
        const head = document.querySelectorAll('table')[0].querySelectorAll('thead th')[COLUMN]
        head.scrollIntoView()
        const place = head.getBoundingClientRect()
        document.elementFromPoint(place.x + place.width / 2, place.y + place.height / 2).click()
    })()"""
    figures = [f"{70 + number}.0" for number in range(7, -1, -1)]
    for column, orders in ((4, [figures[::-1], figures, figures[::-1]]), (3, [["geometric"] * 4 + ["none"] * 4])):
        for order in orders:
            browser.evaluate(click.replace("COLUMN", str(column)))
            assert browser.evaluate(rows.replace("COLUMN", str(column))) == order
    assert browser.complaints == []


def test_photos_are_folded(browser: Browser, page: str) -> None:
    browser.open(page)
    photo = "document.querySelector('.photos img')"
    assert not browser.evaluate(f"{photo}.checkVisibility()")
    browser.evaluate(f"{photo}.closest('details').querySelector('summary').click()")
    assert browser.evaluate(f"{photo}.checkVisibility()")


def test_the_names_open(browser: Browser, tmp_path: Path) -> None:
    comparison = progression(tmp_path)  # without pictures: names alone
    write_report(tmp_path, comparison, "t")
    browser.open((tmp_path / "comparison.html").as_uri())
    name = "[...document.querySelectorAll('li')].find(e => e.textContent == 'test/1.jpg')"
    assert not browser.evaluate(f"{name}.checkVisibility()")
    browser.evaluate(f"{name}.closest('details').querySelector('summary').click()")
    assert browser.evaluate(f"{name}.checkVisibility()")


def test_dark_mode_is_readable(browser: Browser, page: str) -> None:
    """At least 4.5:1 between text and ground, as WCAG 2.1 asks for (1.4.3), in both colour schemes."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        browser.colour_scheme(scheme)
        browser.open(page)
        paper = luminance(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (paper > 0.5) == (scheme == "light")
        for selector in ("body", ".muted", ".good", ".bad", "summary", "figcaption"):
            ink = luminance(browser.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (scheme, selector)
    browser.colour_scheme(None)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.1)."""
    values = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_browser_hears_of_everything(browser: Browser, tmp_path: Path) -> None:
    """Otherwise the tests above would say nothing."""
    (tmp_path / "bad.html").write_text(
        """<title>bad</title><img src="http://example.org/a.png"><script>
        console.warn("careful", 3); fetch("http://example.net/b").catch(e => 0)
        new Worker(URL.createObjectURL(new Blob(["fetch('http://example.com/c').catch(e => 0)"])))
        setTimeout(() => { document.title = "done"; throw new Error("boom") }, 300)</script>"""
    )
    browser.open((tmp_path / "bad.html").as_uri(), wait="document.title == 'done'")
    hosts = {"http://example.org/a.png", "http://example.net/b", "http://example.com/c"}
    assert set(browser.outside) == hosts
    texts = [message.text for message in browser.complaints]
    assert "careful 3" in texts and any("boom" in text for text in texts)
    assert any("ERR_NAME_NOT_RESOLVED" in text for text in texts)
    with pytest.raises(PageError, match="nothing is not defined"):
        browser.evaluate("nothing.there")
    browser.open("about:blank")
    assert not browser.console and not browser.outside


def test_screenshots_have_the_size_asked_for(browser: Browser, page: str, tmp_path: Path) -> None:
    browser.open(page)
    browser.screenshot(tmp_path / "part.png", 1200, 700)
    browser.screenshot(tmp_path / "phone.png", 400)
    assert picture(tmp_path / "part.png").shape == (700, 1200, 3)
    height, width, _ = picture(tmp_path / "phone.png").shape
    assert width == 400 and height > 2000
