"""The comparison as a page: that it is whole, loads nothing, and shows what it should."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_runs import answers, keep_mistakes, result

from cnnexp.report.chart import draw_progression
from cnnexp.report.compare import Comparison, summarise
from cnnexp.report.mistakes import Mistake, thumbnail
from cnnexp.report.page import MOST_NAMES, MOST_PICTURES, write_page
from cnnexp.report.page_table import html_table
from cnnexp.report.tables import Table, table_rows
from cnnexp.runs.comparison import mistakes_by_variant, write_report

pytestmark = pytest.mark.pictures


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would load."""

    VOID = ("meta", "img", "br", "wbr", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.closed = False  # whether a tag was, behind the last of `tags`
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.closed = False
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag != "img" or dict(attrs)["alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.closed = True

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["wbr"] and not self.closed:
            self.words[-1] += data  # of one word, which may be divided there
        else:
            self.words.append(data)


def test_page_stands_alone(tmp_path: Path) -> None:
    hostile = "<img src=http://example.org/x>&\"'"
    older = answers(tmp_path / "older.csv", "RWWW", ["a", hostile, "<b>", "d"])
    newer = answers(tmp_path / "newer.csv", "WRRW", ["a", hostile, "<b>", "d"])
    comparison = summarise(
        [
            result("old", 0.25, 0, test_total=4, predictions_path=older),
            result(f"new {hostile}", 0.5, 1, test_total=4, predictions_path=newer),
            result("without", 0.75, 2, test_total=4),
        ]
    )
    draw_progression(tmp_path / "chart.png", comparison, "title")
    jpeg, png = (Mistake(thumbnail(np.zeros((side, side, 3), np.uint8)), hostile, "dog") for side in (99, 9))
    known = {f"new {hostile}": {hostile: jpeg, "a": png}}
    write_page(tmp_path / "page.html", comparison, tmp_path / "chart.png", f"T {hostile}", known)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open and html.startswith("<!DOCTYPE html>")
    kinds = [source.split(",")[0] for source in page.sources]
    assert kinds == ["data:image/png;base64", "data:image/jpeg;base64", "data:image/png;base64"]
    assert not {"script", "link", "b", "iframe"} & set(page.tags) and "url(" not in html and "@import" not in html
    words = " ".join(page.words)
    assert {f"T {hostile}", f"2 fixed by new {hostile}", f"1 broken by new {hostile}", "<b>"} <= set(page.words)
    assert page.words.count(f"{hostile}, taken for dog") == 2
    assert "Wilson" in words and "McNemar" in words and "+25.0 points" in words
    assert "without has no predictions.csv" in words
    for texts_of_row in table_rows(comparison)[1]:
        assert set(texts_of_row) <= set(page.words)


def two_variants(folder: Path, count: int) -> Comparison:
    """`new` gets all of `count` images right, `old` none."""
    older, newer = answers(folder / "older/p.csv", "W" * count), answers(folder / "newer/p.csv", "R" * count)
    keep_mistakes(older)
    keep_mistakes(newer)
    return summarise([result("old", 0.0, 0, predictions_path=older), result("new", 1.0, 1, predictions_path=newer)])


def test_page_shows_some_pictures_and_names_the_rest(tmp_path: Path) -> None:
    comparison = two_variants(tmp_path, 30)
    write_report(tmp_path, comparison, "t")
    page = Page((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    assert len(page.sources) == 1 + MOST_PICTURES == 9 and "22 more" in page.words
    assert {f"test/{number}.jpg" for number in range(30)} <= set(page.words)
    assert page.words.count("cats, taken for dogs") == page.words.count("dogs, taken for cats") == 4
    step = comparison.rows[1].step
    assert step is not None and step.p_value == pytest.approx(0.5**30)
    assert not any("Names only" in words for words in page.words)


def test_page_without_pictures_says_so(tmp_path: Path) -> None:
    comparison = two_variants(tmp_path, 30)
    for archive in tmp_path.glob("*/mistakes.zip"):
        archive.unlink()
    write_report(tmp_path, comparison, "t")
    page = Page((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    assert len(page.sources) == 1 and "30 names" in page.words
    assert any("Names only" in words for words in page.words)


def test_a_damaged_archive_costs_the_pictures_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = two_variants(tmp_path, 3)
    (tmp_path / "older" / "mistakes.zip").write_bytes(b"no archive")
    assert mistakes_by_variant(comparison) == {"new": {}}
    assert "mistakes.zip" in capsys.readouterr().err


def test_a_large_page_stays_below_three_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    mistake = Mistake(thumbnail(noise), "cats", "dogs")  # no photo takes more bytes
    ids = [f"test/{'long name ' * 3}{number}.jpg" for number in range(400)]
    paths = [answers(tmp_path / f"{kind}.csv", kind * 400, ids) for kind in "RW"]
    runs = [result(f"v{number}", number % 2, number, predictions_path=paths[number % 2]) for number in range(40)]
    comparison = summarise(runs)
    (tmp_path / "chart.png").write_bytes(b"\x89PNG" + bytes(300_000))  # one of 40 variants has so many
    known = {row.name: dict.fromkeys(ids, mistake) for row in comparison.rows}
    write_page(tmp_path / "page.html", comparison, tmp_path / "chart.png", "t", known)
    html = (tmp_path / "page.html").read_text()
    assert len(html) < 3_000_000
    assert html.count("data:image/jpeg") == 39 * (400 // 78)  # each step fixes or breaks all
    assert f"and {400 - 400 // 78 - MOST_NAMES} more" in html


def test_pictures_come_from_the_run_that_was_wrong(tmp_path: Path) -> None:
    """Of the lowest seed that finished; and the same names in another data set are other images."""
    runs = []
    for order, (name, right, grey) in enumerate([("a", "RWW", 10), ("b", "WRW", 20), ("c", "RR", 30), ("d", "WR", 40)]):
        for seed in (1, 0):
            path = answers(tmp_path / f"{name}{seed}" / "p.csv", right if seed else "W" * len(right))
            keep_mistakes(path, grey=grey + seed)
            status = "FINISHED" if seed else "FAILED"
            runs.append(result(name, 0.5, order, seed=seed, status=status, predictions_path=path))
    comparison = summarise(runs)
    assert [row.step.note if row.step else None for row in comparison.rows] == [
        None, "", "not the same test images as b", ""
    ]  # fmt: skip
    found = mistakes_by_variant(comparison)
    thumbnails = {grey: thumbnail(np.full((64, 64, 3), grey, np.uint8)) for grey in (11, 21, 31, 41)}
    assert {name: mistake.picture for name, mistake in found["b"].items()} == {
        "test/1.jpg": thumbnails[11],  # fixed: the mistake of a
        "test/0.jpg": thumbnails[21],  # broken: the mistake of b
    }
    assert found["c"] == {}
    assert {name: mistake.picture for name, mistake in found["d"].items()} == {"test/0.jpg": thumbnails[41]}


def test_names_go_on_behind_a_sign_and_intervals_below_their_figure() -> None:
    """No name is broken within a word of at most 16 letters, and nothing within an interval."""
    row = ["loss.class_weight=balanced", "augmentation", "x" * 40, "0.94 \N{PLUS-MINUS SIGN} 0.01 (0.91 - 0.96)"]
    html = html_table(Table(["a", "b", "c", "test f1_macro"], [row], 3), 0)
    for shown in (
        ">loss.<wbr>class_<wbr>weight=<wbr>balanced</th>",
        ">augmentation</td>",
        f">{'x' * 16}<wbr>{'x' * 16}<wbr>{'x' * 8}</td>",
        "><span>0.94 \N{PLUS-MINUS SIGN} 0.01</span> <span>(0.91 - 0.96)</span></td>",
    ):
        assert shown in html
