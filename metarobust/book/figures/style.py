"""One look for every figure: a colour, a line and a marker have the same meaning on every page.

    with style():
        figure, axes = plt.subplots(figsize=(5, 3.2))
        axes.plot(eps, accuracy, **line("robust"))

Figures are drawn on white, and pages show them on a white card in the dark: inverted colours would change what an image
shows. A figure is at most 6 inches wide, so that its text is still readable on a phone of 390 pixels.

Source of the colours: Okabe and Ito 2008, "Color Universal Design"; the tests simulate colour-vision deficiency as
Machado, Oliveira and Fernandes 2009 do, and check every pair.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isinf
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyArrowPatch

from metarobust.errors import InputError, choose


@dataclass(frozen=True)
class Role:
    """How a thing is drawn wherever it appears. Line and marker say the same as the colour, for print and for eyes."""

    colour: str
    line: Any  # a matplotlib line style
    marker: str
    meaning: str

    @property
    def ink(self) -> str:
        """The colour for text: darker, since thin strokes need more contrast than a line or a bar."""
        return "#" + "".join(f"{int(0.75 * int(self.colour[i : i + 2], 16)):02X}" for i in (1, 3, 5))

    @property
    def hollow(self) -> str:
        """The marker where some are hollow, which a cross cannot be."""
        return "o" if self.marker == "x" else self.marker


ROLES = {
    "clean": Role("#0072B2", "-", "o", "images as they are; training on nothing else"),
    "robust": Role("#D55E00", "-", "s", "images under attack, the strongest one in the figure"),
    "learned": Role("#009E73", "-", "D", "the learned optimizer"),
    "reference": Role("#1A1A1A", "--", "^", "adversarial training, the upper reference"),
    "rule": Role("#CC79A7", "-.", "v", "a rule written by hand, the fair rival of the learned one"),
    "weaker": Role("#D55E00", (0, (4, 1.5)), "^", "images under a weaker attack"),
    "control": Role("#666666", ":", "x", "a control: random noise, or the model before anything was done"),
}
"""What is drawn how. `weaker` shares robust's colour on purpose: the line and the marker tell them apart."""

PERTURBATION = LinearSegmentedColormap.from_list("change", ["#6A3FA0", "#FFFFFF", "#E08A00"])
"""What was added to a pixel: purple is darker, white unchanged, orange brighter; safe for all colour vision."""
THIN = {"color": "#B0B0B0", "lw": 1}
"""A line that only marks a place."""

RC = {
    "figure.figsize": (5, 3.2),
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E2E2E2",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "axes.prop_cycle": plt.cycler(color=[ROLES[n].colour for n in ("clean", "robust", "learned", "reference", "rule")]),
}


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside have the book's look; what is set outside stays as it is."""
    with plt.rc_context(RC):
        yield


def role(name: str) -> Role:
    """Raises InputError for a name that is not in ROLES."""
    return ROLES[choose(name, ROLES, "role in a figure")]


def line(name: str) -> dict[str, Any]:
    """Keywords for `plot`: the colour, line and marker of a role. Raises InputError for an unknown one."""
    return {"color": role(name).colour, "linestyle": role(name).line, "marker": role(name).marker}


def as_percent(share: float, _: Any = None) -> str:
    """A share in per cent, as a formatter of an axis wants it."""
    return f"{100 * share:.0f} %"


def percent(axes: Axes, which: str = "y") -> None:
    """Shares in [0, 1] on an axis, shown as 0 % to 100 %, with a little room at both ends."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_ylim if which == "y" else axes.set_xlim)(-0.03, 1.05)
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
    axis.set_major_formatter(as_percent)


def ticks(axes: Axes, which: str, places: Iterable[float], labels: Iterable[str] | None = None) -> None:
    """Ticks at these places alone, written as plain numbers unless labels are given."""
    places = list(places)
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(places, [f"{t:g}" for t in places] if labels is None else list(labels))
    axes.minorticks_off()


def rows_of(axes: Axes, labels: Sequence[str], **text: Any) -> None:
    """A vertical axis of named lines, without ticks or a grid."""
    axes.set_yticks(range(len(labels)), labels, **text)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def beside(axes: Axes, x: float, y: float, text: str, name: str, **more: Any) -> None:
    """A direct label in a role's colour, right of the point (x, y): better than a legend that the eye must search."""
    shift = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (x, y), color=role(name).ink, **(shift | more))


def name_ends(axes: Axes, x: float, ends: Iterable[tuple[float, str, str]], gap: float = 0.08, **text: Any) -> None:
    """A label right of each line's end, pushed apart where lines end close together; call it when the limits are set.

    ends: (height, label, role) of each. gap: between two labels, in heights of the axes.
    """
    ordered = sorted(ends)
    to_axes = axes.transData + axes.transAxes.inverted()
    blocks: list[tuple[float, int]] = []  # middle and number of labels that stand together
    for height, _, _ in ordered:
        middle, count = to_axes.transform((x, height))[1], 1
        while blocks and middle - blocks[-1][0] < gap * (blocks[-1][1] + count) / 2:
            below, more = blocks.pop()
            middle, count = (middle * count + below * more) / (count + more), count + more
        blocks.append((min(middle, 1 - gap * (count - 1) / 2), count))
    heights = [middle + gap * (i - (count - 1) / 2) for middle, count in blocks for i in range(count)]
    for height, (_, label, name) in zip(heights, ordered, strict=True):
        beside(axes, x, float(to_axes.inverted().transform((1, height))[1]), label, name, **text)


def label_column(axes: Axes, ends: Iterable[tuple[str, float, float, str]], at: float = 1.05, bold: str = "") -> None:
    """Names in a column right of the axes, in the order of the heights, each with a thin line to its point.

    Args:
        axes: Whose points are named.
        ends: (name, x, y, role) of each.
        at: Where the column is, in widths of the axes.
        bold: The role whose names are bold.
    """
    ordered = sorted(ends, key=lambda end: end[2])
    for i, (text, x, y, name) in enumerate(ordered):
        thread = {"arrowstyle": "-", "lw": 0.5, "color": role(name).colour, "relpos": (0, 0.5)}
        look = {"fontsize": 9.5, "color": role(name).ink, "fontweight": "bold" if name == bold else "normal"}
        place = {"xytext": (at, (i + 0.5) / len(ordered)), "textcoords": "axes fraction", "va": "center"}
        axes.annotate(text, (x, y), arrowprops=thread, **place, **look)


def node(axes: Axes, x: float, y: float, text: str, name: str, size: float = 11) -> None:
    """A part of a graph: a word in a circle, in the colour of a role."""
    ball = {"boxstyle": "circle,pad=0.3", "fc": "white", "ec": role(name).colour, "lw": 1.6}
    axes.text(x, y, text, ha="center", va="center", color=role(name).ink, fontsize=size, bbox=ball, zorder=3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, dashed: bool = False) -> None:
    """From one node to another."""
    look = {"color": colour, "linestyle": (0, (3, 2)) if dashed else "-", "lw": 1.3}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, shrinkA=12, shrinkB=12, **look))


def finite(half: float) -> float:
    """Half of an interval, or 0 where a single seed gives none."""
    return 0.0 if isinf(half) else half


def points(change: float, half: float = float("inf")) -> str:
    """A change in points with its interval, `+21.3 ± 2.0`, and a minus that is as wide as the plus."""
    spread = "" if isinf(half) else f" ± {100 * half:.1f}"
    return f"{100 * change:+.1f}{spread}".replace("-", "−")


def same_length(xs: Sequence[float], curves: Iterable[tuple[str, Sequence[float]]]) -> None:
    """Raises InputError for a curve of another length than its places."""
    for label, values in curves:
        if len(values) != len(xs):
            raise InputError(f"curve {label!r} has {len(values)} values for {len(xs)} places; give one for each")
