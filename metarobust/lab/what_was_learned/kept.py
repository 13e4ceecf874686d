"""How much of the learned rule's effect is kept, and the text of the experiment `what-was-learned`.

The effect is the gain in robust accuracy over equally many steps of tuned Adam, g. A method m keeps

    k = mean over seeds of g_m / mean over seeds of g_learned,

and since both are of the same seeds, the interval is that of the residuals g_m - k g_learned: k plus or minus
t * sd(residuals) / (sqrt(n) * mean of g_learned), the linearised form of Fieller's (1954).
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from metarobust.errors import InputError, choose
from metarobust.lab.results import as_rows
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import ADAM, LEARNED, Row, by_seed, cell, measured, names, over, pick, setting

CONTROL, IMITATION = "learned, clean outside", "imitation"
PATCH, EXPLAINED, COLUMN = "patch", "explained", "response to column"


def without(part: str) -> str:
    """The name of the learned rule with this part switched off."""
    return f"{LEARNED} without {part}"


def robust(rows: Iterable[Row], method: str, models: Sequence[str]) -> list[float]:
    """Robust accuracy for each seed, the mean over these networks. Raises InputError where there is none."""
    ours = [row for row in rows if (row["part"], row["method"]) == (PATCH, method) and row["model"] in models]
    found = by_seed(measured(ours, "robust accuracy"))
    if not found:
        raise InputError(f"the results hold no robust accuracy of {method!r} on {', '.join(models)}")
    return [found[seed] for seed in sorted(found)]


def kept(rows: Sequence[Row], method: str, models: Sequence[str]) -> tuple[float, float]:
    """The share of the learned rule's gain that a method keeps, over these networks, and the interval's half-width.

    (nan, inf) where the learned rule gains nothing.
    """
    adam, learned, own = (robust(rows, name, models) for name in (ADAM, LEARNED, method))
    goal = [a - b for a, b in zip(learned, adam, strict=True)]
    gain = [a - b for a, b in zip(own, adam, strict=True)]
    if fmean(goal) <= 0:
        return math.nan, math.inf
    share = fmean(gain) / fmean(goal)
    _, half = over_seeds([a - share * b for a, b in zip(gain, goal, strict=True)])
    return share, half / fmean(goal)


def percent(found: tuple[float, float]) -> str:
    """`mean ±half-width` in per cent; a dash where there is no share."""
    return "-" if math.isnan(found[0]) else f"{100 * found[0]:.0f} ±{100 * found[1]:.0f}"


def lines(rows: Sequence[Row], part: str) -> list[list[str]]:
    """A header and the lines of the part `patch`, `explained` or `response to column`. Raises InputError for others."""
    choose(part, (PATCH, EXPLAINED, COLUMN), f"part with a table; the curves in {COLUMN!r} and its like are drawn")
    here = [row for row in rows if row["part"] == part]
    models = names(here, "model")
    if part == PATCH:
        found = [["clean/robust", "gain kept, %", *models]]
        for method in names(here, "method"):
            cells = [cell(pick(here, part, model, method)) for model in models]
            found.append([method, percent(kept(rows, method, models)), *cells])
        return found
    if part == EXPLAINED:
        ways = names(here, "method")
        found = [["explained, %", *ways]]
        for model in models:
            mine = {way: [row["value"] for row in pick(here, part, model, way)] for way in ways}
            found.append([model, *(f"{100 * fmean(mine[way]):.0f}" if mine[way] else "-" for way in ways)])
        return found
    here = [row for row in here if row["metric"] == "share given up"]
    places = names(here, "eps")[::2]
    found = [["share given up, %", *(f"{math.exp(place):.2f}" for place in places)]]
    for method in names(here, "method"):
        for model in models:
            at = {row["eps"]: row["value"] for row in pick(here, part, model, method)}
            if not at:
                continue
            found.append([f"{model}, {method}", *(f"{100 * at[place]:.1f}" for place in places)])
    return found


def aligned(found: list[list[str]]) -> str:
    """Lines of cells as text: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in found) for i in range(len(found[0]))]
    return "\n".join(
        "  ".join([f"{line[0]:{widths[0]}}", *(f"{word:>{w}}" for word, w in zip(line[1:], widths[1:], strict=True))])
        for line in found
    )


def table(rows: Sequence[Row]) -> str:
    """The comparison, the explanations, and how much of a weight is given up by how much gradient its column has."""
    rows = as_rows(rows)
    made = sum(row["value"] for row in rows if row["metric"] == "adversarial examples")
    notes = {
        PATCH: f"{setting(rows, PATCH)}\naccuracy in %, ± 95 %; all of these made {made:,.0f} adversarial examples; "
        "kept: share of the learned gain in robust accuracy over Adam",
        EXPLAINED: "How much of the change of the weights plain rules account for, on validation networks",
        COLUMN: "What share of a weight a step takes away, by the gradient of its column over that of its matrix",
    }
    return "\n\n".join(f"{note}\n{aligned(lines(rows, part))}" for part, note in notes.items())


def markdown(rows: Sequence[Row], part: str) -> str:
    """The table of one part in Markdown."""
    rows = as_rows(rows)
    head, *body = lines(rows, part)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def brief(rows: Sequence[Row]) -> str:
    """The comparison alone, each method over all networks."""
    rows = as_rows(rows)
    here = [row for row in rows if row["part"] == PATCH]
    models, found = names(here, "model"), [["all networks, %", "clean", "robust", "gain kept"]]
    for method in names(here, "method"):
        # `over` takes the mean over networks first, so that the interval is over seeds.
        mine = [row for row in here if row["method"] == method]
        figures = [f"{100 * over(mine, metric)[0]:.1f}" for metric in ("clean accuracy", "robust accuracy")]
        found.append([method, *figures, percent(kept(rows, method, models))])
    return f"{setting(rows, PATCH)}\n{aligned(found)}"
