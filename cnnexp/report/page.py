"""The comparison as one HTML file that can be mailed, printed and kept: it loads nothing, from nowhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from pathlib import Path

from cnnexp.console import visible
from cnnexp.files import write_atomic
from cnnexp.metrics.names import rises
from cnnexp.report.columns import COSTS
from cnnexp.report.compare import Comparison, PairedComparison, Result, Variant
from cnnexp.report.grid import Grid
from cnnexp.report.mistakes import Mistake, kind_of
from cnnexp.report.page_table import STYLE as TABLE_STYLE
from cnnexp.report.page_table import html_table, sort_rules
from cnnexp.report.tables import (
    Table,
    chosen_table,
    compared_by,
    effect_table,
    grid_table,
    not_compared,
    pair_table,
    ranked_by,
    table_rows,
)
from cnnexp.report.wording import difference, heading

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
h1, h2, h3 { overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem 1.2rem; max-width: 46rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
summary { cursor: pointer; color: var(--muted); }
@media (max-width: 700px) { h1 { font-size: 1.3rem; } }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; }
.facts dd { margin: 0; max-width: none; overflow-wrap: anywhere; }
.facts dd.line { font-family: ui-monospace, monospace; }
.muted { color: var(--muted); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
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

READING_OF_GRID = """
<dl>
<dt>rank</dt><dd>By the figure of the column beside the keys, which trainer.monitor (or --metric) names: of the
validation images, and of the weights that were kept. Several runs that differ only in their seed are shown as mean
&plusmn; standard deviation.</dd>
<dt>best, tie, p</dt><dd>The best is the one that is chosen. p is of the difference between it and each other: could
both be equally good, on the validation images? It is a paired test over the images, with the answers of all seeds; of
accuracies of single runs McNemar's (mid p). p Holm is corrected for the number of points. A tie is not to be told from
the best: p Holm is 0.05 or more, or the figures are equal. Runs of older versions did not keep their answers, and have
no p.</dd>
<dt>corrected</dt><dd>The best of many is a little too good: it was chosen for its figure. In each of
1000 resamples of the validation images the best is chosen anew, and its figure taken of the images left out; this is
the mean. It is to be read beside the figure of the test images, which chose nothing.</dd>
<dt>what each key does</dt><dd>The mean of all points in which the key has the value, and the gain on those which differ
in this key alone and have its first value, with its 95 % interval (Student's t over these pairs). A key with many
numbers is cut at their median; its gain is the difference of the two means (Welch's t).</dd>
<dt>test %, 95 % interval</dt><dd>Share of the test images classified correctly, with Wilson's score interval; those of
other figures come from 1000 resamples of the images. Where images come in groups, whole groups are drawn, and tossed.
The test images are read once, at the end of a run, and rank nothing here.</dd>
<dt>not compared</dt><dd>Points of different images, as of several data sets or of one that is divided in several ways,
stand side by side in the order of the sweep, and nothing more is said of them.</dd>
</dl>
"""

READING = """
<dl>
<dt>val %, test %</dt><dd>Share of images classified correctly. Several runs that differ only in
their seed are shown as mean &plusmn; standard deviation. Variants should be chosen by the validation
figure; the test images are read once, at the end of a run.</dd>
<dt>95 % interval</dt><dd>What a test set of this size can say: Wilson's score interval of the test accuracy, of
another figure one from 1000 resamples of the images. Where images come in groups, whole groups are drawn, and their
signs or answers are tossed together. Seeds share the test images, so more seeds narrow it little.</dd>
<dt>published %</dt><dd>The accuracy that the source of the experiment reports, where it reports
one.</dd>
<dt>gain, p</dt><dd>What the figure changed on the variant before it, or on the one that is named above, with its 95 %
interval, and whether that may be chance: a paired test over the same images, each with the answers of all seeds. For
an accuracy the signs of the images' differences are tossed (of single runs, McNemar's test with the mid p), for other
figures the answers. Above 0.05, the difference may well be chance. Many steps make many tests: of twenty without
effect, about one falls below 0.05. p Holm is corrected for that.</dd>
<dt>fixed/broken</dt><dd>Images that only this variant's run got right, and that only the run
before it got right, of the runs of lowest seed.</dd>
<dt>time/point, trainable/point</dt><dd>The training time and the trained parameters of the
variant, by percentage point (0.01 of the figure) that it gained. None where it gained nothing. Times hold for the
machine they were measured on.</dd>
</dl>
"""


def write_page(  # noqa: PLR0913 - what a page is made of
    path: str | Path,
    comparison: Comparison | Grid,
    chart_png: str | Path | bytes,
    title: str,
    mistakes: Mapping[str, Mapping[str, Mistake]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page: what was compared, chart, table, the images that each step fixed and broke, how to read it all.

    Args:
        path: the HTML file.
        comparison: what to show.
        chart_png: the chart, as a file or as what is in it; it is copied into the page.
        title: the headline.
        mistakes: for each variant of a progression, by image name, the mistakes that its step fixed and broke, with
            their thumbnails; images without are named.
        facts: where the figures come from, by short words.
    """
    chart = data_uri(chart_png if isinstance(chart_png, bytes) else Path(chart_png).read_bytes())
    if isinstance(comparison, Grid):
        tables, sections, reading = _grid_tables(comparison), "", READING_OF_GRID
    else:
        tables, sections, reading = _table(comparison), _steps(comparison, mistakes or {}), READING
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is loaded from anywhere
    html = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{STYLE}{TABLE_STYLE}{sort_rules(tables.count('scope="col"'))}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{_facts(facts or {})}<div class="scroll"><img class="chart" src="{chart}" alt="The table below as a chart"></div>
<h2>Summary</h2>
{tables}{_runs(comparison.runs)}{sections}<section>
<h2>How to read this</h2>
{reading}
</section>
</body>
</html>
"""
    write_atomic(path, html.encode())


def escape(text: str) -> str:
    """Text as HTML shows it, on one line."""
    return escape_html(visible(text))


def _facts(facts: Mapping[str, str]) -> str:
    parts = [
        f"<dt>{escape(word)}</dt><dd{' class=line' * (word == 'line')}>{escape(text)}</dd>"
        for word, text in facts.items()
    ]
    return f'<dl class="facts">{"".join(parts)}</dl>\n' if parts else ""


def _runs(runs: Sequence[Result]) -> str:
    """The run ids, folded."""
    lines = "".join(f"<li>{escape(run.run_id)} {escape(run.name)}, seed {run.seed}</li>" for run in runs)
    return f'<details><summary>{len(runs)} run ids</summary><ul class="names">{lines}</ul></details>\n'


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as a `data:` address."""
    return f"data:image/{kind_of(picture)};base64,{base64.b64encode(picture).decode()}"


def _table(comparison: Comparison) -> str:
    columns, rows = table_rows(comparison)
    found = [row.estimate(comparison.metric) for row in comparison.rows]
    values = [figure.value for figure in found if figure is not None]
    best = (max if rises(comparison.metric) else min)(values, default=None)
    place = columns.index(heading(f"test/{comparison.metric}"))
    bold = [(at, place) for at, figure in enumerate(found) if figure is not None and figure.value == best]
    if any(row.step and row.step.note and row.step.gain is None for row in comparison.rows):
        bold = []  # of different images none is the best
    lines = [compared_by(comparison, chosen=True), *(f"not compared: {line}" for line in not_compared(comparison))]
    said = "".join(f'<p class="muted">{escape(line)}</p>\n' for line in lines) if len(rows) > 1 else ""
    costs = [at for at, name in enumerate(columns) if name in COSTS]
    first = [at for at in range(len(columns)) if at not in costs]
    shown = html_table(_columns(columns, rows, first), 0, [(at, first.index(place)) for at, place in bold]) + said
    if comparison.pairs:
        shown += f"<h2>Each pair: what the one gains on the other</h2>\n{html_table(pair_table(comparison), 1)}"
    return f"{shown}<h2>What each cost</h2>\n{html_table(_columns(columns, rows, [0, *costs]), 2)}"


def _columns(columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int]) -> Table:
    return Table([columns[at] for at in kept], [[row[at] for at in kept] for row in rows])


def _grid_tables(grid: Grid) -> str:
    made, effects = grid_table(grid), effect_table(grid)
    place = made.columns.index(heading(grid.monitor))
    shown = html_table(made, 0, [(at, place) for at, point in enumerate(grid.points) if point.best])
    shown += f'<p class="muted">{escape(said)}</p>\n' if (said := ranked_by(grid)) else ""
    if grid.chosen:
        shown += f"<h2>The best, and what choosing it added</h2>\n{html_table(chosen_table(grid), 2)}"
    if not effects.rows:
        return shown
    return f"{shown}<h2>What each key does, all else equal</h2>\n{html_table(effects, 1)}"


def _steps(comparison: Comparison, mistakes: Mapping[str, Mapping[str, Mistake]]) -> str:
    stepped = [(row, row.step) for row in comparison.rows if row.step]
    most = min(MOST_PICTURES, MOST_PICTURES_OF_ALL // (2 * max(len(stepped), 1)))
    return "".join(
        _step(row, step, _gained(step, comparison), mistakes.get(row.name, {}), most) for row, step in stepped
    )


def _gained(step: PairedComparison, comparison: Comparison) -> str:
    if step.gain is None:
        return ""
    points = "points" if comparison.metric.endswith("acc") else comparison.metric
    return f", {difference(comparison.metric, step.gain, comparison.decimals)} {points}"


def _step(row: Variant, step: PairedComparison, gained: str, mistakes: Mapping[str, Mistake], most: int) -> str:
    parts = [f"<section>\n<h2>{escape(step.previous)} &rarr; {escape(row.name)}{escape(gained)}</h2>\n"]
    if step.note:
        parts.append(f'<p class="muted">Not compared image by image: {escape(step.note)}.</p>\n')
    if not step.note or step.fixed or step.broken:
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
        + (
            f'<details><summary>{len(shown)} photos</summary><div class="photos">\n{figures}\n</div></details>\n'
            if shown
            else ""
        )
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
