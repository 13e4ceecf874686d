"""Figures of new data and attacks: a matrix of methods against attacks, and accuracy against the radius.

Both read tables of runs that measure many attacks, and tables that a notebook makes on the spot in the same form.
Every number is a mean over seeds.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.grid import Grid
from metarobust.book.figures.images import row
from metarobust.book.figures.matrix import FULL, Cell, Matrix, draw, reading, transfer
from metarobust.book.figures.style import THIN, label_column, line, percent, style, ticks
from metarobust.errors import InputError, choose
from metarobust.lab.results import BEFORE, interval, names, select

__all__ = ["Grid", "by_attack", "draw", "over_radii", "reading", "row", "transfer", "values"]

ATTACKS = {
    "none": ("clean", "none"),
    "fgsm": ("FGSM", "fgsm"),
    "pgd": ("PGD, CE", r"pgd-\d+-ce"),
    "apgd": ("APGD, CE", r"apgd-\d+-ce"),
    "apgd-targeted": ("APGD, aimed", r"apgd-\d+-.*targeted"),
    "square": ("Square, no gradient", r"square-\d+"),
    "worst": ("worst of all", "worst of .*"),
    "both": ("PGD, both", r"pgd-\d+ ce, margin"),
    "l2": ("PGD in L2", r"pgd-\d+ ce, margin in l2"),
}
"""A kind of attack to what stands above its column, and to how it is written in the table, with its steps."""


def _of_kind(frame: pd.DataFrame, kind: str, eps: float | None = None) -> pd.DataFrame:
    radius = True if eps is None else (frame["eps"] - eps).abs() < 1e-9
    return frame[frame["attack"].str.fullmatch(ATTACKS[kind][1]) & (frame["split"] == "test") & radius]


def values(frame: pd.DataFrame, method: str, kind: str, eps: float | None = None) -> pd.Series:
    """For each seed the accuracy under a kind of attack, a mean over networks and meta-seeds; at a radius, where given.

    Raises InputError where there is no such row.
    """
    rows = _of_kind(select(frame, method=method), choose(kind, ATTACKS, "kind of attack"), eps)
    if rows.empty:
        at = "" if eps is None else f" at eps {eps:g}"
        raise InputError(f"these results hold no {ATTACKS[kind][0]} of {method!r}{at}: give what is in the table")
    return rows.groupby("seed")["value"].mean()


def by_attack(
    frame: pd.DataFrame,
    methods: Mapping[str, str],
    attacks: Sequence[str] = ("none", "fgsm", "pgd", "apgd-targeted", "square", "worst", "l2"),
    *,
    home: Mapping[str, str] | None = None,
) -> Matrix:
    """A row for each method, a column for each kind of attack, and in each cell the share that is read correctly.

    Green is more than before any step, purple less; what was learned stands above the gap.

    Args:
        frame: Rows of results, of which `learned` tells what was learned.
        methods: Names in the table to labels.
        attacks: Of ATTACKS.
        home: Labels of rows to the kind of attack in their meta-loss, which gets a frame.
    """
    before = {attack: values(frame, BEFORE, attack).mean() for attack in attacks}
    cells = []
    for method, label in methods.items():
        cells.append(())
        for attack in attacks:
            share, half = interval(values(frame, method, attack))
            spread = f" ± {100 * half:.1f}" if half < float("inf") else ""
            under = "on clean images" if attack == "none" else f"under {ATTACKS[attack][0]}"
            words = f"{label}, {under}: {100 * share:.1f}{spread} % read correctly, {100 * before[attack]:.1f} % before"
            cell = Cell(share, half, f"{100 * share:.0f}", "", (share - before[attack]) / FULL, words)
            cells[-1] += (cell,)
    labels, columns = tuple(methods.values()), tuple(ATTACKS[attack][0] for attack in attacks)
    framed = {(labels.index(r), list(attacks).index(attack)) for r, attack in (home or {}).items() if attack in attacks}
    learned = set(frame.loc[frame["learned"] == 1, "method"])
    gap = sum(method in learned for method in methods)
    return Matrix("test images read correctly, in %", labels, columns, tuple(cells), gap, frozenset(framed))


def over_radii(frame: pd.DataFrame, methods: Mapping[str, tuple[str, str]], *, learned_at: float) -> Figure:
    """Accuracy against the radius of the attack, named where the curves are furthest apart.

    An image counts if it survives PGD on cross-entropy and on the margin, or all attacks where more were run. methods:
    names in the table to (label, role). learned_at: the radius of the attacks in meta-training, marked by a line.
    Raises InputError for a method that is not in the table.
    """
    pairs = set(_of_kind(frame, "both")["eps"])
    kinds = dict.fromkeys(_of_kind(frame, "worst")["eps"], "worst") | dict.fromkeys(pairs, "both") | {0.0: "none"}
    at = sorted(kinds)
    curves = []
    for method, (label, name) in methods.items():
        choose(method, names(frame, "method"), "method in these results")
        shares = [values(frame, method, kinds[eps], None if eps == 0 else eps).mean() for eps in at]
        curves.append((label, name, shares))
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.5))
        axes.axvline(learned_at, **THIN)
        axes.text(learned_at, 1.06, "radius in meta-training", ha="center", va="bottom", fontsize=10)
        for _, name, shares in curves:
            axes.plot(at, shares, **line(name))
        axes.set(xlabel="eps: how far every pixel may move", ylabel="read correctly")
        ticks(axes, "x", at)
        percent(axes)
        apart = max(range(len(at)), key=lambda i: max(c[2][i] for c in curves) - min(c[2][i] for c in curves))
        label_column(axes, [(label, at[apart], shares[apart], name) for label, name, shares in curves])
    return figure
