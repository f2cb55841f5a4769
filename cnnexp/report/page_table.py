"""Tables of a page that sort at a click, without a script: what a heading's button chooses, CSS puts in order."""

import re
from collections.abc import Sequence
from html import escape

from cnnexp.report.tables import Table

MOST_COLUMNS = 40  # that sort
LAST = 100_000  # the place of what has no value
SECONDS = {"h": 3600, "min": 60, "s": 1}
TIMES = {"k": 1e3, "M": 1e6, "G": 1e9}

STYLE = """
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .3rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th.name, td.name { text-align: left; white-space: normal; overflow-wrap: break-word; }
td:has(span) { white-space: normal; }
td span { white-space: nowrap; }
thead th { white-space: normal; position: relative; align-content: end; padding-right: .8rem; }
tbody th { font-weight: 600; }
td.best { font-weight: 700; }
thead input { position: absolute; left: 0; top: 0; margin: 0; opacity: 0; }
thead label { display: none; }
@supports (grid-template-columns: subgrid) and selector(:has(a)) {
  table { display: grid; }
  thead, tbody, tr { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; }
  thead th:focus-within { outline: 2px solid var(--muted); }
  thead label { display: block; position: absolute; inset: 0; cursor: pointer; }
  thead label.down, th:has(.up:checked) label.up { display: none; }
  th:has(.up:checked) label.down { display: block; }
  th:has(.up:checked)::after, th:has(.down:checked)::after { position: absolute; right: 0; }
  th:has(.up:checked)::after { content: "\\25B2"; }
  th:has(.down:checked)::after { content: "\\25BC"; }
}
@media (max-width: 700px) {
  table, tr { display: block; }
  tbody { display: flex; flex-direction: column; }
  thead tr { display: flex; flex-wrap: wrap; gap: .3rem; border-bottom: 2px solid var(--line); }
  thead th { border: 1px solid var(--line); border-radius: 4px; padding: .2rem 1rem .2rem .4rem; }
  tbody tr { border-bottom: 2px solid var(--line); padding: .5rem 0; }
  tbody th, tbody td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; }
  tbody th::before, tbody td::before { content: attr(data-head); color: var(--muted); font-weight: 400; }
}
"""


def html_table(table: Table, number: int, bold: Sequence[tuple[int, int]] = ()) -> str:
    """A table of a page.

    Args:
        number: which of the page's tables it is, from 0.
        bold: cells (row, column) to set in bold.
    """
    heads = "".join(_head(table, number, column) for column in range(len(table.columns)))
    places = [_places([row[column] for row in table.rows]) for column in range(len(table.columns))]
    lines = []
    for row, texts in enumerate(table.rows):
        order = "".join(_order(column, places[column][row]) for column in range(min(len(texts), MOST_COLUMNS)))
        cells = "".join(_cell(table, column, text, (row, column) in bold) for column, text in enumerate(texts))
        lines.append(f'<tr role="row" style="{order}">{cells}</tr>')
    body = "\n".join(lines)
    others = len(table.columns) - table.names
    columns = f"repeat({table.names}, minmax(min-content, auto)) repeat({others}, auto)"
    return (
        f'<div class="scroll"><table role="table" style="grid-template-columns: {columns}">\n'
        f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody>\n</table></div>\n'
    )


def sort_rules(columns: int) -> str:
    """The CSS that sorts tables of at most so many columns."""
    rules = []
    for column in range(min(columns, MOST_COLUMNS)):
        rules.append(f"table:has(.up.c{column}:checked) tbody tr {{ order: var(--c{column}); }}")
        falling = f"var(--last{column}, calc(-1 * var(--c{column})))"
        rules.append(f"table:has(.down.c{column}:checked) tbody tr {{ order: {falling}; }}")
    return "\n".join(rules)


def _head(table: Table, number: int, column: int) -> str:
    text = table.columns[column]
    kind = ' class="name"' if column < table.names else ""
    shown = _breakable(text)
    buttons = ""
    for way, words in (("up", "rising"), ("down", "falling")) if text and column < MOST_COLUMNS else ():
        name = f"t{number}c{column}{way}"
        buttons += (
            f'<input type="radio" name="t{number}" id="{name}" class="{way} c{column}" '
            f'aria-label="sort by {escape(text)}, {words}" /><label for="{name}" class="{way}"></label>'
        )
    return f'<th scope="col" role="columnheader"{kind}>{shown}{buttons}</th>'


def _cell(table: Table, column: int, text: str, bold: bool) -> str:
    tag, role = ("th", 'scope="row" role="rowheader"') if column == 0 else ("td", 'role="cell"')
    is_name, (figure, opened, around) = column < table.names, text.partition(" (")
    kinds = " ".join(["name"] * is_name + ["best"] * bold)
    kind = f' class="{kinds}"' if kinds else ""
    shown = _breakable(text) if is_name else escape(text)
    if opened and not is_name:  # an interval may stand below its figure, as a whole
        shown = f"<span>{escape(figure)}</span> <span>({escape(around)}</span>"
    return f'<{tag} {role}{kind} data-head="{escape(table.columns[column])}">{shown}</{tag}>'


def _breakable(text: str) -> str:
    """A name that goes on in the next line behind a sign, or else within a word of more than 16 letters."""
    parts = re.findall(r"[^/._=,-]{1,16}[/._=,-]*|[/._=,-]+", text)
    return "<wbr>".join(map(escape, parts))


def _order(column: int, place: int | None) -> str:
    return f"--c{column}:{LAST};--last{column}:{LAST};" if place is None else f"--c{column}:{place};"


def _places(texts: Sequence[str]) -> list[int | None]:
    """The place of each text among the others, numbers by their value and before words; None for one without."""
    known = {text: _value(text) for text in texts if text not in ("", "-")}
    values = sorted(set(known.values()))
    return [values.index(known[text]) if text in known else None for text in texts]


def _value(text: str) -> tuple[bool, float, str]:
    """What a text is sorted by: `95.9 ± 0.2`, `4 min 56 s`, `65.8 k` and `<0.001` by the number that they say."""
    if re.fullmatch(r"(\d+(\.\d+)? (h|min|s) ?)+", text):
        return False, sum(float(n) * SECONDS[unit] for n, unit in re.findall(r"([\d.]+) (h|min|s)\b", text)), ""
    plain = text.replace("\N{MINUS SIGN}", "-").removeprefix("<")
    found = re.match(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?(?= ([kMG])\b|\D|$)", plain)
    if found is None:
        return True, 0.0, text.lower()
    return False, float(found[0]) * TIMES.get(found[3] or "", 1.0), text
