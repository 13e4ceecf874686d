"""A matrix that a reader can walk through: by mouse, by finger, or with the arrow keys.

`grid` is one piece of HTML, a table of buttons, that asks nobody for anything: no script file, no identifier, no
network; without scripts it is still a table of numbers. `live` is the same with two lists to choose from, where a
kernel runs.
"""

import html
from dataclasses import dataclass

from metarobust.book.figures.matrix import Cell, Matrix
from metarobust.errors import InputError

# What runs on a click, under the mouse and on a key: mark the cell, move the keyboard's place there, say it in words.
SCRIPT = """
const box = event.currentTarget, rows = [...box.querySelectorAll('tr')].slice(1).map(r => [...r.querySelectorAll('button')]);
let now = event.target.closest('button');
if (!now) return;
if (event.type === 'keydown') {
  const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  if (!move) return;
  event.preventDefault();
  const i = rows.findIndex(r => r.includes(now)), there = rows[i + move[0]];
  now = there && there[rows[i].indexOf(now) + move[1]];
  if (!now) return;
  now.focus();
}
rows.flat().forEach(one => {
  one.tabIndex = one === now ? 0 : -1;
  one.setAttribute('aria-pressed', one === now);
  one.style.outline = one === now ? '3px solid #D55E00' : 'none';
});
box.querySelector('output').textContent = now.dataset.words;
"""  # noqa: E501


@dataclass(frozen=True)
class Grid:
    """A matrix behind buttons. Jupyter shows it as HTML. label: said before anything else to who cannot see it."""

    matrix: Matrix
    label: str

    def _repr_html_(self) -> str:
        matrix, label, script = self.matrix, html.escape(self.label), html.escape(SCRIPT.strip())
        plain = "border:0;background:none;padding:2px;font-size:.8em;line-height:1.2"
        heads = "".join(
            f'<th scope="col" style="{plain};text-align:center;vertical-align:bottom">{_breakable(column)}</th>'
            for column in matrix.columns
        )
        said, lines = html.escape(matrix.cells[0][0].words), []
        for i, (row, cells) in enumerate(zip(matrix.rows, matrix.cells, strict=True)):
            weight = "bold" if i < matrix.gap else "normal"
            space = "1em" if 0 < i == matrix.gap else "2px"
            style = f"{plain};padding-top:{space};text-align:right;font-weight:{weight}"
            buttons = "".join(
                f'<td style="border:0;background:none;padding:{space} 1px 1px">'
                f"{_button(cell, first=not (i or j), framed=(i, j) in matrix.home)}</td>"
                for j, cell in enumerate(cells)
            )
            lines.append(
                f'<tr style="background:none"><th scope="row" style="{style}">{html.escape(row)}</th>{buttons}</tr>'
            )
        return (
            f'<div data-matrix role="group" aria-label="{label}" onclick="{script}" onmouseover="{script}" '
            f'onkeydown="{script}" style="max-width:44em;overflow-x:auto">\n'
            f'<table style="border-collapse:separate;border-spacing:0;border:0"><caption '
            f'style="caption-side:top;text-align:left;color:inherit">{label}</caption>\n'
            f'<tr style="background:none"><td style="border:0;background:none"></td>{heads}</tr>\n'
            + "\n".join(lines)
            + f'\n</table>\n<output style="display:block;margin-top:.5em;min-height:4.5em">{said}</output>\n</div>'
        )  # fmt: skip


def _button(cell: Cell, first: bool, framed: bool) -> str:
    ground, ink = cell.colours
    look = (
        f"background:{ground};color:{ink};border:1px solid #D0D0D0;"
        f"box-shadow:{'inset 0 0 0 2px #1A1A1A' if framed else 'none'};"  # inside, to be seen on a dark page
        f"outline:{'3px solid #D55E00' if first else 'none'};outline-offset:-2px;border-radius:4px;width:100%;"
        "min-width:2.7em;padding:3px 1px;font:inherit;font-size:.85em;line-height:1.15;cursor:pointer"
    )
    small = (
        f'<br><small style="font-size:.75em;white-space:nowrap">{html.escape(cell.small)}</small>' if cell.small else ""
    )
    return (
        f'<button type="button" tabindex="{0 if first else -1}" aria-pressed="{str(first).lower()}" '
        f'data-words="{html.escape(cell.words)}" style="{look}"><b>{html.escape(cell.big)}</b>{small}</button>'
    )  # fmt: skip


def _breakable(name: str) -> str:
    """A name that may break after its hyphens, so that columns are narrow on a phone."""
    return html.escape(name).replace("-", "-<wbr>")


def grid(matrix: Matrix, label: str) -> Grid:
    """The matrix as a table of buttons. Raises InputError for a matrix without cells."""
    if not matrix.cells or not matrix.cells[0]:
        raise InputError("a matrix without cells cannot be shown: give at least one row and one column")
    return Grid(matrix, label)


def live(matrix: Matrix):
    """An ipywidgets box with a list of rows and one of columns: for Jupyter and Colab, where a kernel runs."""
    try:
        import ipywidgets
    except ImportError as error:
        raise InputError("a live matrix needs ipywidgets: install it, or use `grid`") from error
    row = ipywidgets.Dropdown(options=matrix.rows, description="learned")
    column = ipywidgets.Dropdown(options=matrix.columns, description="used on")
    words = ipywidgets.HTML()

    def say(_=None) -> None:
        words.value = html.escape(matrix.at(row.value, column.value).words)

    for chosen in (row, column):
        chosen.observe(say, names="value")
    say()
    return ipywidgets.VBox([row, column, words])
