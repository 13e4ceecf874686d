"""After how many patched models does meta-training pay? Out of the table of the experiment `cost`, and of nothing else.

With M the cost of meta-training, S that of a baseline's search, and c, b what either needs to bring one model to the
target, the learned optimizer has paid after n models where

    M + n c  <=  S + n b

If it needs less for each model, that holds from some n on, and for ever. If it needs more, it holds at first at best,
as long as the search that it saves outweighs that: then there is a last n as well. Often there is none at all.

What a model needs is its cost at the first step whose means over seeds reach the target, in whichever of the two runs.
Settings that were found in trials before, on either side, are not in any of these numbers.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from metarobust.errors import InputError, choose
from metarobust.lab.results import BEFORE, LEARNED, REFERENCE, names, select, to_markdown, to_text

SECONDS, EVALUATIONS, EXAMPLES = COSTS = "seconds", "model evaluations", "adversarial examples"
CLEAN, ROBUST = "clean accuracy", "robust accuracy"
SHORT, LONG = "short", "long"
MAX_CLEAN_DROP = 0.05
"""A target is reached only by a model that has not lost more of its clean accuracy."""
TARGETS = {
    "half-gain": "half of what PGD-7 training gains in its long run",
    "most-gain": "90 % of what PGD-7 training gains in its long run",
    "as-learned": "what the learned optimizer reaches in its own number of steps",
}
"""The targets by their part in the table."""
TARGET = "target robust accuracy"
SEARCH = {"search counted": 1, "search left out": 0}
FIRST, LAST = "models to break even in {}, {}", "models until it is dearer again in {}, {}"
NOTES = """\
pays after: models from which on meta-training and learned patches cost no more than a way's search and runs;
n to m: for so many models only; never: for no number; empty: one of the two does not reach the target.
A pass of an image through a model, forward or backward, is one evaluation. Seconds are measured.
A target counts as reached by models that lose at most 5 points of clean accuracy; means over seeds."""


def ways(frame: pd.DataFrame) -> list[str]:
    """All ways of patching, in order."""
    return [name for name in names(frame, "method") if name != BEFORE]


def networks(frame: pd.DataFrame) -> list[str]:
    """The networks that were patched."""
    return names(frame[frame["part"] == BEFORE], "model")


def curve(frame: pd.DataFrame, model: str, method: str) -> pd.DataFrame:
    """A way on a network as it goes on.

    Returns:
        A row for each step that was measured, 0 for the models before the first: `clean accuracy` and `robust accuracy`
        as means over seeds, and what one model has cost until there, by each of `COSTS`.

    Raises:
        InputError: That way was not measured on that network.
    """
    rows = frame[(frame["model"] == model) & frame["part"].isin([BEFORE, SHORT, LONG])]
    if method not in names(rows, "method"):
        raise InputError(f"the results hold no curve of {method!r} on {model!r}: check the method and the network")
    rows = rows[rows["method"].isin([BEFORE, method]) & ((rows["metric"] != ROBUST) | (rows["scope"] == "worst case"))]
    steps = rows.pivot_table(index=rows["step"].astype(int), columns="metric", values="value")
    return steps.fillna(dict.fromkeys(COSTS, 0.0))


def once(frame: pd.DataFrame, method: str, network: str) -> pd.Series:
    """What is paid once, by metric: the meta-training of the learned optimizer, or a search for a kind of network."""
    part, model = ("meta-training", "") if method == LEARNED else ("search", network)
    return select(frame, part=part, model=model, method=method).set_index("metric")["value"]


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


def payback(frame: pd.DataFrame, part: str, model: str) -> pd.DataFrame:
    """What each way needs to reach a target on a network, and after how many models meta-training has paid.

    Returns:
        A row a way, with the `step` that reaches the target (missing where none does), the target, each cost "to reach
        it" (inf where none does), and the numbers `FIRST` and `LAST` of `break_even`, by metric, with the search
        counted or left out; these are missing where the way or the learned optimizer does not reach the target.
    """
    curves = {way: curve(frame, model, way) for way in ways(frame)}
    before, *_, after = curves[REFERENCE][ROBUST]
    short = frame.loc[frame["part"] == SHORT, "step"].max()
    levels = before + 0.5 * (after - before), before + 0.9 * (after - before), curves[LEARNED].loc[short, ROBUST]
    level = dict(zip(TARGETS, levels, strict=True))[part]

    def first(steps: pd.DataFrame) -> pd.DataFrame:
        kept = steps[CLEAN] >= steps.loc[0, CLEAN] - MAX_CLEAN_DROP
        return steps[kept & (steps[ROBUST] >= level)].head(1)

    reached = pd.concat({way: first(steps) for way, steps in curves.items()}, names=["method"])
    table = reached[[*COSTS]].add_suffix(" to reach it").reset_index("step").reindex([*curves])
    table = table.fillna({name: math.inf for name in table if name != "step"}).assign(**{TARGET: level})
    network = names(select(frame, model=model), "network")[0]
    rivals = table.index[table["step"].notna() & (table.index != LEARNED) & (table["step"].notna()[LEARNED])]
    for metric, words in product(COSTS[:2], SEARCH):
        each, own = table[f"{metric} to reach it"], once(frame, LEARNED, network)[metric]
        for way in rivals:
            search = once(frame, way, network)[metric] * SEARCH[words]
            ends = break_even(own, each[LEARNED], search, each[way])
            table.loc[way, [FIRST.format(metric, words), LAST.format(metric, words)]] = ends
    return table


def derived(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `payback` for every network and target, from all others of the table."""
    frame, table = pd.DataFrame(rows), []
    about = {row["method"]: row for row in rows}
    empty = {"seed": None, "split": "", "attack": "", "eps": None, "n": 1, "scope": ""}
    for model, part in product(networks(frame), TARGETS):
        place = {"part": part, "model": model, "network": names(select(frame, model=model), "network")[0]}
        for method, values in payback(frame, part, model).iterrows():
            place["step"] = None if math.isnan(values["step"]) else int(values["step"])
            for metric, value in values.drop("step").dropna().items():
                table.append({**about[method], **empty, **place, "metric": metric, "value": value})
    return table


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
    """A number of models after which it pays, and until when; empty where one of the two never gets there."""
    if not math.isfinite(first):
        return "never" if math.isinf(first) else ""
    return f"{first:,.0f}" if math.isinf(last) else f"{first:,.0f} to {last:,.0f}"


def setting(frame: pd.DataFrame) -> str:
    """In a line: what was patched, with how many seeds, how it was attacked."""
    attacked = frame[frame["scope"] == "worst case"]
    first = attacked.iloc[0]
    return (
        f"Cost of patching: {first['dataset']}, {attacked['seed'].nunique()} seeds; Linf eps {first['eps']:g}, "
        f"{first['attack']}, {first['n']} test images"
    )


def paid_once(frame: pd.DataFrame) -> list[list[str]]:
    """A header, and a line for meta-training and for each search: what is paid once."""
    paid = frame[frame["part"].isin(["meta-training", "search"])]
    lines = [["paid once", *COSTS]]
    for part, method, model in paid[["part", "method", "model"]].drop_duplicates().itertuples(index=False):
        lines.append([f"{part} {method} {model}".strip(), *once(frame, method, model)[[*COSTS]].map(amount)])
    return lines


def bills(needs: pd.DataFrame) -> list[list[str]]:
    """A header, and a line a way: what `payback` says of it."""
    lines = [["way", "step", "evaluations", "seconds", "adv. ex."]]
    lines[0] += ["pays after, by evaluations", "without search", "by seconds", "without search"]
    for way, row in needs.iterrows():
        costs = [amount(row[f"{metric} to reach it"]) for metric in (EVALUATIONS, SECONDS, EXAMPLES)]
        cells = ["never", "", "", ""] if math.isnan(row["step"]) else [f"{row['step']:.0f}", *costs]
        for metric, words in product((EVALUATIONS, SECONDS), SEARCH):
            cells.append(models(*(row.get(end.format(metric, words), math.nan) for end in (FIRST, LAST))))
        lines.append([way, *cells])
    return lines


def target(frame: pd.DataFrame, part: str, model: str) -> str:
    """A target on a network: how robust that is, and what each way needs."""
    needs = payback(frame, part, model)
    title = f"{model}: to {100 * needs[TARGET].iloc[0]:.1f} % robust, {TARGETS[part]}"
    return f"{title}\n{to_text(bills(needs), right=True)}"


def table(frame: pd.DataFrame) -> str:
    """What is paid once; then for each network accuracy at each mark, and for each target what it takes."""
    blocks = [setting(frame), to_text(paid_once(frame), right=True)]
    for model in networks(frame):
        lines = [[f"{model}, clean/robust % after", *map(str, curve(frame, model, LEARNED).index)]]
        for way in ways(frame):
            shares = 100 * curve(frame, model, way)[[CLEAN, ROBUST]]
            lines.append([way, *(f"{clean:.0f}/{robust:.1f}" for _, clean, robust in shares.itertuples())])
        blocks += [to_text(lines, right=True), *(target(frame, part, model) for part in TARGETS)]
    return "\n\n".join([*blocks, NOTES])


def brief(frame: pd.DataFrame) -> str:
    """For each network, against each baseline, what it takes to come level with the learned optimizer."""
    blocks = [target(frame, "as-learned", model) for model in networks(frame)]
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
        head, *lines = bills(payback(frame, part, model))
        tables.append(to_markdown([[f"{model}: {head[0]}", *head[1:]], *lines]))
    return "\n\n".join(tables)
