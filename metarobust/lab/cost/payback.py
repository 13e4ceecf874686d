"""After how many patched models does meta-training pay? Out of the table of the experiment `cost`, and of nothing else.

With M the cost of meta-training, S that of a baseline's search, and c, b what either needs to bring one model to the
target, the learned optimizer has paid after n models where

    M + n c  <=  S + n b

If it needs less for each model, that holds from some n on, and for ever. If it needs more, it holds at first at best,
as long as the search that it saves outweighs that: then there is a last n as well. Often there is none at all.

What a model needs is its cost at the first mark whose means over seeds reach the target, in whichever of the two runs.
Settings that were found in trials before, on either side, are not in any of these numbers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metarobust.errors import InputError
from metarobust.lab.results import BEFORE, LEARNED, REFERENCE, names

SECONDS, EVALUATIONS, EXAMPLES = "seconds", "model evaluations", "adversarial examples"
COSTS = SECONDS, EVALUATIONS, EXAMPLES
SHORT, LONG = "short", "long"
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
    cost: Mapping[str, float]


def curve(frame: pd.DataFrame, model: str, method: str) -> list[Mark]:
    """A way's marks on a network in the order of their steps, the models before the first step being 0.

    Raises:
        InputError: There are none.
    """
    own = (frame["method"] == method) & frame["part"].isin([SHORT, LONG])
    rows = frame[(frame["model"] == model) & (own | (frame["part"] == BEFORE))]
    if not own.any() or rows.empty:
        raise InputError(f"the results hold no curve of {method!r} on {model!r}: check the method and the network")
    marks = []
    for step, mine in rows.groupby("step"):
        values = mine.groupby("metric")["value"].first()
        clean = mine.loc[mine["metric"] == "clean accuracy", "value"]
        robust = mine.loc[(mine["metric"] == "robust accuracy") & (mine["scope"] == "worst case"), "value"]
        cost = {metric: float(values.get(metric, 0.0)) for metric in COSTS}
        marks.append(Mark(int(step), _mean(clean), _mean(robust), cost))
    return marks


def _mean(values: pd.Series) -> float:
    return math.fsum(values) / len(values)


def targets(frame: pd.DataFrame, model: str, short: int) -> dict[str, float]:
    """The robust accuracy of each target on a network. short: steps of the short run."""
    reference, learned = curve(frame, model, REFERENCE), curve(frame, model, LEARNED)
    before, gain = reference[0].robust, reference[-1].robust - reference[0].robust
    own = next(mark.robust for mark in learned if mark.step == short)
    return dict(zip(TARGETS, (before + 0.5 * gain, before + 0.9 * gain, own), strict=True))


def reached(marks: Sequence[Mark], target: float, drop: float) -> Mark | None:
    """The first mark that is as robust as the target and has lost at most `drop` of the clean accuracy at step 0."""
    least = marks[0].clean - drop
    return next((mark for mark in marks if mark.robust >= target and mark.clean >= least), None)


def break_even(own_once: float, own_each: float, other_once: float, other_each: float) -> tuple[float, float]:
    """The first and the last number of models, 1 or more, for which the own way is not dearer than the other.

    Returns:
        (inf, inf) where there is none; the last is inf where it stays so for ever.
    """
    head_start, saved = other_once - own_once, other_each - own_each
    if saved > 0:
        return float(max(1, math.ceil(-head_start / saved))), math.inf
    if saved == 0:
        return (1.0 if head_start >= 0 else math.inf), math.inf
    last = math.floor(head_start / -saved)
    return (1.0, float(last)) if last >= 1 else (math.inf, math.inf)


def once(frame: pd.DataFrame, method: str, network: str) -> dict[str, float]:
    """What is paid once, by metric: the meta-training of the learned optimizer, or a search for a kind of network."""
    part, model = ("meta-training", "") if method == LEARNED else ("search", network)
    mine = frame[(frame["part"] == part) & (frame["model"] == model) & (frame["method"] == method)]
    return dict(zip(mine["metric"], mine["value"], strict=True))


def value_of(frame: pd.DataFrame, part: str, model: str, method: str, metric: str) -> float | None:
    """A value of the table, or None where there is no such row."""
    at = (frame["part"] == part) & (frame["model"] == model) & (frame["method"] == method)
    values = frame.loc[at & (frame["metric"] == metric), "value"]
    return None if values.empty else float(values.iloc[0])


def derived(rows: Sequence[Mapping[str, Any]], short: int, drop: float) -> Iterator[dict[str, Any]]:
    """Rows of what each way needs to reach each target, and of the models after which meta-training has paid.

    A cost that is infinite says that the way never reaches the target; where either way never does, no models to break
    even are given.

    Args:
        rows: All others of the table.
        short: Steps of the short run.
        drop: The share of clean accuracy that a model may lose.
    """
    frame = pd.DataFrame(rows)
    about = {row["method"]: row for row in rows}
    ways = [method for method in names(frame, "method") if method != BEFORE]
    for model, network in {row["model"]: row["network"] for row in rows if row["part"] == BEFORE}.items():
        for part, target in targets(frame, model, short).items():
            marks = {method: reached(curve(frame, model, method), target, drop) for method in ways}
            empty = {"seed": None, "split": "", "attack": "", "eps": None, "n": 1, "scope": ""}

            def row(method: str, metric: str, value: float, common: dict = {"part": part, "model": model} | empty,
                    marks: dict = marks, network: str = network) -> dict:  # fmt: skip
                step = marks[method].step if marks[method] else None
                own = {"network": network, "step": step, "metric": metric, "value": value}
                return about[method] | common | own

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
                            once(frame, LEARNED, network)[metric], marks[LEARNED].cost[metric],
                            once(frame, method, network)[metric] * counts, marks[method].cost[metric],
                        )  # fmt: skip
                        yield row(method, f"{FIRST} in {metric}, {words}", first)
                        yield row(method, f"{LAST} in {metric}, {words}", last)
