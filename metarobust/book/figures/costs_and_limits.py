"""Figures of costs and limits: what robustness costs, and how a choice flatters what is chosen.

Costs come from the table of the experiment `cost`; all accuracies are shares in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from metarobust.book.figures.lines import shares
from metarobust.book.figures.results import LABELS, by_seed, frontier, points, roles
from metarobust.book.figures.style import as_percent, beside, label_column, role, rows_of, style
from metarobust.book.figures.style import points as in_points
from metarobust.errors import InputError, choose
from metarobust.lab.cost.bill import COSTS, EVALUATIONS, FIRST, ROBUST, SECONDS, TARGETS, curve, networks, once, payback
from metarobust.lab.results import BEFORE, LEARNED, select

__all__ = ["against_cost", "by_seed", "frontier", "picked", "points", "shares", "told", "whole_bill"]

MOST = 100_000
"""Models at the right end of `whole_bill`."""
WORDS = {
    EVALUATIONS: "passes of an image through the model, for one model",
    SECONDS: "seconds for one model",
    "adversarial examples": "adversarial examples for one model",
}


def against_cost(frame: pd.DataFrame, model: str, metric: str = EVALUATIONS) -> Figure:
    """Robust accuracy of every way on one network against what it has cost by then, on a logarithmic axis.

    What is paid once, meta-training and search, is not in it. metric: `model evaluations`, `seconds` or `adversarial
    examples`; ways that make none are then left out. A dotted line shows the models before the first step.
    Raises InputError for another network or metric.
    """
    drawn = roles(frame[frame["method"] != BEFORE])
    choose(model, networks(frame), "network in these results")
    choose(metric, COSTS, "cost")
    curves = {way: curve(frame, model, way) for way in drawn}
    before = curves[LEARNED].loc[0, ROBUST]
    paid = {way: shown for way, steps in curves.items() if len(shown := steps[steps[metric] > 0])}
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.6))
        axes.axhline(before, color=role("control").colour, lw=1, ls=":")
        for way, steps in paid.items():
            how = role(drawn[way])
            axes.plot(steps[metric], steps[ROBUST], color=how.colour, linestyle=how.line, marker=how.marker, ms=5)
        axes.set_xscale("log")
        axes.set(xlabel=WORDS[metric], ylabel="robust accuracy", title=model)
        axes.yaxis.set_major_formatter(as_percent)
        ends = [(LABELS.get(w, w), *steps[[metric, ROBUST]].iloc[-1], drawn[w]) for w, steps in paid.items()]
        ends.append(("before", max(cost for _, cost, _, _ in ends), before, "control"))
        label_column(axes, ends, bold="learned")
    return figure


def whole_bill(frame: pd.DataFrame, model: str, part: str = "as-learned", metric: str = SECONDS) -> Figure:
    """What n patched models cost in all, what is paid once included, for every way that reaches a target.

    Bills are multiples of the learned optimizer's. A filled circle marks the number of models from which a way is the
    dearer one.

    Args:
        frame: The table of the experiment `cost`.
        model: A network in it.
        part: The target.
        metric: `seconds` or `model evaluations`.

    Raises:
        InputError: another network, target or metric, or a target that the learned optimizer does not reach.
    """
    drawn = roles(frame[frame["method"] != BEFORE])
    choose(model, networks(frame), "network in these results")
    choose(part, TARGETS, "target")
    choose(metric, (SECONDS, EVALUATIONS), "cost of a bill")
    needs = payback(frame, part, model)
    each = needs.loc[needs["step"].notna(), f"{metric} to reach it"]
    if LEARNED not in each:
        raise InputError(f"the learned optimizer does not reach {part!r} on {model}; give another target")
    network = select(frame, model=model)["network"].iloc[0]
    start = {way: once(frame, way, network)[metric] for way in each.index}
    counts = [10 ** (i / 20) for i in range(101)]
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 3.4))
        ends = []
        for way, cost in each.items():
            how = role(drawn[way])
            times = [(start[way] + n * cost) / (start[LEARNED] + n * each[LEARNED]) for n in counts]
            axes.plot(counts, times, color=how.colour, linestyle=how.line)
            ends.append((LABELS.get(way, way), counts[-1], times[-1], drawn[way]))
            first = needs.loc[way].get(FIRST.format(metric, "search counted"), math.inf)
            if first <= MOST:
                axes.plot([first], [1], ls="", marker="o", ms=7, color=how.colour)
        axes.set(xscale="log", ylim=(0, None), xlabel="models that are patched", title=model)
        axes.set_ylabel(f"{metric} in all, learned = 1")
        label_column(axes, ends, bold="learned")
    return figure


def picked(here: Sequence[float], fresh: Sequence[float], before: tuple[float, float], best: int) -> Figure:
    """Candidates on the images that the best was picked on, and on fresh ones; a square for the one that was picked.

    before: the model without any change, on both. best: the number of the picked one.
    """
    clean, robust = role("clean"), role("robust")
    with style():
        figure, axes = plt.subplots(figsize=(5, 3))
        for y, shares, start in ((1, here, before[0]), (0, fresh, before[1])):
            # A little up and down, in a fixed pattern: several candidates have the same share.
            spread = [y + 0.22 * ((i * 0.618) % 1 - 0.5) for i in range(len(shares))]
            axes.plot(shares, spread, ls="", marker="o", ms=4, color=role("control").colour, alpha=0.5)
            axes.plot([start] * 2, [y - 0.3, y + 0.3], color=clean.colour, lw=2.5)
            axes.plot([shares[best]], [y], ls="", marker="s", ms=9, color=robust.colour)
        axes.annotate("before", (before[0], 1.32), ha="center", va="bottom", color=clean.ink, fontsize=10)
        beside(axes, here[best], 1, "the best", "robust", xytext=(0, 13), ha="center", fontsize=10)
        axes.set(ylim=(-0.5, 1.6), xlabel="images that survive the attack", yticks=[0, 1])
        axes.set_yticklabels(["fresh\nimages", "images\nto pick on"])
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(as_percent)
    return figure


def told(leads: Mapping[str, float], honest: str) -> Figure:
    """A lead in points, told in several ways, from top to bottom; a dotted line at the honest one."""
    choose(honest, leads, "way to tell it")
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.42 * len(leads) + 0.9))
        axes.axvline(leads[honest], color=role("learned").colour, lw=1, ls=":")
        for y, (name, lead) in enumerate(leads.items()):
            which = "learned" if name == honest else "control"
            axes.plot([lead], [y], ls="", marker=role(which).marker, ms=8, mew=2, color=role(which).colour)
            beside(axes, lead, y, in_points(lead / 100), which, xytext=(9, 0))
        axes.set(ylim=(len(leads) - 0.5, -0.5), xlabel="lead under attack, in points")
        rows_of(axes, list(leads))
        axes.margins(x=0.2)
    return figure
