"""The comparison as one HTML file that can be mailed, printed and kept: it loads nothing, from nowhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from pathlib import Path

from cnnexp.console import visible
from cnnexp.files import write_atomic
from cnnexp.report.compare import Comparison, PairedComparison, Variant
from cnnexp.report.mistakes import Mistake, kind_of
from cnnexp.report.tables import table_rows
from cnnexp.report.wording import points

MOST_PICTURES = 8  # of each list of images
MOST_PICTURES_OF_ALL = 400  # a page of many steps shows fewer of each, and stays below 3 MB
MOST_NAMES = 300  # of each list of images

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
th, td { padding: .4rem .38rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody tr:nth-child(odd) { background: var(--band); }
td.best { font-weight: 700; }
.chart { width: 100%; min-width: 45rem; height: auto; border-radius: 8px; background: #ffffff; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .6rem; }
.photos img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--band); }
figure { margin: 0; }
figcaption { font-size: .72rem; line-height: 1.25; overflow-wrap: anywhere; }
.names { columns: 16rem; font-size: .8rem; overflow-wrap: anywhere; padding-left: 1.2rem; }
@media print {
  body { margin: 0; max-width: none; font-size: 11px; }
  .chart { min-width: 0; }
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


def write_page(
    path: str | Path,
    comparison: Comparison,
    chart_png: str | Path,
    title: str,
    mistakes: Mapping[str, Mapping[str, Mistake]] | None = None,
) -> None:
    """Write the page: table, chart, the images that each step fixed and broke, and how to read it all.

    Args:
        path: the HTML file.
        comparison: what to show.
        chart_png: the file that `draw_progression` wrote; it is copied into the page.
        title: the headline.
        mistakes: for each variant, by image name, the mistakes that its step fixed and broke, with their
            thumbnails; images without are named.
    """
    chart = data_uri(Path(chart_png).read_bytes())
    variants = ", ".join(row.name for row in comparison.rows)
    stepped = [(row, row.step) for row in comparison.rows if row.step]
    most = min(MOST_PICTURES, MOST_PICTURES_OF_ALL // (2 * max(len(stepped), 1)))
    known = mistakes or {}
    steps = "".join(_step(row, step, comparison.decimals, known.get(row.name, {}), most) for row, step in stepped)
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
<div class="scroll"><img class="chart" src="{chart}" alt="The table below as a chart: {escape(variants)}"></div>
<h2>Summary</h2>
{_table(comparison)}
{steps}<section>
<h2>How to read this</h2>
{READING}
</section>
</body>
</html>
"""
    write_atomic(path, html.encode())


def escape(text: str) -> str:
    """Text as HTML shows it, on one line."""
    return escape_html(visible(text))


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as a `data:` address."""
    return f"data:image/{kind_of(picture)};base64,{base64.b64encode(picture).decode()}"


def _table(comparison: Comparison) -> str:
    columns, rows = table_rows(comparison)
    head = "".join(f'<th scope="col">{escape(column).replace("/", "/<wbr>")}</th>' for column in columns)
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


def _step(row: Variant, step: PairedComparison, decimals: int, mistakes: Mapping[str, Mistake], most: int) -> str:
    heading = f"{escape(step.previous)} &rarr; {escape(row.name)}"
    if step.gain is not None:
        heading += f", {points(step.gain, decimals)} points"
    parts = [f"<section>\n<h2>{heading}</h2>\n"]
    if step.note:
        parts.append(f'<p class="muted">Not compared image by image: {escape(step.note)}.</p>\n')
    else:
        parts.append(_photos("good", f"fixed by {row.name}", step.fixed, mistakes, most))
        parts.append(_photos("bad", f"broken by {row.name}", step.broken, mistakes, most))
        if (step.fixed or step.broken) and not mistakes:
            parts.append('<p class="muted">Names only: the runs recorded no pictures of these images.</p>\n')
    return "".join(parts) + "</section>\n"


def _photos(kind: str, words: str, ids: tuple[str, ...], mistakes: Mapping[str, Mistake], most: int) -> str:
    """A heading, at most `most` photos from all over the list (which goes by class), and the other names."""
    heading = f'<h3 class="{kind}">{len(ids)} {escape(words)}</h3>\n'
    known = [image for image in ids if image in mistakes]
    shown = [known[place * len(known) // most] for place in range(most)] if len(known) > most else known
    figures = "\n".join(_photo(image, mistakes[image]) for image in shown)
    rest = [image for image in ids if image not in shown]
    return (
        heading
        + (f'<div class="photos">\n{figures}\n</div>\n' if shown else "")
        + (_names(rest, f"{len(rest)} more" if shown else f"{len(rest)} names") if rest else "")
    )


def _photo(image: str, mistake: Mistake) -> str:
    said = f"{escape(mistake.truth)}, taken for {escape(mistake.predicted)}"
    return (
        f'<figure><img src="{data_uri(mistake.picture)}" alt="{escape(image)}">'
        f'<figcaption>{said}<br><span class="muted">{escape(image)}</span></figcaption></figure>'
    )


def _names(images: Sequence[str], summary: str) -> str:
    names = "".join(f"<li>{escape(image)}</li>" for image in images[:MOST_NAMES])
    left = len(images) - MOST_NAMES
    end = f'<p class="muted">and {left} more, in the predictions.csv of the two runs</p>' if left > 0 else ""
    return f'<details><summary>{summary}</summary><ul class="names">{names}</ul>{end}</details>\n'
