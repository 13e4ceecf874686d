"""The comparison as text: the whole of it, and the headline. Clean accuracy always stands beside robust."""

from collections.abc import Iterable, Sequence
from typing import Any

from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds

Row = dict[str, Any]

BEFORE, ADAM, LEARNED, JOINT, REFERENCE = "before", "adam", "learned", "learned, joint", "PGD-7 training"
ATTACKED = "adversarial"  # the tier of what makes adversarial examples in its steps
TITLES = {ADAM: "Adam"}
FLAGS = "flags of the checks"  # a metric: how many were raised; the row's attack says which
STANDARD = "standard: "
"""How the attack of such a row begins: the models that matter most were measured by more than two PGDs."""


def title(part: str) -> str:
    """What a part does, in words."""
    if trained(part):
        return "Patching trained models" + part.removeprefix("patch")
    if part == "robust":
        return "Training fresh models on adversarial images"
    few = part.removeprefix("train")
    return f"Training fresh models with {few}" if few else "Training fresh models"


def trained(part: str) -> bool:
    """Whether a part starts from trained, vulnerable models."""
    return part.startswith("patch")


def measured(rows: Iterable[Row], metric: str, split: str = "test") -> list[Row]:
    """The rows of `clean accuracy` or `robust accuracy`: robust is the worst case over the run's attacks.

    split: `train` for a model's own training images, else the test images, of which rows without a split are too.
    """
    return [
        row
        for row in rows
        if row["metric"] == metric
        and row["attack"].startswith(("none", "worst"))
        and (row["split"] == "train") == (split == "train")
    ]


def by_seed(rows: Iterable[Row], step: int | None = None) -> dict[int, float]:
    """Seed to value at a step, the last of these rows if None: a mean over what else differs, such as meta-seeds."""
    rows = list(rows)
    at = max((row["step"] for row in rows), default=0) if step is None else step
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["step"] == at:
            values.setdefault(row["seed"], []).append(row["value"])
    return {seed: sum(each) / len(each) for seed, each in values.items()}


def over(rows: Iterable[Row], metric: str) -> tuple[float, float]:
    """Mean over seeds, and the half-width of its 95 % interval, of `clean accuracy` or `robust accuracy`.

    Robust is the worst case over the ensemble, on test images, after the last step. A learned optimizer's value for a
    seed is its mean over meta-seeds, so that the interval is over seeds alone. Raises InputError where there is no such
    row.
    """
    found = by_seed(measured(rows, metric))
    if not found:
        raise InputError(f"the results hold no {metric} for what was asked: check part, model and method")
    return over_seeds(list(found.values()))


def pick(rows: Iterable[Row], part: str, model: str, method: str) -> list[Row]:
    """The rows of one part, network and method."""
    wanted = (part, model, method)
    return [row for row in rows if (row["part"], row["model"], row["method"]) == wanted]


def cell(rows: Sequence[Row]) -> str:
    """`clean/robust ±half-width`, in per cent."""
    (clean, _), (robust, half) = over(rows, "clean accuracy"), over(rows, "robust accuracy")
    return f"{100 * clean:.1f}/{100 * robust:.1f} ±{100 * half:.1f}"


def names(rows: Iterable[Row], key: str) -> list[str]:
    """The values of a column, in the order in which they first come."""
    return list(dict.fromkeys(row[key] for row in rows))


def setting(rows: Sequence[Row], part: str) -> str:
    """In a line: what was done, on what, with how many seeds, and how it was attacked.

    Raises InputError for an unknown part, and for one in which nothing was attacked.
    """
    here = [row for row in rows if row["part"] == choose(part, names(rows, "part"), "part of these results")]
    robust = next((row for row in here if row["attack"].startswith("worst")), None)
    if robust is None:
        raise InputError(f"part {part!r} holds no accuracy under attack; name a part in which models were attacked")
    seeds = len({row["seed"] for row in here if row["seed"] is not None})
    return (
        f"{title(part)}: {robust['dataset']}, {max(row['step'] for row in here)} steps, {seeds} seeds; "
        f"Linf eps {robust['eps']:g}, {robust['attack']}, {robust['n']} test images"
    )


def best_plain(rows: Sequence[Row], part: str, model: str, tiers: Sequence[str] = ("0", "1", "2")) -> str:
    """The method without adversarial examples and without learning that has the best mean of clean and robust here.

    Picked on the very results that it is shown in, so it flatters the plain rules, never the learned one.
    """
    here = [row for row in rows if (row["part"], row["model"]) == (part, model)]
    plain = [row for row in here if row["tier"] in tiers and not row["method"].startswith(LEARNED)]

    def score(method: str) -> float:
        found = pick(plain, part, model, method)
        return over(found, "clean accuracy")[0] + over(found, "robust accuracy")[0]

    return max(names(plain, "method"), key=score)


def headline(rows: Sequence[Row], part: str) -> list[list[str]]:
    """A header, and for each unseen network a line: before (patching), learned (joint too), best plain rule, Adam, PGD.

    What matters most stands first: a phone shows three columns, and the others after a swipe. Where adversarial
    training was done by several optimizers, the best of them stands in for it, picked as the best plain rule is.
    """
    here = [row for row in rows if row["part"] == part]
    there = set(names(here, "method"))
    first = [*([BEFORE] if trained(part) else []), *(name for name in (LEARNED, JOINT) if name in there)]
    last = [name for name in (ADAM, REFERENCE) if name in there]
    best = {"best plain rule": ("0", "1", "2")}
    attacked = {row["method"] for row in here if row["tier"] == ATTACKED and not row["method"].startswith(LEARNED)}
    if attacked and REFERENCE not in there:
        best["best adversarial training"] = (ATTACKED,)
    lines = [["unseen network", *first, *best, *(TITLES.get(name, name) for name in last)]]
    for model in names(here, "model"):
        line = [model, *(cell(pick(rows, part, model, method)) for method in first)]
        for tiers in best.values():
            method = best_plain(rows, part, model, tiers)  # which may be Adam
            line.append(f"{cell(pick(rows, part, model, method))} ({method})")
        lines.append([*line, *(cell(pick(rows, part, model, method)) for method in last)])
    return lines


def brief(rows: Sequence[Row]) -> str:
    """The headline as text for a terminal."""
    blocks = []
    for part in names(rows, "part"):
        lines = headline(rows, part)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = ["  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)) for line in lines]
        blocks.append("\n".join([setting(rows, part), *text]))
    inside = any(row["method"].startswith(LEARNED) and row["tier"] == ATTACKED for row in rows)
    who = "the learned rules and adversarial training make" if inside else "only PGD-7 training makes"
    note = f"clean/robust accuracy in %, ± 95 % over seeds; {who} adversarial examples"
    return "\n\n".join([*blocks, note])


def variants(rows: Sequence[Row], part: str) -> str:
    """Every learned rule as a line of a Markdown table: what the headline has no room for, where there are many."""
    here = [row for row in rows if row["part"] == part]
    models, methods = names(here, "model"), names(here, "method")
    lines = [["learned rule", *models]]
    for method in (name for name in methods if name.startswith(LEARNED)):
        lines.append([method, *(cell(pick(here, part, model, method)) for model in models)])
    return pipes(lines)


def markdown(rows: Sequence[Row], part: str) -> str:
    """The headline as a Markdown table."""
    return pipes(headline(rows, part))


def pipes(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first line is the header."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


def table(rows: Sequence[Row]) -> str:
    """The whole comparison, a block a part: a line a method, a column an unseen network."""
    lines: list[str] = []
    for part in names(rows, "part"):
        here = [row for row in rows if row["part"] == part]
        models = names(here, "model")
        head = "".join(f"{model:>{max(16, len(model) + 2)}}" for model in models)
        lines += [setting(rows, part), f"{'clean/robust accuracy in %, ± 95 %':35}{'tier':>5}{'adv. ex.':>10}{head}"]
        for name in names(here, "method"):
            mine = [row for row in here if row["method"] == name]
            made = max(row["value"] for row in mine if row["metric"] == "adversarial examples")
            cells = [f"{cell(pick(mine, part, model, name)):>{max(16, len(model) + 2)}}" for model in models]
            lines.append(f"{name:35}{mine[0]['tier'][:3]:>5}{made:>10,.0f}" + "".join(cells))
        lines.append("")
    return "\n".join(
        [*lines, "tier: what a method may look at; 0 clean gradients, 1 noised, 2 input gradients, adv attacks"]
    )
