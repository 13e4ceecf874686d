"""The two-by-two as a picture: what the steps of the inner loop look at, and what the judge at its end looks at.

two_by_two(image, attacked, {(inside, outside): ("first line", "second line"), ...})
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from metarobust.book.figures.style import role, style
from metarobust.errors import InputError

Corner = tuple[str, str]
SIDES = ("clean", "attacked")
CORNERS: tuple[Corner, ...] = tuple((inside, outside) for inside in SIDES for outside in SIDES)
"""Inside and outside, row by row."""
NAMES: Mapping[Corner, str] = {
    ("clean", "clean"): "learn to learn",
    ("clean", "attacked"): "transfer mode",
    ("attacked", "clean"): "nobody asked",
    ("attacked", "attacked"): "robust mode",
}
ROLES = {"clean": "clean", "attacked": "robust"}


def two_by_two(image: Tensor, attacked: Tensor, told: Mapping[Corner, Sequence[str]]) -> Figure:
    """A panel for each corner: three weights in a row, the images that the steps use, the image that the judge sees.

    image, attacked: the same image `[1, H, W]` in [0, 1], as it is and under attack. told: for each corner, `(inside,
    outside)` out of `clean` and `attacked`, lines of text to stand under it. Raises InputError where a corner has none.
    """
    missing = [corner for corner in CORNERS if corner not in told]
    if missing:
        raise InputError(f"no text for the corner {missing[0]}: give lines for each of {', '.join(map(str, CORNERS))}")
    pictures = {"clean": image, "attacked": attacked}
    with style():
        figure, grid = plt.subplots(2, 2, figsize=(5.4, 5.0))
        for axes, corner in zip(grid.flat, CORNERS, strict=True):
            _panel(axes, corner, pictures, told[corner])
        for column, outside in enumerate(SIDES):
            where = {"transform": grid[0, column].transAxes, "ha": "center", "va": "bottom", "fontweight": "bold"}
            grid[0, column].text(0.5, 1.04, f"judge: {outside}", color=role(ROLES[outside]).ink, **where)
        for line, inside in enumerate(SIDES):
            where = {"transform": grid[line, 0].transAxes, "ha": "right", "va": "center", "rotation": 90}
            colour = role(ROLES[inside]).ink
            grid[line, 0].text(-0.03, 0.5, f"steps: {inside}", color=colour, fontweight="bold", **where)
    return figure


def _panel(axes: Axes, corner: Corner, pictures: Mapping[str, Tensor], told: Sequence[str]) -> None:
    inside, outside = corner
    steps, judge = role(ROLES[inside]), role(ROLES[outside])
    axes.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[], aspect="equal")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#B0B0B0")
    axes.text(0.4, 9.3, NAMES[corner], va="center", fontsize=10.5)
    for x, name in ((1.0, "$w_0$"), (3.4, "$w_1$"), (5.8, "$w_2$")):
        axes.add_patch(Circle((x, 7.3), 0.75, fc="white", ec=role("learned").colour, lw=1.8))
        axes.text(x, 7.25, name, ha="center", va="center", fontsize=9.5)
    for start in (1.75, 4.15):
        _arrow(axes, (start, 7.3), (start + 0.9, 7.3), role("learned").colour)
        _picture(axes, pictures[inside], (start + 0.45, 4.7), 0.95, ROLES[inside])
        _arrow(axes, (start + 0.45, 5.75), (start + 0.45, 7.1), steps.colour)
    _arrow(axes, (6.55, 7.3), (7.35, 7.3), judge.colour)
    _picture(axes, pictures[outside], (8.5, 7.3), 1.1, ROLES[outside])
    axes.text(8.5, 5.75, "judge", ha="center", va="center", fontsize=9.5, color=judge.ink)
    for i, text in enumerate(told):
        axes.text(0.4, 2.7 - 1.15 * i, text, va="center", fontsize=9.5)


def _picture(axes: Axes, image: Tensor, centre: tuple[float, float], half: float, name: str) -> None:
    """An image with a frame in a role's colour, solid where it is clean and dashed where it is attacked."""
    x, y = centre
    box = (x - half, x + half, y - half, y + half)
    axes.imshow(image[0].detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, extent=box, zorder=2)
    dashes = "-" if name == "clean" else (0, (2, 1))
    size = 2 * half
    edge = {"fill": False, "ec": role(name).colour, "lw": 2.2, "ls": dashes, "zorder": 3}
    axes.add_patch(Rectangle((x - half, y - half), size, size, **edge))
    axes.set(xlim=(0, 10), ylim=(0, 10))  # an image would set its own


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.5, "color": colour})
