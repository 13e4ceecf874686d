"""After how many patched models does meta-training pay? Out of the rows of the experiment `cost`, and of nothing else.

With M the cost of meta-training, S that of a baseline's search, and c, b what either needs to bring one model to the
target, the learned optimizer has paid after n models where

    M + n c  <=  S + n b

If it needs less for each model, that holds from some n on, and for ever. If it needs more, it holds at first at best,
as long as the search that it saves outweighs that: then there is a last n as well. Often there is none at all.

What a model needs is its cost at the first mark whose means over seeds reach the target, in whichever of the two runs.
Settings that were found in trials before, on either side, are not in any of these numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metarobust.lab.cost.once import COSTS, EVALUATIONS, SECONDS
from metarobust.lab.cost.spec import LONG, SHORT
from metarobust.lab.table import BEFORE, LEARNED, REFERENCE, Row, names, over

TARGETS = {
    "half-gain": "half of what PGD-7 training gains in its long run",
    "most-gain": "90 % of what PGD-7 training gains in its long run",
    "as-learned": "what the learned optimizer reaches in its own number of steps",
}
"""The targets by their part in the table."""
FIRST, LAST = "models to break even", "models until it is dearer again"
SEARCH = {True: "search counted", False: "search left out"}


@dataclass(frozen=True)
class Mark:
    """A way on a network after some steps: means over seeds, and what one model has cost until there, by metric."""

    step: int
    clean: float
    robust: float
    cost: dict[str, float]


def curve(rows: Sequence[Row], model: str, method: str) -> list[Mark]:
    """A way's marks on a network in the order of their steps, the models before the first step being 0."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        if row["model"] == model and (
            row["part"] == BEFORE or (row["method"] == method and row["part"] in (SHORT, LONG))
        ):
            found.setdefault(row["step"], []).append(row)
    marks = []
    for step, mine in sorted(found.items()):
        cost = {row["metric"]: row["value"] for row in mine if row["metric"] in COSTS} or dict.fromkeys(COSTS, 0.0)
        marks.append(Mark(step, over(mine, "clean accuracy")[0], over(mine, "robust accuracy")[0], cost))
    return marks


def targets(rows: Sequence[Row], model: str, short: int) -> dict[str, float]:
    """The robust accuracy of each target on a network. short: steps of the short run."""
    reference, learned = curve(rows, model, REFERENCE), curve(rows, model, LEARNED)
    before, final = reference[0].robust, reference[-1].robust
    own = next(mark.robust for mark in learned if mark.step == short)
    return dict(zip(TARGETS, (before + 0.5 * (final - before), before + 0.9 * (final - before), own), strict=True))


def reached(marks: Sequence[Mark], target: float, drop: float) -> Mark | None:
    """The first mark that is as robust as the target and has lost at most `drop` of the clean accuracy at step 0."""
    least = marks[0].clean - drop
    return next((mark for mark in marks if mark.robust >= target and mark.clean >= least), None)


def break_even(own_once: float, own_each: float, other_once: float, other_each: float) -> tuple[float, float]:
    """The first and the last number of models, 1 or more, for which the own way is not dearer than the other.

    (inf, inf) where there is none; the last is inf where it stays so for ever.
    """
    head_start, saved = other_once - own_once, other_each - own_each
    if saved > 0:
        return float(max(1, math.ceil(-head_start / saved))), math.inf
    if saved == 0:
        return (1.0 if head_start >= 0 else math.inf), math.inf
    last = math.floor(head_start / -saved)
    return (1.0, float(last)) if last >= 1 else (math.inf, math.inf)


def once(rows: Sequence[Row], method: str, group: str) -> dict[str, float]:
    """What is paid once: the meta-training of the learned optimizer, or a search for this kind of network."""
    part, model = ("meta-training", "") if method == LEARNED else ("search", group)
    mine = [row for row in rows if (row["part"], row["model"], row["method"]) == (part, model, method)]
    return {row["metric"]: row["value"] for row in mine}


def derived(rows: Sequence[Row], groups: dict[str, str], short: int, drop: float) -> Iterator[dict[str, Any]]:
    """Rows of what each way needs to reach each target, and of the models after which meta-training has paid.

    groups: the kind of each network. A cost that is infinite says that the way never reaches the target; where either
    way never does, no models to break even are given.
    """
    tiers = {row["method"]: row for row in rows}
    ways = [method for method in names(rows, "method") if method != BEFORE]
    for model, group in groups.items():
        for part, target in targets(rows, model, short).items():
            marks = {method: reached(curve(rows, model, method), target, drop) for method in ways}
            common = {"part": part, "model": model, "seed": None, "split": "", "attack": "", "eps": None, "n": 1}

            def row(method: str, metric: str, value: float, common: dict = common, marks: dict = marks) -> dict:
                how = {key: tiers[method][key] for key in ("experiment", "dataset", "method", "meta_seed", "tier")}
                step = marks[method].step if marks[method] else None
                return common | how | {"step": step, "metric": metric, "value": value}

            yield row(LEARNED, "target robust accuracy", target)
            for method in ways:
                for metric in COSTS:
                    cost = marks[method].cost[metric] if marks[method] else math.inf
                    yield row(method, f"{metric} to reach it", cost)
            for method in ways:
                if method == LEARNED or not (marks[LEARNED] and marks[method]):
                    continue
                for metric in (SECONDS, EVALUATIONS):
                    for counts, words in SEARCH.items():
                        first, last = break_even(
                            once(rows, LEARNED, group)[metric], marks[LEARNED].cost[metric],
                            once(rows, method, group)[metric] * counts, marks[method].cost[metric],
                        )  # fmt: skip
                        yield row(method, f"{FIRST} in {metric}, {words}", first)
                        yield row(method, f"{LAST} in {metric}, {words}", last)


def timed(metric: str) -> bool:
    """Whether a metric's values are times or come of them, so that they are others in every run."""
    return SECONDS in metric
