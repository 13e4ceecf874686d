"""The experiment `cost` as text. Clean accuracy always stands beside robust, and "never" is said aloud."""

import math

import pandas as pd

from metarobust.errors import choose
from metarobust.lab.cost.payback import (
    COSTS,
    EVALUATIONS,
    EXAMPLES,
    FIRST,
    LAST,
    SEARCH,
    SECONDS,
    TARGETS,
    curve,
    once,
    value_of,
)
from metarobust.lab.results import BEFORE, LEARNED, names, to_markdown, to_text

NOTES = """\
pays after: models from which on meta-training and learned patches cost no more than a way's search and runs;
n to m: for so many models only; never: for no number; empty: one of the two does not reach the target.
A pass of an image through a model, forward or backward, is one evaluation. Seconds are measured.
A target counts as reached by models that lose at most 5 points of clean accuracy; means over seeds."""


def amount(value: float) -> str:
    """A cost in three figures: 0.042, 1.27, 153, 20.5 k, 8.35 M; never."""
    if math.isinf(value):
        return "never"
    sign = ""
    for size, unit, letter in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if value >= size:
            value, sign = value / unit, letter
            break
    return "0" if value == 0 else f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}{sign}"


def models(first: float, last: float) -> str:
    """A number of models after which it pays, and until when."""
    if math.isinf(first):
        return "never"
    return f"{first:,.0f}" if math.isinf(last) else f"{first:,.0f} to {last:,.0f}"


def networks(frame: pd.DataFrame) -> list[str]:
    """The networks that were patched."""
    return names(frame[frame["part"] == BEFORE], "model")


def setting(frame: pd.DataFrame) -> str:
    """In a line: what was patched, with how many seeds, how it was attacked."""
    attacked = frame[frame["scope"] == "worst case"]
    first = attacked.iloc[0]
    return (
        f"Cost of patching: {first['dataset']}, {attacked['seed'].nunique()} seeds; Linf eps {first['eps']:g}, "
        f"{first['attack']}, {first['n']} test images"
    )


def ways(frame: pd.DataFrame) -> list[str]:
    """All ways of patching, in order."""
    return [name for name in names(frame, "method") if name != BEFORE]


def needs(frame: pd.DataFrame, part: str, model: str) -> list[list[str]]:
    """A header, and a line a way: what a model needs to reach a target, and after how many meta-training has paid."""
    head = ["way", "step", "evaluations", "seconds", "adv. ex."]
    lines = [[*head, "pays after, by evaluations", "without search", "by seconds", "without search"]]
    frame = frame[(frame["part"] == part) & (frame["model"] == model)]
    for method in names(frame, "method"):
        step = frame.loc[frame["method"] == method, "step"].iloc[0]
        costs = [value_of(frame, part, model, method, f"{one} to reach it") for one in (EVALUATIONS, SECONDS, EXAMPLES)]
        ends = []
        for metric in (EVALUATIONS, SECONDS):
            for words in SEARCH.values():
                first, last = (
                    value_of(frame, part, model, method, f"{end} in {metric}, {words}") for end in (FIRST, LAST)
                )
                ends.append("" if first is None or last is None else models(first, last))
        cells = ["never", "", "", ""] if pd.isna(step) else [str(int(step)), *map(amount, costs)]
        lines.append([method, *cells, *ends])
    return lines


def paid_once(frame: pd.DataFrame) -> list[list[str]]:
    """A header, and a line for meta-training and for each search: what is paid once."""
    paid = frame[frame["part"].isin(["meta-training", "search"]) & (frame["metric"] == SECONDS)]
    lines = [["paid once", *COSTS]]
    for part, method, model in zip(paid["part"], paid["method"], paid["model"], strict=True):
        costs = once(frame, method, model)
        lines.append([f"{part} {method} {model}".strip(), *(amount(costs[metric]) for metric in COSTS)])
    return lines


def _target(frame: pd.DataFrame, part: str, model: str) -> str:
    """A target on a network: how robust that is, and what each way needs."""
    level = value_of(frame, part, model, LEARNED, "target robust accuracy") or 0.0
    title = f"{model}: to {100 * level:.1f} % robust, {TARGETS[part]}"
    return f"{title}\n{to_text(needs(frame, part, model), right=True)}"


def table(frame: pd.DataFrame) -> str:
    """What is paid once; then for each network accuracy at each mark, and for each target what it takes."""
    blocks = [setting(frame), to_text(paid_once(frame), right=True)]
    for model in networks(frame):
        marks = {way: curve(frame, model, way) for way in ways(frame)}
        lines = [[f"{model}, clean/robust % after", *(str(mark.step) for mark in marks[LEARNED])]]
        for way, each in marks.items():
            lines.append([way, *(f"{100 * mark.clean:.0f}/{100 * mark.robust:.1f}" for mark in each)])
        blocks += [to_text(lines, right=True), *(_target(frame, part, model) for part in TARGETS)]
    return "\n\n".join([*blocks, NOTES])


def brief(frame: pd.DataFrame) -> str:
    """For each network, against each baseline, what it takes to come level with the learned optimizer."""
    blocks = [_target(frame, "as-learned", model) for model in networks(frame)]
    return "\n".join([setting(frame), *blocks, NOTES])


def markdown(frame: pd.DataFrame, part: str) -> str:
    """A target as Markdown tables, one a network; or what is paid once, for `meta-training` or `search`.

    Raises:
        InputError: Another part.
    """
    choose(part, (*TARGETS, "meta-training", "search"), "part of this table")
    if part not in TARGETS:
        return to_markdown(paid_once(frame))
    tables = []
    for model in networks(frame):
        head, *lines = needs(frame, part, model)
        tables.append(to_markdown([[f"{model}: {head[0]}", *head[1:]], *lines]))
    return "\n\n".join(tables)
