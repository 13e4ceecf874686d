"""Methods over steps, or over the number of images a class, and the gap between training images and others."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from metarobust.book.figures.comparisons import KINDS, Row, by_seed, paired, points, wanted
from metarobust.book.figures.results import LABELS
from metarobust.book.figures.style import beside, percent, role, style
from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import ADAM, BEFORE, LEARNED, names

ENDING = " images a class"
SHOWN = {"robust accuracy": "under attack", "clean accuracy": "as they are"}
MORE_LINES = ("-", (0, (1, 1.2)), (0, (4, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles for the second, third and fourth method of a role."""


def numbers(rows: Sequence[Row]) -> dict[int, str]:
    """Images a class to the name of the part that has so many, the fewest first.

    Raises InputError where no part is named after a number of images.
    """
    there = [part for part in names(rows, "part") if part.removesuffix(ENDING).isdigit()]
    if not there:
        raise InputError(f"no part of these results is named like '10{ENDING}': give those of low-data")
    return dict(sorted((int(part.removesuffix(ENDING)), part) for part in there))


def role_of(method: str) -> str:
    """How a method is drawn; where all are given attacked images, a plain FGSM step is the fair rival."""
    if method.startswith(LEARNED):
        return "learned"
    fixed = {BEFORE: "control", ADAM: "clean", "sgd": "clean"}
    reference = method.startswith(("PGD-7", "TRADES"))
    return fixed.get(method, "reference" if reference else "rule")


def label(method: str) -> str:
    return LABELS.get(method, method).replace("adam", "Adam")


def learning_curves(rows: Sequence[Row], part: str, model: str, methods: Sequence[str]) -> Figure:
    """Accuracy after each number of steps that was measured, under attack (above) and on images as they are (below).

    Whiskers are 95 % intervals over seeds. Raises InputError where the part or a method is not in the rows.
    """
    choose(part, names(rows, "part"), "part of these results")

    def measured(method: str, kind: str) -> dict[float, tuple[float, float]]:
        start = [row for row in rows if row["method"] == BEFORE]
        mine = wanted(rows, part, method, kind, (model,))
        if start:
            mine = [*wanted(start, part, BEFORE, kind, (model,)), *mine]
        steps = sorted({row["step"] for row in mine})
        return {step: over_seeds(list(by_seed(mine, step).values())) for step in steps}

    return _two_panels(methods, measured, xlabel="steps", title=model)


def over_images(rows: Sequence[Row], model: str, methods: Sequence[str]) -> Figure:
    """Accuracy over the number of training images of each class, under attack (above) and as they are (below).

    Whiskers are 95 % intervals over seeds. Raises InputError where a method is not in the rows.
    """
    parts = numbers(rows)

    def measured(method: str, kind: str) -> dict[float, tuple[float, float]]:
        return {
            each: over_seeds(list(by_seed(wanted(rows, part, method, kind, (model,))).values()))
            for each, part in parts.items()
        }

    figure = _two_panels(methods, measured, xlabel="training images of each class", title=model)
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.set_xticks(list(parts), [str(each) for each in parts])
        axes.minorticks_off()
    return figure


def _two_panels(
    methods: Sequence[str],
    measured: Callable[[str, str], Mapping[float, tuple[float, float]]],
    *,
    xlabel: str,
    title: str,
) -> Figure:
    looks = _looks(methods)
    with style():
        figure, grid = plt.subplots(2, 1, figsize=(5.2, 5.2), sharex=True)
        for axes, kind in zip(grid, KINDS, strict=True):
            ends = {}
            for number, method in enumerate(methods):
                found = measured(method, kind)
                middle, halves = zip(*found.values(), strict=True)
                halves = [half if half < float("inf") else 0.0 for half in halves]
                # Beside each other, by three points of print each, so that whiskers can be told apart.
                aside = ScaledTranslation((number - (len(methods) - 1) / 2) * 3 / 72, 0, figure.dpi_scale_trans)
                place = axes.transData + aside
                axes.errorbar(list(found), middle, halves, elinewidth=0.8, transform=place, **looks[method])
                for sign in (-1, 1):  # what is drawn aside does not count for the limits
                    reach = [m + sign * half for m, half in zip(middle, halves, strict=True)]
                    axes.update_datalim(list(zip(found, reach, strict=True)))
                ends[method] = (max(found), middle[-1])
            axes.autoscale_view()
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(plt.MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
            _name_ends(axes, ends, 0.095 * (high - low))
            axes.set_title(f"{title}, {SHOWN[kind]}")
        grid[-1].set_xlabel(xlabel)
    return figure


def _looks(methods: Sequence[str]) -> dict[str, dict]:
    """Keywords for a line of each method: by its role; hollow, and with another line, where it shares its role."""
    looks: dict[str, dict] = {}
    seen = dict.fromkeys(map(role_of, methods), 0)
    for method in methods:
        how, again = role(role_of(method)), seen[role_of(method)]
        dashes, face = (MORE_LINES[again % 4], "white") if again else (how.line, how.colour)
        looks[method] = {"color": how.colour, "ls": dashes, "marker": how.marker, "mfc": face, "ms": 5}
        seen[role_of(method)] += 1
    return looks


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], apart: float) -> None:
    """A name right of each line, as near to its end as names that are `apart` allow, in the order of the ends."""
    ordered = sorted(ends, key=lambda method: ends[method][1])
    blocks: list[list[float]] = []  # middle and number of names that stand together
    for method in ordered:
        blocks.append([ends[method][1], 1])
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < apart * (blocks[-1][1] + blocks[-2][1]) / 2:
            (low, some), (high, more) = blocks[-2:]
            blocks[-2:] = [[(low * some + high * more) / (some + more), some + more]]
    heights = [middle + apart * (i - (count - 1) / 2) for middle, count in blocks for i in range(int(count))]
    for method, height in zip(ordered, heights, strict=True):
        where = {"xytext": (14, 0), "fontsize": 10}
        beside(axes, ends[method][0], height, label(method), role_of(method), **where)


def own_and_others(steps: Sequence[int], own: Sequence[float], others: Sequence[float], *, title: str) -> Figure:
    """Accuracy of a training run over its steps: on the images that it trains on (hollow) and on others (filled).

    own, others: shares in [0, 1], one for each of the steps.
    """
    how = role("reference")
    with style():
        figure, axes = plt.subplots(figsize=(5.4, 3.2))
        for shares, face, dashes, name in ((own, "white", "--", "training images"), (others, how.colour, "-", "test")):
            axes.plot(steps, shares, color=how.colour, ls=dashes, marker=how.marker, mfc=face)
            beside(axes, steps[-1], shares[-1], name, "reference")
        percent(axes)
        axes.set(xlabel="steps of training", ylabel="images read correctly", title=title)
    return figure


def gap(rows: Sequence[Row], model: str, methods: Sequence[str]) -> Figure:
    """Robust accuracy on the images that a model was trained on (hollow) and on others (filled): a panel a method.

    Between them lies what is lost from the one to the other: overfitting. Lines are numbers of images a class.
    Raises InputError where a method was not measured on its training images.
    """
    parts = numbers(rows)
    with style():
        height = 0.22 * len(methods) * (len(parts) + 1.6) + 0.6
        figure, grid = plt.subplots(len(methods), 1, figsize=(4.6, height), sharex=True, squeeze=False)
        for axes, method in zip(grid[:, 0], methods, strict=True):
            how = role(role_of(method))
            marker = "o" if how.marker == "x" else how.marker
            for y, part in enumerate(parts.values()):
                sides = []
                for split, face in (("test", how.colour), ("train", "white")):
                    found = wanted(rows, part, method, KINDS[0], (model,), split)
                    mean, half = over_seeds(list(by_seed(found).values()))
                    width = half if half < float("inf") else 0.0
                    look = {"color": how.colour, "marker": marker, "mfc": face, "capsize": 2.5, "zorder": 3}
                    axes.errorbar(mean, y, xerr=width or None, **look)
                    sides.append((mean, width))
                (test, left), (train, right) = sides
                axes.plot([test, train], [y, y], color=how.colour, lw=1, alpha=0.5)
                small = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": how.ink}
                axes.annotate(f"{100 * test:.0f}", (test - left, y), xytext=(-7, 0), ha="right", **small)
                axes.annotate(f"{100 * train:.0f}", (train + right, y), xytext=(7, 0), ha="left", **small)
            percent(axes, "x")
            axes.set_xlim(-0.05, 1.12)
            axes.set(yticks=range(len(parts)), ylim=(len(parts) - 0.4, -0.6), title=label(method))
            axes.set_yticklabels([str(each) for each in parts])
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
        grid[-1, 0].set_xlabel("images read correctly under attack")
        figure.supylabel("training images of each class", fontsize=11)
    return figure


def best(rows: Sequence[Row], parts: Sequence[str], models: Sequence[str], among: Sequence[str]) -> str:
    """The method with the best mean of clean and robust accuracy over these parts and networks.

    Picked on the very results that it is shown in, so it flatters the one that is picked. Raises InputError where one
    of them is missing.
    """

    def score(method: str) -> float:
        found = [by_seed(wanted(rows, part, method, kind, models)) for part in parts for kind in KINDS]
        return sum(sum(values.values()) / len(values) for values in found)

    return max(among, key=score)


def against(rows: Sequence[Row], part: str, model: str, ours: str, rival: str) -> str:
    """`ours` minus `rival` in words, paired over seeds: points under attack, and as they are."""
    found = []
    for kind in KINDS:
        sides = (by_seed(wanted(rows, part, name, kind, (model,))) for name in (ours, rival))
        found.append(paired(*sides))
    (robust, half), clean = found
    verdict = "within the noise" if abs(robust) <= half else ("ahead" if robust > 0 else "behind")
    return f"{points(robust, half)} points under attack ({verdict}), {points(*clean)} as they are"
