"""How much of the learned rule's effect is kept, and the text of the experiment `what-was-learned`.

The effect is the gain in robust accuracy over equally many steps of tuned Adam, g. A method m keeps

    k = mean over seeds of g_m / mean over seeds of g_learned,

and since both are of the same seeds, the interval is that of the residuals g_m - k g_learned: k plus or minus
t * sd(residuals) / (sqrt(n) * mean of g_learned), the linearised form of Fieller's (1954).
"""

import math

import pandas as pd

from metarobust.errors import choose
from metarobust.lab.results import ADAM, LEARNED, accuracy, interval, names, select, to_markdown, to_text
from metarobust.lab.summary import Cells, setting

CONTROL, IMITATION = "learned, clean outside", "imitation"
PATCH, EXPLAINED, COLUMN = "patch", "explained", "response to column"


def without(part: str) -> str:
    """The name of the learned rule with this part switched off."""
    return f"{LEARNED} without {part}"


def kept(frame: pd.DataFrame, method: str, models: list[str] | None = None) -> tuple[float, float]:
    """The share of the learned rule's gain that a method keeps, over these networks, and the interval's half-width.

    Returns:
        (nan, inf) where the learned rule gains nothing.

    Raises:
        InputError: A method or a network is not there.
    """
    adam, learned, own = (
        accuracy(select(frame, part=PATCH, method=name, model=models)).groupby(level="seed").mean()
        for name in (ADAM, LEARNED, method)
    )
    goal, gain = learned - adam, own - adam
    if goal.mean() <= 0:
        return math.nan, math.inf
    share = gain.mean() / goal.mean()
    return float(share), float(interval(gain - share * goal).half / goal.mean())


def percent(share: tuple[float, float]) -> str:
    """`mean ±half-width` in per cent; a dash where there is no share."""
    return "-" if math.isnan(share[0]) else f"{100 * share[0]:.0f} ±{100 * share[1]:.0f}"


def lines(frame: pd.DataFrame, part: str) -> list[list[str]]:
    """A header and the lines of the part `patch`, `explained` or `response to column`. Raises InputError for others."""
    choose(part, (PATCH, EXPLAINED, COLUMN), f"part with a table; the curves in {COLUMN!r} and its like are drawn")
    rows = select(frame, part=part)
    models, methods = names(rows, "model"), names(rows, "method")
    if part == PATCH:
        cells = Cells(rows)
        body = [[m, percent(kept(frame, m)), *(cells(part, model, m) for model in models)] for m in methods]
        return [["clean/robust", "gain kept, %", *models], *body]
    if part == EXPLAINED:
        shares = rows.groupby(["model", "method"])["value"].mean()
        body = [[model, *(_percent(shares.get((model, m))) for m in methods)] for model in models]
        return [["explained, %", *methods], *body]
    rows = select(rows, metric="share given up")
    places = names(rows, "eps")[::2]
    curves = rows.pivot_table(index=["method", "model"], columns="eps", values="value", sort=False)
    body = [[f"{model}, {m}", *(f"{100 * curve[at]:.1f}" for at in places)] for (m, model), curve in curves.iterrows()]
    return [["share given up, %", *(f"{math.exp(place):.2f}" for place in places)], *body]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def table(frame: pd.DataFrame) -> str:
    """The comparison, the explanations, and how much of a weight is given up by how much gradient its column has."""
    made = frame.loc[frame["metric"] == "adversarial examples", "value"].sum()
    notes = {
        PATCH: f"{setting(frame, PATCH)}\naccuracy in %, ± 95 %; all of these made {made:,.0f} adversarial examples; "
        "kept: share of the learned gain in robust accuracy over Adam",
        EXPLAINED: "How much of the change of the weights plain rules account for, on validation networks",
        COLUMN: "What share of a weight a step takes away, by the gradient of its column over that of its matrix",
    }
    return "\n\n".join(f"{note}\n{to_text(lines(frame, part), right=True)}" for part, note in notes.items())


def markdown(frame: pd.DataFrame, part: str) -> str:
    """The table of one part in Markdown."""
    return to_markdown(lines(frame, part))


def brief(frame: pd.DataFrame) -> str:
    """The comparison alone, each method over all networks."""
    rows = select(frame, part=PATCH)
    table = [["all networks, %", "clean", "robust", "gain kept"]]
    for method in names(rows, "method"):
        # The mean over networks comes first, so that the interval of what is kept is over seeds.
        own = select(rows, method=method)
        means = (accuracy(own, metric).groupby(level="seed").mean().mean() for metric in ("clean", "robust"))
        table.append([method, *(f"{100 * mean:.1f}" for mean in means), percent(kept(frame, method))])
    return f"{setting(frame, PATCH)}\n{to_text(table, right=True)}"
