"""Parts of a self-contained HTML page: style, tables that sort, line charts, pictures.

A page needs no network and no file beside it. It is readable on a phone and on paper, and follows
the reader's choice of dark or light. All texts are escaped here.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6472; --paper: #fcfcfb;
  --card: #ffffff; --line: #dfe3e8; --accent: #0b62a8; --second: #c2570c; --mark: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --paper: #12161c;
  --card: #1a2029; --line: #333d4a; --accent: #6cb6f5; --second: #f5a35c; --mark: #3a3118; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.25rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; }
p, ul { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
a { color: var(--accent); } code { font-size: .85em; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child, .text { text-align: left; }
td.text { white-space: normal; min-width: 10rem; }
th:first-child { position: sticky; left: 0; background: var(--card); z-index: 1; min-width: 7rem;
  border-right: 1px solid var(--line); }
tbody th { font-weight: 600; }
thead th { vertical-align: bottom; font-weight: 600; }
thead button { all: unset; cursor: pointer; display: inline-block; }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
thead button::after { content: "\\a0\\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--accent); }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--accent); }
td small, th small { display: block; color: var(--soft); font-weight: 400; }
td.best { font-weight: 700; color: var(--accent); }
td.failed { background: var(--mark); white-space: normal; min-width: 9rem; text-align: left; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
figure { margin: 0; } figure.card { border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); padding: .7rem; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); } svg path { fill: none; stroke-width: 2; }
.s0 { stroke: var(--accent); } .s1 { stroke: var(--second); stroke-dasharray: 5 4; }
svg circle.s0 { fill: var(--accent); } svg circle.s1 { fill: var(--second); }
.key { display: inline-block; width: 1.6rem; border-top: 2px solid var(--accent);
  vertical-align: middle; margin-right: .3rem; }
.key.k1 { border-top: 2px dashed var(--second); }
img { display: block; max-width: none; background: #fff; border-radius: 4px; }
.scroll img { width: max(100%, 60rem); }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
@media print { .scroll { overflow: visible; } thead button::after { content: ""; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll('thead button')) {
  button.addEventListener('click', () => {
    const head = button.closest('th'), table = head.closest('table'), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const before = head.getAttribute('aria-sort');
    const isText = [...body.rows].some(row => isNaN(row.children[column].dataset.value ?? ''));
    const up = before ? before === 'descending' : isText;
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.children[column].dataset.value ?? '';
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === '' || y === '') return (x === '') - (y === '');
      const numbers = !isNaN(x) && !isNaN(y);
      const found = numbers ? x - y : x.localeCompare(y);
      return up ? found : -found;
    };
    body.append(...[...body.rows].sort(order));
  });
}
"""

_PICTURE_WIDTH = 2400  # pixels of an embedded picture; larger ones are reduced,
_PICTURE_HEIGHT = 800  # but not below this height: wide ones are scrolled
_CHART = (320, 190)  # of a chart's coordinates
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 24  # margins of its axes


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what is shown.
        value: what the column is sorted by, a number in full; None: nothing is known.
        note: smaller, below the text.
        kind: "" for numbers, "text", "best" or "failed".
    """

    text: str
    value: float | str | None = None
    note: str = ""
    kind: str = ""


class Row(NamedTuple):
    """A row of a table: its name, its title, and its cells after the first."""

    name: str
    title: str
    cells: Sequence[Cell]


class Head(NamedTuple):
    """The head of a column.

    Attributes:
        name: for programs that read the page.
        title: of the column.
        note: smaller, below it.
        kind: "" for numbers, "text" for a column whose cells are texts.
    """

    name: str
    title: str
    note: str = ""
    kind: str = ""


class Line(NamedTuple):
    """A line of a chart: (x, y) in the order of x. The first is solid, the second is dashed."""

    points: Sequence[tuple[float, float]]
    title: str


def html_page(title: str, *parts: str, style: str = "", script: str = "") -> str:
    """Return a whole page.

    Args:
        title: plain text, of the window and the heading.
        parts: HTML, from the functions of this module and of those beside it.
        style: of parts that need more than the style of all pages.
        script: of such parts.
    """
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{escaped(title)}</h1>\n{body}\n<script>{_SCRIPT}{script}</script>\n</body>\n</html>\n"
    )


def escaped(text: object) -> str:
    """Return a text as HTML."""
    return html.escape(str(text), quote=True)


def section(title: str, *parts: str) -> str:
    """Return parts below a heading; nothing without parts."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escaped(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, *, is_soft: bool = False) -> str:
    """Return a paragraph of plain text; nothing for an empty one."""
    kind = ' class="soft"' if is_soft else ""
    return f"<p{kind}>{escaped(text)}</p>" if text else ""


def bullets(texts: Iterable[str]) -> str:
    """Return a list of plain texts; nothing for none."""
    items = "".join(f"<li>{escaped(text)}</li>\n" for text in texts)
    return f"<ul>\n{items}</ul>" if items else ""


def link_rows(rows: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return a list: a text and its links (text, address relative to the page) in each row."""
    found = []
    for title, links in rows.items():
        anchors = (f'<a href="{escaped(quote(to))}">{escaped(text)}</a>' for text, to in links)
        found.append(f"<li><code>{escaped(title)}</code> {', '.join(anchors)}</li>\n")
    return f"<ul>\n{''.join(found)}</ul>"


def details(title: str, *parts: str) -> str:
    """Return parts that are shown when the title is opened."""
    body = "\n".join(part for part in parts if part)
    return f"<details>\n<summary>{escaped(title)}</summary>\n{body}\n</details>"


def sortable_table(name: str, heads: Sequence[Head], rows: Sequence[Row]) -> str:
    """Return a table whose columns sort by a click.

    Args:
        name: id of the table.
        heads: of all columns, that of the rows' titles first.
        rows: each with one cell for every further column.
    """
    head = "".join(
        f'<th{_kind(column.kind)} scope="col" data-column="{escaped(column.name)}">'
        '<button type="button">'
        f"{escaped(column.title)}</button>{_small(column.note)}</th>\n"
        for column in heads
    )
    body = "".join(_row(row, heads) for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table id="{escaped(name)}">\n<thead><tr>\n{head}</tr>'
        f"</thead>\n<tbody>\n{body}</tbody>\n</table></div>"
    )


def _row(row: Row, heads: Sequence[Head]) -> str:
    assert len(row.cells) + 1 == len(heads)
    cells = "".join(_cell(cell) for cell in row.cells)
    title = escaped(row.title)
    head = f'<th scope="row" data-value="{title}">{title}</th>'
    return f'<tr data-row="{escaped(row.name)}">\n{head}\n{cells}</tr>\n'


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else escaped(cell.value)
    return (
        f'<td{_kind(cell.kind)} data-value="{value}">{escaped(cell.text)}{_small(cell.note)}</td>\n'
    )


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _small(text: str) -> str:
    return f"<small>{escaped(text)}</small>" if text else ""


def charts(items: Iterable[str]) -> str:
    """Return charts side by side, as many as the width has room for."""
    return f'<div class="charts">\n{"".join(items)}</div>'


def chart_key(titles: Sequence[str]) -> str:
    """Return what the lines of the charts below mean."""
    keys = (
        f'<span class="key k{number}"></span>{escaped(title)}'
        for number, title in enumerate(titles)
    )
    return f'<p class="soft">{" &emsp; ".join(keys)}</p>'


_HIGHEST = 100  # of the y axis, in percent


def line_chart(title: str, lines: Sequence[Line], *, caption: str = "") -> str:
    """Return a chart of up to two lines, from 0 to 100.

    Args:
        title: above the chart.
        lines: to draw.
        caption: below the chart.
    """
    width, height = _CHART
    last = max((x for line in lines for x, _ in line.points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / last * (width - _LEFT - _RIGHT)
        return round(across, 1), round(
            height - _BOTTOM - y / _HIGHEST * (height - _TOP - _BOTTOM), 1
        )

    drawn = []
    for y in (0, 25, 50, 75, _HIGHEST):
        _, down = place(0, y)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down}" y2="{down}"/>'
            f'<text x="{_LEFT - 5}" y="{down + 4}" text-anchor="end">{y:g}</text>'
        )
    for x, anchor in ((0.0, "start"), (last, "end")):
        across, _ = place(x, 0)
        drawn.append(f'<text x="{across}" y="{height - 7}" text-anchor="{anchor}">{x:g}</text>')
    middle = (width + _LEFT - _RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{height - 7}" text-anchor="middle">epoch</text>')
    for number, line in enumerate(lines):
        spots = [place(x, min(y, _HIGHEST)) for x, y in line.points]
        path = " L ".join(f"{across} {down}" for across, down in spots)
        drawn.append(f'<path class="s{number}" d="M {path}"/>' if spots else "")
        if len(spots) == 1:  # which a path does not show
            ((across, down),) = spots
            drawn.append(f'<circle class="s{number}" cx="{across}" cy="{down}" r="2.5"/>')
    label = escaped(f"{title}: {', '.join(line.title for line in lines)} by epoch")
    return (
        f'<figure class="card"><h3>{escaped(title)}</h3>\n<svg viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{label}">{"".join(drawn)}</svg>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>\n"
    )


def embedded_picture(path: Path, alt: str, *, caption: str = "") -> str:
    """Return a picture as part of the page; a wide one scrolls.

    Args:
        path: a file that Pillow reads.
        alt: what it shows.
        caption: below it.

    Raises:
        OSError: the file can't be read.
    """
    from PIL import Image

    with Image.open(path) as image:
        picture = image.convert("RGB")
    aspect = picture.width / picture.height
    limit = max(_PICTURE_WIDTH, round(_PICTURE_HEIGHT * aspect))
    if picture.width > limit:
        picture = picture.resize((limit, round(limit / aspect)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<figure><div class="scroll" tabindex="0"><img alt="{escaped(alt)}" '
        f'style="min-width: {25 * aspect:.0f}rem" '
        f'src="data:image/png;base64,{content}"></div>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )
