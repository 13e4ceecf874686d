"""Which attacks a model stands: a matrix of methods against attacks, and accuracy against the radius.

Both read tables of runs that measure many attacks (`measures="attacks"`, see `metarobust.lab.stages.evaluate`), and
tables that a notebook makes on the spot in the same form. Every number is a mean over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.matrix import UNSURE, Cell, Matrix
from metarobust.book.figures.style import beside, line, percent, style
from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import BEFORE, names

Row = dict[str, Any]

# What stands above a column, for the beginnings of the attacks' names in the table.
SHORT = {
    "none": "as they are",
    "fgsm": "FGSM",
    "pgd-": "PGD, CE",
    "apgd-ce": "APGD, CE",
    "apgd-targeted": "APGD, aimed",
    "square": "Square, no gradient",
    "worst": "worst of all",
    "both": "PGD, both",
    "l2": "PGD in L2",
}


def kind(row: Row) -> str:
    """One of SHORT, or "" for what is not shown: the kind of attack of a row."""
    name = row["attack"]
    if name.startswith("pgd-") and "," in name:
        return "l2" if name.endswith("in l2") else "both"
    if name.startswith("pgd-"):
        return "pgd-" if name.endswith("-ce") else ""
    if name.startswith("apgd-"):
        return "apgd-targeted" if name.endswith("targeted") else "apgd-ce"
    return next((key for key in ("none", "fgsm", "square", "worst") if name.startswith(key)), "")


def values(rows: Sequence[Row], method: str, wanted: str, eps: float | None = None) -> dict[int, float]:
    """For each seed the accuracy under a kind of attack, a mean over networks and meta-seeds; at a radius, where given.

    Raises InputError where there is no such row.
    """
    found: dict[int, list[float]] = {}
    for row in rows:
        there = row["method"] == method and row["seed"] is not None and row["split"] == "test"
        if there and kind(row) == wanted and (eps is None or abs(row["eps"] - eps) < 1e-9):
            found.setdefault(row["seed"], []).append(row["value"])
    if not found:
        at = "" if eps is None else f" at eps {eps:g}"
        raise InputError(f"these results hold no {SHORT[wanted]} of {method!r}{at}: give what is in the table")
    return {seed: sum(each) / len(each) for seed, each in found.items()}


def by_attack(
    rows: Sequence[Row],
    methods: Mapping[str, str],
    attacks: Sequence[str] = ("none", "fgsm", "pgd-", "apgd-targeted", "square", "worst", "l2"),
    *,
    gap: int | None = None,
    home: Mapping[str, str] | None = None,
) -> Matrix:
    """A row for each method, a column for each kind of attack, and in each cell the share that is read correctly.

    methods: names in the table to labels. attacks: of SHORT. gap: how many methods stand above the gap; None for all
    that begin with "learned". home: labels of rows to the kind of attack that was met at school, which gets a frame.
    Colour: green is more than before any step, purple less. Raises InputError for what is not in the rows.
    """
    for method in methods:
        choose(method, names(rows, "method"), "method in these results")
    for attack in attacks:
        choose(attack, SHORT, "kind of attack")
    home = home or {}
    before = {attack: _mean(values(rows, BEFORE, attack)) for attack in attacks}
    cells = []
    for method, label in methods.items():
        line_of = []
        for attack in attacks:
            share, half = over_seeds(list(values(rows, method, attack).values()))
            spread = f" ± {100 * half:.1f}" if half < UNSURE else ""
            under = "on images as they are" if attack == "none" else f"under {SHORT[attack]}"
            words = f"{label}, {under}: {100 * share:.1f}{spread} % read correctly, {100 * before[attack]:.1f} % before"
            line_of.append(Cell(share, half, f"{100 * share:.0f}", "", (share - before[attack]) / 0.25, words))
        cells.append(tuple(line_of))
    labels = tuple(methods.values())
    framed = {(labels.index(row), list(attacks).index(attack)) for row, attack in home.items() if attack in attacks}
    gap = sum(method.startswith("learned") for method in methods) if gap is None else gap
    columns = tuple(SHORT[attack] for attack in attacks)
    return Matrix("test images read correctly, in %", labels, columns, tuple(cells), gap, frozenset(framed))


def _mean(by_seed: Mapping[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


def radii(rows: Sequence[Row]) -> list[float]:
    """The L-infinity radii at which images had to stand two PGDs, or the worst case of more, from 0 up."""
    return sorted({row["eps"] for row in rows if kind(row) in ("none", "both", "worst")})


def over_radii(rows: Sequence[Row], methods: Mapping[str, tuple[str, str]], *, learned_at: float) -> Figure:
    """Accuracy against the radius of the attack. methods: names in the table to (label, role).

    An image counts if it stands PGD on cross-entropy and on the margin; at the radius of the comparison itself, where
    more attacks were run, the worst of all. learned_at: the radius of the attacks at school, marked by a line.
    Raises InputError for a method that is not in the rows.
    """
    at = radii(rows)
    curves = {}
    for method, (label, name) in methods.items():
        choose(method, names(rows, "method"), "method in these results")
        curves[label] = name, [_mean(_at(rows, method, eps)) for eps in at]
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.5))
        axes.axvline(learned_at, color="#B0B0B0", lw=1)
        axes.text(learned_at, 1.06, "radius at school", ha="center", va="bottom", fontsize=10)
        placed = -1.0
        for label, (name, shares) in sorted(curves.items(), key=lambda item: sum(item[1][1])):
            axes.plot(at, shares, **line(name))
            placed = max(shares[-1], placed + 0.085)
            beside(axes, at[-1], placed, label, name)
        axes.set(xlabel="eps: how far every pixel may move", ylabel="read correctly", xticks=at)
        axes.set_xticklabels([f"{eps:g}" for eps in at])
        percent(axes)
    return figure


def _at(rows: Sequence[Row], method: str, eps: float) -> dict[int, float]:
    if eps == 0:
        return values(rows, method, "none")
    both = any(kind(row) == "both" and abs(row["eps"] - eps) < 1e-9 for row in rows)
    return values(rows, method, "both" if both else "worst", eps)
