"""A matrix of transfer as a table of buttons: `Grid(matrix, "Change ...")`, for mouse, finger and keyboard."""

import html
from dataclasses import dataclass

from metarobust.book.figures.matrix import Cell, Matrix

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
PLAIN = "border:0;background:none;padding:2px;font-size:.8em;line-height:1.2"


@dataclass(frozen=True)
class Grid:
    """A matrix as a table of buttons, for mouse, finger and arrow keys. Jupyter shows it as HTML.

    It asks nobody for anything: no script file, no identifier, no network; without scripts it is a table of numbers.
    label: said before anything else to who cannot see it.
    """

    matrix: Matrix
    label: str

    def _repr_html_(self) -> str:
        matrix, label, script = self.matrix, html.escape(self.label), html.escape(SCRIPT.strip())
        look = f"{PLAIN};text-align:center;vertical-align:bottom"
        # A name may break after its hyphens, so that columns are narrow on a phone.
        names = [html.escape(column).replace("-", "-<wbr>") for column in matrix.columns]
        heads = "".join(f'<th scope="col" style="{look}">{name}</th>' for name in names)
        lines = []
        for i, (row, cells) in enumerate(zip(matrix.rows, matrix.cells, strict=True)):
            weight, space = "bold" if i < matrix.gap else "normal", "1em" if 0 < i == matrix.gap else "2px"
            look = f"border:0;background:none;padding:{space} 1px 1px"
            buttons = [_button(cell, not (i or j), (i, j) in matrix.home) for j, cell in enumerate(cells)]
            head = f'<th scope="row" style="{PLAIN};padding-top:{space};text-align:right;font-weight:{weight}">'
            body = "".join(f'<td style="{look}">{button}</td>' for button in buttons)
            lines.append(f'<tr style="background:none">{head}{html.escape(row)}</th>{body}</tr>')
        words = html.escape(matrix.cells[0][0].words)
        return (
            f'<div data-matrix role="group" aria-label="{label}" onclick="{script}" onmouseover="{script}" '
            f'onkeydown="{script}" style="max-width:44em;overflow-x:auto">\n'
            f'<table style="border-collapse:separate;border-spacing:0;border:0"><caption '
            f'style="caption-side:top;text-align:left;color:inherit">{label}</caption>\n'
            f'<tr style="background:none"><td style="border:0;background:none"></td>{heads}</tr>\n'
            + "\n".join(lines)
            + f'\n</table>\n<output style="display:block;margin-top:.5em;min-height:4.5em">{words}</output>\n</div>'
        )  # fmt: skip


def _button(cell: Cell, first: bool, framed: bool) -> str:
    ground, ink = cell.colours
    look = (
        f"background:{ground};color:{ink};border:1px solid #D0D0D0;"
        f"box-shadow:{'inset 0 0 0 2px #1A1A1A' if framed else 'none'};"  # inside, to be seen on a dark page
        f"outline:{'3px solid #D55E00' if first else 'none'};outline-offset:-2px;border-radius:4px;width:100%;"
        "min-width:2.7em;padding:3px 1px;font:inherit;font-size:.85em;line-height:1.15;cursor:pointer"
    )
    small = f'<br><small style="font-size:.75em;white-space:nowrap">{html.escape(cell.small)}</small>'
    return (
        f'<button type="button" tabindex="{0 if first else -1}" aria-pressed="{str(first).lower()}" '
        f'data-words="{html.escape(cell.words)}" style="{look}"><b>{html.escape(cell.big)}</b>'
        f"{small if cell.small else ''}</button>"
    )
