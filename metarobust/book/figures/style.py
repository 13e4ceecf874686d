"""One look for every figure: a colour, a line and a marker have the same meaning on every page.

    from metarobust.book.figures.style import line, style

    with style():
        figure, axes = plt.subplots(figsize=(5, 3.2))
        axes.plot(eps, accuracy, **line("robust"))

Figures are drawn on white, and pages show them on a white card in the dark: inverted colours would change what an image
shows. A figure is at most 6 inches wide, so that its text is still readable on a phone of 390 pixels.

Source of the colours: Okabe and Ito 2008, "Color Universal Design"; the tests simulate colour-vision deficiency as
Machado, Oliveira and Fernandes 2009 do, and check every pair.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from metarobust.errors import choose


@dataclass(frozen=True)
class Role:
    """How a thing is drawn wherever it appears. Line and marker say the same as the colour, for print and for eyes."""

    colour: str
    line: Any  # a matplotlib line style
    marker: str
    hatch: str
    meaning: str

    @property
    def ink(self) -> str:
        """The colour for text: darker, since thin strokes need more contrast than a line or a bar."""
        return "#" + "".join(f"{int(0.75 * int(self.colour[i : i + 2], 16)):02X}" for i in (1, 3, 5))


ROLES = {
    "clean": Role("#0072B2", "-", "o", "", "images as they are; training on nothing else"),
    "robust": Role("#D55E00", "-", "s", "//", "images under attack, the strongest one in the figure"),
    "learned": Role("#009E73", "-", "D", "", "the learned optimizer"),
    "reference": Role("#1A1A1A", "--", "^", "xx", "adversarial training, the upper reference"),
    "rule": Role("#CC79A7", "-.", "v", "..", "a rule written by hand, the fair rival of the learned one"),
    "weaker": Role("#D55E00", (0, (4, 1.5)), "^", "\\\\", "images under a weaker attack"),
    "control": Role("#666666", ":", "x", "--", "a control: random noise, or the model before anything was done"),
}
"""What is drawn how. `weaker` shares robust's colour on purpose: the line and the marker tell them apart."""

PERTURBATION = LinearSegmentedColormap.from_list("change", ["#6A3FA0", "#FFFFFF", "#E08A00"])
"""What was added to a pixel: purple is darker, white unchanged, orange brighter; safe for all colour vision."""

IMAGE = "gray"

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
    "hatch.linewidth": 0.6,
    "image.cmap": IMAGE,
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
    found = role(name)
    return {"color": found.colour, "linestyle": found.line, "marker": found.marker}


def bar(name: str) -> dict[str, Any]:
    """Keywords for `bar` and `barh`: the colour and hatch of a role. Raises InputError for an unknown one."""
    found = role(name)
    return {"color": found.colour, "hatch": found.hatch, "edgecolor": "white"}


def percent(axes: Axes, which: str = "y") -> None:
    """Shares in [0, 1] on an axis, shown as 0 % to 100 %, with a little room at both ends."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_ylim if which == "y" else axes.set_xlim)(-0.03, 1.05)
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
    axis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")


def beside(axes: Axes, x: float, y: float, text: str, name: str, **more: Any) -> None:
    """A direct label in a role's colour, right of the point (x, y): better than a legend that the eye must search."""
    shift = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (x, y), color=role(name).ink, **(shift | more))
