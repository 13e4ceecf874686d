"""Figures of the two-by-two: its corners as pictures, and variants of the learned optimizer against it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from metarobust.book.figures.matrix import CHANGE
from metarobust.book.figures.results import by_method
from metarobust.book.figures.style import finite, points, role, rows_of, style
from metarobust.errors import InputError, choose
from metarobust.lab.results import LEARNED, interval, select

Corner = tuple[str, str]
SIDES = ("clean", "attacked")
CORNERS: tuple[Corner, ...] = tuple((inside, outside) for inside in SIDES for outside in SIDES)
"""Inside and outside, row by row."""
NAMES = dict(zip(CORNERS, ("learning to learn", "transfer mode", "control", "robust mode"), strict=True))
ROLES = {"clean": "clean", "attacked": "robust"}


def two_by_two(image: Tensor, attacked: Tensor, texts: Mapping[Corner, Sequence[str]]) -> Figure:
    """A panel for each corner: weights in a row, the images of the steps, the image that the meta-loss is measured on.

    Args:
        image: An image `[1, H, W]` in [0, 1].
        attacked: The same under attack.
        texts: For each corner, `(inside, outside)` out of `clean` and `attacked`, lines of text to stand under it.

    Raises:
        InputError: a corner has no text.
    """
    missing = [corner for corner in CORNERS if corner not in texts]
    if missing:
        raise InputError(f"no text for the corner {missing[0]}: give lines for each of {', '.join(map(str, CORNERS))}")
    pictures = {"clean": image, "attacked": attacked}
    with style():
        figure, grid = plt.subplots(2, 2, figsize=(5.4, 5.0))
        for axes, corner in zip(grid.flat, CORNERS, strict=True):
            _panel(axes, corner, pictures, texts[corner])
        for i, side in enumerate(SIDES):
            text = {"color": role(ROLES[side]).ink, "fontweight": "bold"}
            above, beside = {"ha": "center", "va": "bottom"}, {"ha": "right", "va": "center", "rotation": 90}
            grid[0, i].text(0.5, 1.04, f"meta-loss: {side}", transform=grid[0, i].transAxes, **above, **text)
            grid[i, 0].text(-0.03, 0.5, f"steps: {side}", transform=grid[i, 0].transAxes, **beside, **text)
    return figure


def _panel(axes: Axes, corner: Corner, pictures: Mapping[str, Tensor], lines: Sequence[str]) -> None:
    inside, outside = corner
    steps, outer, learned = role(ROLES[inside]), role(ROLES[outside]), role("learned").colour
    axes.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[], aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set(visible=True, color="#B0B0B0")
    axes.text(0.4, 9.3, NAMES[corner], va="center", fontsize=10.5)
    for x, name in ((1.0, "$w_0$"), (3.4, "$w_1$"), (5.8, "$w_2$")):
        axes.add_patch(Circle((x, 7.3), 0.75, fc="white", ec=learned, lw=1.8))
        axes.text(x, 7.25, name, ha="center", va="center", fontsize=9.5)
    for start in (1.75, 4.15):
        _arrow(axes, (start, 7.3), (start + 0.9, 7.3), learned)
        _picture(axes, pictures[inside], (start + 0.45, 4.7), 0.95, ROLES[inside])
        _arrow(axes, (start + 0.45, 5.75), (start + 0.45, 7.1), steps.colour)
    _arrow(axes, (6.55, 7.3), (7.35, 7.3), outer.colour)
    _picture(axes, pictures[outside], (8.5, 7.3), 1.1, ROLES[outside])
    axes.text(8.5, 5.75, "meta-loss", ha="center", va="center", fontsize=9, color=outer.ink)
    for i, text in enumerate(lines):
        axes.text(0.4, 2.9 - 1.1 * i, text, va="center", fontsize=9.5)


def _picture(axes: Axes, image: Tensor, centre: tuple[float, float], half: float, name: str) -> None:
    """An image with a frame in a role's colour, solid where it is clean and dashed where it is attacked."""
    (x, y), dashes = centre, "-" if name == "clean" else (0, (2, 1))
    box = (x - half, x + half, y - half, y + half)
    axes.imshow(image[0].detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, extent=box, zorder=2)
    edge = {"fill": False, "ec": role(name).colour, "lw": 2.2, "ls": dashes, "zorder": 3}
    axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, **edge))
    axes.set(xlim=(0, 10), ylim=(0, 10))  # an image would set its own


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.5, "color": colour})


@dataclass(frozen=True)
class Difference:
    """A variant minus the learned optimizer, paired over seeds, as shares. halves: of the 95 % intervals over seeds.

    by_meta_seed: the robust difference of each meta-seed alone, a mean over seeds.
    """

    robust: float
    robust_half: float
    clean: float
    clean_half: float
    by_meta_seed: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the robust difference stands out: its interval leaves out 0, and all meta-seeds agree on the side."""
        one_side = len({value > 0 for value in self.by_meta_seed}) == 1
        return one_side and abs(self.robust) > self.robust_half


def differences(
    frame: pd.DataFrame, part: str = "patch", models: Sequence[str] = (), base: str = LEARNED
) -> dict[str, Difference]:
    """Every variant of the learned optimizer against the learned optimizer itself, in the order of the table.

    Args:
        frame: Rows of results.
        part: The part.
        models: Networks, of which a seed's value is the mean; all if none is named.
        base: The learned optimizer; a variant is called by its name, a comma and what differs.

    Returns:
        Names without the words that all variants have, to differences.
    """
    rows = select(select(frame, part=part), model=list(models) or None)
    rows = rows[rows["learned"] == 1]
    robust, clean = by_method(rows), by_method(rows, "clean")
    by_meta_seed = [by_method(mine) for _, mine in rows.groupby("meta_seed")]

    def minus_base(table: pd.DataFrame, method: str) -> pd.Series:
        return (table.loc[method] - table.loc[base]).dropna()

    found = {}
    for method in robust.index.drop(base):
        halves = [*interval(minus_base(robust, method)), *interval(minus_base(clean, method))]
        alone = (minus_base(table, method) for table in by_meta_seed if {method, base} <= set(table.index))
        found[method.removeprefix(f"{base}, ")] = Difference(*halves, tuple(one.mean() for one in alone))
    return found


def variants(frame: pd.DataFrame, groups: Mapping[str, Sequence[str]], **which: Any) -> Figure:
    """How far each variant is from the learned optimizer, in points: a line each, under the heading of its group.

    A filled diamond is the difference under attack with its 95 % interval over seeds: green where it is clearly better,
    purple where clearly worse, grey where neither. The small ticks under it are the single meta-seeds; the hollow
    circle is the difference on clean images. groups: heading to names of variants, as in `differences`, which gets the
    other arguments.
    """
    lines = list(_in_groups(differences(frame, **which), groups))
    with style():
        figure, axes = plt.subplots(figsize=(5.4, 0.285 * len(lines) + 0.9))
        axes.axvline(0, color=role("control").colour, lw=1.2)
        for y, (_, one) in enumerate(lines):
            if one is not None:
                _variant(axes, y, one)
        axes.set(ylim=(len(lines) - 0.4, -0.7), xlabel="points against the learned optimizer")
        rows_of(axes, [text for text, _ in lines], fontsize=10)
        for tick, (_, one) in zip(axes.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if one is None else "normal")
    return figure


def _in_groups(
    found: Mapping[str, Difference], groups: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Difference | None]]:
    for heading, members in groups.items():
        yield heading, None
        for name in members:
            yield name, found[choose(name, found, "variant")]


def _variant(axes: Axes, y: int, one: Difference) -> None:
    colour = CHANGE(1.0 if one.robust > 0 else 0.0) if one.clear else role("control").colour
    clean = {"color": role("clean").colour, "marker": "o", "mfc": "white", "ms": 5, "lw": 0, "elinewidth": 1}
    axes.errorbar(100 * one.clean, y - 0.18, xerr=100 * finite(one.clean_half), zorder=2, **clean)
    robust = {"color": colour, "marker": "D", "ms": 6.5, "lw": 0, "elinewidth": 2, "capsize": 2.5}
    axes.errorbar(100 * one.robust, y + 0.12, xerr=100 * finite(one.robust_half), zorder=3, **robust)
    ticks = [100 * value for value in one.by_meta_seed]
    axes.plot(ticks, [y + 0.36] * len(ticks), lw=0, marker="|", ms=5, mew=1.2, color=colour)


def verdicts(frame: pd.DataFrame, groups: Mapping[str, Sequence[str]], **which: Any) -> str:
    """What the figure of variants shows, in words, as a Markdown list under each heading."""
    lines = []
    for name, one in _in_groups(differences(frame, **which), groups):
        if one is None:
            lines += ["", f"**{name}**", ""]
            continue
        verdict = ("better" if one.robust > 0 else "worse") if one.clear else "within the noise"
        robust, clean = points(one.robust, one.robust_half), points(one.clean, one.clean_half)
        lines.append(f"- {name}: {robust} points under attack, {clean} on clean images; **{verdict}** under attack")
    return "\n".join(lines).strip()
