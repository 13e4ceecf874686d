"""Bills and comparisons: what many patched models cost in all, and how a choice flatters what is chosen.

Costs come from rows of the experiment `cost`; all accuracies are shares in [0, 1].
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.results import LABELS
from metarobust.book.figures.style import role, style
from metarobust.errors import InputError, choose
from metarobust.lab.cost.break_even import EVALUATIONS, FIRST, SEARCH, SECONDS, TARGETS, once, value_of
from metarobust.lab.cost.text import networks
from metarobust.lab.spec import network_kind
from metarobust.lab.table import BEFORE, LEARNED, Row, names

MOST = 100_000
"""Models at the right end of `whole_bill`."""


def whole_bill(rows: Sequence[Row], model: str, part: str = "as-learned", metric: str = SECONDS) -> Figure:
    """What n patched models cost in all, what is paid once included, for every way that reaches a target.

    Bills are multiples of the learned optimizer's. A filled circle marks the number of models from which a way is the
    dearer one. metric: `seconds` or `model evaluations`. Raises InputError for another network, target
    or metric, and for a target that the learned optimizer does not reach.
    """
    choose(model, networks(rows), "network in these results")
    choose(part, TARGETS, "target")
    choose(metric, (SECONDS, EVALUATIONS), "cost of a bill")
    each = {name: value_of(rows, part, model, name, f"{metric} to reach it") for name in names(rows, "method")}
    each = {name: cost for name, cost in each.items() if name != BEFORE and cost is not None and cost < float("inf")}
    if LEARNED not in each:
        raise InputError(f"the learned optimizer does not reach {part!r} on {model}; give another target")
    tiers = {row["method"]: row["tier"] for row in rows}
    start = {name: once(rows, name, network_kind(model))[metric] for name in each}
    counts = [10 ** (i / 20) for i in range(101)]
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 3.4))
        ends = []
        for name, cost in each.items():
            how = "learned" if name == LEARNED else "reference" if tiers[name] == "adversarial" else "rule"
            times = [(start[name] + n * cost) / (start[LEARNED] + n * each[LEARNED]) for n in counts]
            axes.plot(counts, times, color=role(how).colour, linestyle=role(how).line)
            ends.append((LABELS.get(name, name), counts[-1], times[-1], how))
            first = value_of(rows, part, model, name, f"{FIRST} in {metric}, {SEARCH[True]}")
            if first is not None and first <= MOST:
                axes.plot([first], [1], ls="", marker="o", ms=7, color=role(how).colour)
        axes.set(xscale="log", ylim=(0, None), xlabel="models that are patched", title=model)
        axes.set_ylabel(f"{metric} in all, learned = 1")
        _column(axes, ends)
    return figure


def search(tried: Sequence[int], chosen: Sequence[float], learned: float) -> Figure:
    """Robust accuracy of the setting that a search chose, against how many it tried; a line for the learned rule."""
    with style():
        figure, axes = plt.subplots(figsize=(5, 3.2))
        how = role("rule")
        axes.plot(tried, chosen, color=how.colour, linestyle=how.line, marker=how.marker)
        axes.axhline(learned, color=role("learned").colour)
        axes.annotate(
            "learned, nothing tuned", (tried[0], learned), xytext=(0, 5), textcoords="offset points", va="bottom",
            color=role("learned").ink,
        )  # fmt: skip
        axes.annotate(
            "std-prune", (tried[-1], chosen[-1]), xytext=(0, -26), textcoords="offset points", ha="right", va="top",
            color=how.ink,
        )  # fmt: skip
        axes.set(xscale="log", xlabel="settings of std-prune that were tried", ylabel="robust accuracy", xticks=tried)
        axes.set_xticks(tried, [str(number) for number in tried])
        axes.minorticks_off()
        axes.margins(y=0.15)
        axes.yaxis.set_major_locator(plt.MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return figure


def picked(here: Sequence[float], fresh: Sequence[float], before: tuple[float, float], best: int) -> Figure:
    """Candidates on the images that the best was picked on, and on fresh ones; an arrow for the one that was picked.

    before: the model without any change, on both. best: the number of the picked one.
    """
    with style():
        figure, axes = plt.subplots(figsize=(5, 3))
        for y, shares, start in ((1, here, before[0]), (0, fresh, before[1])):
            # A little up and down, in a fixed pattern: several candidates have the same share.
            spread = [y + 0.22 * ((i * 0.618) % 1 - 0.5) for i in range(len(shares))]
            axes.plot(shares, spread, ls="", marker="o", ms=4, color=role("control").colour, alpha=0.5)
            axes.plot([start] * 2, [y - 0.3, y + 0.3], color=role("clean").colour, lw=2.5)
            axes.plot([shares[best]], [y], ls="", marker="s", ms=9, color=role("robust").colour)
        axes.annotate("before", (before[0], 1.32), ha="center", va="bottom", color=role("clean").ink, fontsize=10)
        axes.annotate(
            "the best", (here[best], 1), xytext=(0, 9), textcoords="offset points", ha="center",
            color=role("robust").ink, fontsize=10,
        )  # fmt: skip
        axes.set(ylim=(-0.5, 1.6), xlabel="images that survive the attack", yticks=[0, 1])
        axes.set_yticklabels(["fresh\nimages", "images\nto pick on"])
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return figure


def told(leads: Mapping[str, float], honest: str) -> Figure:
    """A lead in points, told in several ways, from top to bottom; a dotted line at the honest one."""
    choose(honest, leads, "way to tell it")
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.42 * len(leads) + 0.9))
        axes.axvline(leads[honest], color=role("learned").colour, lw=1, ls=":")
        for y, (name, lead) in enumerate(leads.items()):
            how = role("learned" if name == honest else "control")
            axes.plot([lead], [y], ls="", marker=how.marker, ms=8, mew=2, color=how.colour)
            text = f"{lead:+.1f}".replace("-", "\u2212")
            axes.annotate(text, (lead, y), xytext=(9, 0), textcoords="offset points", va="center", color=how.ink)
        axes.set(yticks=range(len(leads)), ylim=(len(leads) - 0.5, -0.5), xlabel="lead under attack, in points")
        axes.set_yticklabels(list(leads))
        axes.margins(x=0.2)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    return figure


def _column(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Names right of the axes, in the order of the heights where lines end, each with a thin line to its end."""
    ordered = sorted(ends, key=lambda end: end[2])
    for i, (text, x, y, name) in enumerate(ordered):
        axes.annotate(
            text, (x, y), xytext=(1.05, (i + 0.5) / len(ordered)), textcoords="axes fraction", va="center",
            fontsize=9.5, color=role(name).ink, fontweight="bold" if name == "learned" else "normal",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": role(name).colour, "relpos": (0, 0.5)},
        )  # fmt: skip
