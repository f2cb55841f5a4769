"""The comparison as one HTML file that can be mailed, printed and kept: it loads nothing, from nowhere."""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

from cnnexp.files import write_whole
from cnnexp.report.compare import Comparison, Row, Step, table_rows
from cnnexp.report.wording import points

MOST_PICTURES = 24  # of each list of images; the names of all are there

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2733; --muted: #5b6773; --paper: #ffffff; --band: #f4f7fa; --line: #dde3e9;
  --good: #1d7a51; --bad: #b83232;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6ebf0; --muted: #9aa7b4; --paper: #14191f; --band: #1c232b; --line: #323c47;
    --good: #5cc794; --bad: #f08080;
  }
}
body {
  font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1240px; margin: 2rem auto; padding: 0 1rem;
}
h1 { font-size: 1.9rem; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem 1.2rem; max-width: 46rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
summary { cursor: pointer; color: var(--muted); }
.muted { color: var(--muted); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
tbody th { font-weight: 600; }
tbody tr:nth-child(odd) { background: var(--band); }
td.best { font-weight: 700; }
.chart { width: 100%; height: auto; border-radius: 8px; background: #ffffff; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .6rem; }
.photos img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--band); }
figure { margin: 0; }
figcaption { font-size: .72rem; line-height: 1.25; color: var(--muted); overflow-wrap: anywhere; }
.names { columns: 16rem; font-size: .8rem; overflow-wrap: anywhere; padding-left: 1.2rem; }
@media print {
  body { margin: 0; max-width: none; font-size: 11px; }
  table { font-size: 8px; }
  th, td { padding: .2rem .3rem; white-space: normal; }
  h2, h3 { break-after: avoid; }
  figure, tr, .chart { break-inside: avoid; }
}
"""

READING = """
<dl>
<dt>val %, test %</dt><dd>Share of images classified correctly. Several runs that differ only in
their seed are shown as mean &plusmn; standard deviation. Variants should be chosen by the validation
figure; the test images are read once, at the end of a run.</dd>
<dt>95 % interval</dt><dd>Wilson's score interval of the test accuracy: what a test set of this
size can say. Seeds share the test images, so more seeds do not narrow it.</dd>
<dt>published %</dt><dd>The accuracy that the source of the experiment reports, where it reports
one.</dd>
<dt>gain, p</dt><dd>Percentage points on the variant above, and the p value of McNemar's exact
test, which counts only the images on which the two runs of lowest seed differ. Above 0.05, the difference
may well be chance. Many steps make many tests: of twenty without effect, about one falls below 0.05.</dd>
<dt>fixed/broken</dt><dd>Images that only this variant's run got right, and that only the run above
got right.</dd>
<dt>time/point, trainable/point</dt><dd>The training time and the trained parameters of the
variant, by percentage point that it gained. None where it gained nothing. Times hold for the machine they
were measured on.</dd>
</dl>
"""


def pictured(comparison: Comparison) -> list[str]:
    """The ids that `write_page` shows thumbnails of, each once: at most 24 fixed and 24 broken a step."""
    steps = [row.step for row in comparison.rows if row.step]
    shown = (image for step in steps for images in (step.fixed, step.broken) for image in images[:MOST_PICTURES])
    return list(dict.fromkeys(shown))


def write_page(
    path: str | Path,
    comparison: Comparison,
    chart_png: str | Path,
    title: str,
    images: Mapping[str, bytes] | None = None,
) -> None:
    """Write the page: table, chart, the images that each step fixed and broke, and how to read it all.

    Args:
        path: the HTML file.
        comparison: what to show.
        chart_png: the file that `draw_progression` wrote; it is copied into the page.
        title: the headline.
        images: thumbnails as PNG or JPEG bytes by image id, for the ids of `pictured`; the others are named.
    """
    chart = data_uri(Path(chart_png).read_bytes())
    variants = ", ".join(row.name for row in comparison.rows)
    steps = "".join(_step(row, row.step, comparison.decimals, images or {}) for row in comparison.rows if row.step)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is loaded from anywhere
    html = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<img class="chart" src="{chart}" alt="The table below as a chart: {escape(variants)}">
<h2>Summary</h2>
{_table(comparison)}
<h2>How to read this</h2>
{READING}
{steps}</body>
</html>
"""
    write_whole(path, html.encode("utf-8", "replace"))


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as a `data:` address."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _table(comparison: Comparison) -> str:
    columns, rows = table_rows(comparison)
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    best = max((row.test_accuracy for row in comparison.rows if row.test_accuracy is not None), default=None)
    lines = []
    for row, texts in zip(comparison.rows, rows, strict=True):
        cells = [f'<th scope="row">{escape(texts[0])}</th>']
        for column, text in zip(columns[1:], texts[1:], strict=True):
            kind = ' class="best"' if column == "test %" and best is not None and row.test_accuracy == best else ""
            cells.append(f"<td{kind}>{escape(text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _step(row: Row, step: Step, decimals: int, images: Mapping[str, bytes]) -> str:
    heading = f"{escape(step.previous)} &rarr; {escape(row.name)}"
    if step.gain is not None:
        heading += f", {points(step.gain, decimals)} points"
    parts = [f"<section>\n<h2>{heading}</h2>\n"]
    if step.note:
        parts.append(f'<p class="muted">Not compared image by image: {escape(step.note)}.</p>\n')
    else:
        parts.append(_photos("good", f"fixed by {row.name}", step.fixed, images))
        parts.append(_photos("bad", f"broken by {row.name}", step.broken, images))
    return "".join(parts) + "</section>\n"


def _photos(kind: str, words: str, ids: tuple[str, ...], images: Mapping[str, bytes]) -> str:
    heading = f'<h3 class="{kind}">{len(ids)} {escape(words)}</h3>\n'
    shown = [image for image in ids[:MOST_PICTURES] if image in images]
    figures = "\n".join(
        f'<figure><img src="{data_uri(images[image])}" alt="{escape(image)}">'
        f"<figcaption>{escape(image)}</figcaption></figure>"
        for image in shown
    )
    rest = [image for image in ids if image not in shown]
    names = "".join(f"<li>{escape(image)}</li>" for image in rest)
    more = f"{len(rest)} more" if shown else f"{len(rest)} names"
    return (
        heading
        + (f'<div class="photos">\n{figures}\n</div>\n' if shown else "")
        + (f'<details><summary>{more}</summary><ul class="names">{names}</ul></details>\n' if rest else "")
    )
