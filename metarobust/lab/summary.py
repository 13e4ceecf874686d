"""The comparison as text: the whole of it, and the headline. Clean accuracy always stands beside robust."""

from collections.abc import Sequence

import pandas as pd

from metarobust.errors import InputError, choose
from metarobust.lab import results

TITLES = {results.ADAM: "Adam"}


class Cells(dict[tuple[str, str, str], str]):
    """`clean/robust ±half-width` in per cent, by part, network and method; InputError for what was not measured."""

    def __init__(self, frame: pd.DataFrame):
        clean, robust = (100 * results.intervals(results.accuracy(frame, metric)) for metric in ("clean", "robust"))
        for key, mean, half in robust.loc[robust.index.isin(clean.index)].itertuples():
            self[key] = f"{clean['mean'][key]:.1f}/{mean:.1f} ±{half:.1f}"

    def __missing__(self, key: tuple[str, str, str]) -> str:
        part, model, method = key
        raise InputError(f"these results hold no accuracy of {method!r} on {model} in part {part!r}")


def title(part: pd.DataFrame) -> str:
    """What a part does, in words, by its rows."""
    first = part.iloc[0]
    if first["start"] == "trained":
        return ", ".join(["Patching trained models", *first["part"].split(", ")[1:]])
    if first["part"] == "robust":
        return "Training fresh models on adversarial images"
    few = first["images_per_class"]
    return "Training fresh models" + ("" if pd.isna(few) else f" with {few} images a class")


def setting(frame: pd.DataFrame, part: str) -> str:
    """In a line: what was done, on what, with how many seeds, and how it was attacked.

    Raises:
        InputError: an unknown part, or one in which nothing was attacked.
    """
    rows = frame[frame["part"] == choose(part, results.names(frame, "part"), "part of these results")]
    attacked = rows[rows["scope"] == "worst case"]
    if attacked.empty:
        raise InputError(f"part {part!r} holds no accuracy under attack; name a part in which models were attacked")
    first = attacked.iloc[0]
    return (
        f"{title(rows)}: {first['dataset']}, {rows['step'].max()} steps, {rows['seed'].nunique()} seeds; "
        f"Linf eps {first['eps']:g}, {first['attack']}, {first['n']} test images"
    )


def headline(frame: pd.DataFrame, part: str) -> list[list[str]]:
    """A header, and for each unseen network a line: before (patching), learned (joint too), best baseline, Adam, PGD.

    What matters most stands first: a phone shows three columns, and the others after a swipe. Where adversarial
    training was done by several optimizers, the best of them stands in for it, picked as the best baseline is.
    """
    rows = results.select(frame, part=part)
    cells, methods = Cells(rows), results.names(rows, "method")
    before = [results.BEFORE] if rows["start"].iloc[0] == "trained" else []
    first = [*before, *(name for name in (results.LEARNED, results.JOINT, results.PENALTIES) if name in methods)]
    last = [name for name in (results.ADAM, results.REFERENCE) if name in methods]
    best = {"best plain rule": results.PLAIN}
    if results.REFERENCE not in methods and ((rows["tier"] == results.ATTACKED) & (rows["learned"] == 0)).any():
        best["best adversarial training"] = (results.ATTACKED,)
    rivals = {name: results.best_baselines(rows, tiers) for name, tiers in best.items()}  # one of them may be Adam
    rivals = {name: rival for name, rival in rivals.items() if len(rival)}  # a part may lack plain rules
    lines = [["unseen network", *first, *rivals, *(TITLES.get(name, name) for name in last)]]
    for model in results.names(rows, "model"):
        picked = [f"{cells[part, model, rival[part, model]]} ({rival[part, model]})" for rival in rivals.values()]
        line = [cells[part, model, method] for method in (*first, *last)]
        lines.append([model, *line[: len(first)], *picked, *line[len(first) :]])
    return lines


def brief(frame: pd.DataFrame) -> str:
    """The headline as text for a terminal."""
    parts = results.names(frame, "part")
    blocks = [f"{setting(frame, part)}\n{results.to_text(headline(frame, part))}" for part in parts]
    inside = ((frame["learned"] == 1) & (frame["tier"] == results.ATTACKED)).any()
    who = "the learned rules and adversarial training make" if inside else "only PGD-7 training makes"
    return "\n\n".join([*blocks, f"clean/robust accuracy in %, ± 95 % over seeds; {who} adversarial examples"])


def markdown(frame: pd.DataFrame, part: str) -> str:
    """The headline as a Markdown table."""
    return results.to_markdown(headline(frame, part))


def variants(frame: pd.DataFrame, part: str) -> str:
    """Every learned optimizer as a line of a Markdown table: what the headline has no room for."""
    rows = results.select(frame, part=part)
    cells, models = Cells(rows), results.names(rows, "model")
    methods = results.names(results.select(rows, learned=1), "method")
    lines = [[method, *(cells[part, model, method] for model in models)] for method in methods]
    return results.to_markdown([["learned rule", *models], *lines])


def table(frame: pd.DataFrame) -> str:
    """The whole comparison, a block a part: a line a method, a column an unseen network."""
    cells, lines = Cells(frame), []
    for part in results.names(frame, "part"):
        rows = frame[frame["part"] == part]
        models = results.names(rows, "model")
        lines += [setting(frame, part), f"{'clean/robust accuracy in %, ± 95 %':35}{'tier':>5}{'adv. ex.':>10}"]
        lines[-1] += _columns(models, models)
        made = rows[rows["metric"] == "adversarial examples"].groupby("method")["value"].max()
        tiers = rows.groupby("method")["tier"].first()
        for method in results.names(rows, "method"):
            values = [cells[part, model, method] for model in models]
            lines.append(f"{method:35}{tiers[method][:3]:>5}{made[method]:>10,.0f}{_columns(values, models)}")
        lines.append("")
    note = "tier: what a method may look at; 0 clean gradients, 1 noised, 2 input gradients, adv attacks"
    return "\n".join([*lines, note])


def _columns(values: Sequence[str], models: Sequence[str]) -> str:
    return "".join(f"{value:>{max(16, len(model) + 2)}}" for value, model in zip(values, models, strict=True))
