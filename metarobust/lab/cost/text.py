"""The experiment `cost` as text. Clean accuracy always stands beside robust, and "never" is said aloud."""

import math
from collections.abc import Sequence

from metarobust.errors import choose
from metarobust.lab.cost.break_even import FIRST, LAST, SEARCH, TARGETS, curve, once
from metarobust.lab.cost.once import COSTS, EVALUATIONS, EXAMPLES, SECONDS
from metarobust.lab.results import as_rows
from metarobust.lab.table import BEFORE, LEARNED, Row, names


def amount(value: float) -> str:
    """A cost in three figures: 0.042, 1.27, 153, 20.5 k, 8.35 M; never."""
    if math.isinf(value):
        return "never"
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            value, sign = value / (1e3 if letter == " k" else size), letter
            break
    else:
        sign = ""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}{sign}"


def models(first: float, last: float) -> str:
    """A number of models after which it pays, and until when."""
    if math.isinf(first):
        return "never"
    return f"{first:,.0f}" if math.isinf(last) else f"{first:,.0f} to {last:,.0f}"


def networks(rows: Sequence[Row]) -> list[str]:
    """The networks that were patched."""
    return names([row for row in rows if row["part"] == BEFORE], "model")


def setting(rows: Sequence[Row]) -> str:
    """In a line: what was patched, with how many seeds, how it was attacked."""
    here = [row for row in rows if row["attack"].startswith("worst")]
    seeds = len({row["seed"] for row in here})
    return (
        f"Cost of patching: {here[0]['dataset']}, {seeds} seeds; Linf eps {here[0]['eps']:g}, {here[0]['attack']}, "
        f"{here[0]['n']} test images"
    )


def value_of(rows: Sequence[Row], part: str, model: str, method: str, metric: str) -> float | None:
    """A value of the table, or None where there is no such row."""
    wanted = (part, model, method, metric)
    found = (row["value"] for row in rows if (row["part"], row["model"], row["method"], row["metric"]) == wanted)
    return next(found, None)


def paid(rows: Sequence[Row], part: str, model: str, method: str, metric: str, counts: bool) -> str:
    """After how many models the learned optimizer has paid against a baseline, in words of a table's cell."""
    first, last = (
        value_of(rows, part, model, method, f"{which} in {metric}, {SEARCH[counts]}") for which in (FIRST, LAST)
    )
    return "" if first is None or last is None else models(first, last)


def needs(rows: Sequence[Row], part: str, model: str) -> list[list[str]]:
    """A header, and a line a way: what a model needs to reach a target, and after how many meta-training has paid."""
    head = ["way", "step", "evaluations", "seconds", "adv. ex."]
    head += ["pays after, by evaluations", "without search", "by seconds", "without search"]
    lines = [head]
    for method in (name for name in names(rows, "method") if name != BEFORE):
        cells = [
            value_of(rows, part, model, method, f"{metric} to reach it") for metric in (EVALUATIONS, SECONDS, EXAMPLES)
        ]
        steps = [row["step"] for row in rows if (row["part"], row["model"], row["method"]) == (part, model, method)]
        step = "never" if steps[0] is None else str(steps[0])
        ends = [
            paid(rows, part, model, method, metric, counts) for metric in (EVALUATIONS, SECONDS) for counts in SEARCH
        ]
        lines.append([method, step, *("" if step == "never" else amount(cell) for cell in cells), *ends])
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text in columns, the first to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def paid_once(rows: Sequence[Row]) -> list[list[str]]:
    """A header, and a line for meta-training and for each search: what is paid once."""
    lines = [["paid once", *COSTS]]
    for row in rows:
        if row["part"] in ("meta-training", "search") and row["metric"] == SECONDS:
            what = f"{row['part']} {row['method']} {row['model']}".strip()
            lines.append([what, *(amount(once(rows, row["method"], row["model"])[metric]) for metric in COSTS)])
    return lines


def table(rows: Sequence[Row]) -> str:
    """What is paid once; then for each network accuracy at each mark, and for each target what it takes."""
    rows = as_rows(rows)
    text = [setting(rows), "", *aligned(paid_once(rows))]
    for model in networks(rows):
        ways = [name for name in names(rows, "method") if name != BEFORE]
        marks = {way: curve(rows, model, way) for way in ways}
        lines = [[f"{model}, clean/robust % after", *(str(mark.step) for mark in marks[LEARNED])]]
        lines += [
            [way, *(f"{100 * mark.clean:.0f}/{100 * mark.robust:.1f}" for mark in found)]
            for way, found in marks.items()
        ]
        text += ["", *aligned(lines)]
        for part, words in TARGETS.items():
            level = value_of(rows, part, model, LEARNED, "target robust accuracy")
            text += ["", f"{model}: to {100 * level:.1f} % robust, {words}", *aligned(needs(rows, part, model))]
    return "\n".join([*text, "", *notes()])


def notes() -> list[str]:
    """What a reader of the numbers has to know."""
    return [
        "pays after: models from which on meta-training and learned patches cost no more than a way's search and runs;",
        "n to m: for so many models only; never: for no number; empty: one of the two does not reach the target.",
        "A pass of an image through a model, forward or backward, is one evaluation. Seconds are measured.",
        "A target counts as reached by models that lose at most 5 points of clean accuracy; means over seeds.",
    ]


def brief(rows: Sequence[Row]) -> str:
    """For each network, against each baseline, what it takes to come level with the learned optimizer."""
    rows = as_rows(rows)
    part = "as-learned"
    lines = [setting(rows)]
    for model in networks(rows):
        level = value_of(rows, part, model, LEARNED, "target robust accuracy")
        lines += [f"{model}: to {100 * level:.1f} % robust, {TARGETS[part]}", *aligned(needs(rows, part, model))]
    return "\n".join([*lines, *notes()])


def markdown(rows: Sequence[Row], part: str) -> str:
    """A target as Markdown tables, one a network; or what is paid once, for `meta-training` or `search`.

    Raises InputError for another part.
    """
    rows = as_rows(rows)
    choose(part, (*TARGETS, "meta-training", "search"), "part of this table")
    tables = {"": paid_once(rows)} if part not in TARGETS else {m: needs(rows, part, m) for m in networks(rows)}
    blocks = []
    for model, (head, *lines) in tables.items():
        head = [f"{model}: {head[0]}" if model else head[0], *head[1:]]
        blocks.append("\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]))
    return "\n\n".join(blocks)
