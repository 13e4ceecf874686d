"""Numbers of recorded runs for a claim: accuracies in per cent, differences in points, a value for each network.

`columns` choose rows by column, as `results.select` does: part="patch", network="dense", model=[...], learned=0.
A Series is indexed by what differs among part, model and method (by model where nothing does), so that two of them
subtract network by network, and `.min()`, `.max()`, `.mean()` or `.item()` makes one number of it.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from metarobust.errors import InputError, choose
from metarobust.lab import results
from metarobust.lab.paired import holm, paired
from metarobust.lab.results import GROUP, RECORDED, accuracy, intervals, recorded, select
from metarobust.storage import read_json


def acc(run: str, method: str | list[str], metric: str = "robust", **columns: Any) -> pd.Series:
    """Mean accuracy over seeds. `split`, `step` and `scope` go to `results.accuracy`, the rest chooses rows."""
    return _short(100 * intervals(_accuracy(run, metric, method=method, **columns))["mean"])


def spread(run: str, method: str | list[str], metric: str = "robust", **columns: Any) -> pd.Series:
    """Half the width of the 95 % interval over seeds."""
    return _short(100 * intervals(_accuracy(run, metric, method=method, **columns))["half"])


def best(run: str, metric: str = "robust", *, by: str = "both", learned: bool = False, **columns: Any) -> pd.Series:
    """On each network the accuracy of the best method, of tiers 0, 1 and 2 without learning if nothing else is said.

    Args:
        run: recorded run.
        metric: "robust" or "clean": what is returned.
        by: what is best: "robust", "clean" or "both", their mean.
        learned: whether learned optimizers count, too.
        columns: rows to choose from, such as tier="adversarial".
    """
    choose(by, ("both", "robust", "clean"), "way to be best")
    columns = {"tier": list(results.PLAIN), "learned": None if learned else 0} | columns
    means = pd.DataFrame({one: intervals(_accuracy(run, one, **columns))["mean"] for one in ("clean", "robust")})
    score = means.sum(axis=1) if by == "both" else means[by]
    winners = score.groupby(level=GROUP[:2], sort=False).idxmax()
    return _short(100 * means.loc[winners, metric].droplevel("method"))


def gap(run: str, method: str, rival: str, metric: str = "robust", **columns: Any) -> pd.Series:
    """Mean difference of two methods on the same seeds."""
    return acc(run, method, metric, **columns) - acc(run, rival, metric, **columns)


def p_value(run: str, method: str, rival: str, metric: str = "robust", **columns: Any) -> pd.Series:
    """Of the paired t-test over seeds; for several networks raised by Holm's correction."""
    ours, theirs = (_accuracy(run, metric, method=one, **columns).droplevel("method") for one in (method, rival))
    networks = ours.groupby(level=GROUP[:2], sort=False)
    p_values = pd.Series({key: paired(values, theirs.loc[key]).p_t for key, values in networks}).rename_axis(GROUP[:2])
    return _short(pd.Series(holm(p_values.tolist()), index=p_values.index))


def made(run: str, method: str | list[str] | None = None, **columns: Any) -> float:
    """The most adversarial examples that a method made in one training."""
    rows = select(recorded(run).frame, metric="adversarial examples", method=method, **columns)
    return float(rows["value"].max())


def lowered(run: str, method: str | list[str] | None = None, **columns: Any) -> pd.Series:
    """By how much stronger attacks lower a robust accuracy after the last step, mean over seeds, by meta-seed."""
    falls = results.lowered(select(recorded(run).frame, method=method, **columns))
    if falls.empty:
        raise InputError(f"{run}: nothing here was measured by two PGDs and by the standard ensemble")
    falls = falls[falls["step"] == falls.groupby(GROUP)["step"].transform("max")]
    return 100 * falls.groupby([*GROUP, "meta_seed"], sort=False, dropna=False)["value"].mean()


def value(run: str, column: str = "value", **columns: Any) -> float:
    """Mean of a column of numbers, for instance of a comparison with other libraries."""
    return float(select(recorded(run).frame, **columns)[column].mean())


def fact(run: str, *path: str | int, file: str = "manifest.json") -> Any:
    """What a JSON file of a recorded run says: fact(run, "spec", "parts", 0, "steps")."""
    entry = recorded(run).manifest if file == "manifest.json" else read_json(RECORDED / run / file)
    for key in path:
        entry = entry[key if isinstance(entry, list) else choose(key, entry, f"entry of {file} of {run}")]
    return entry


def _accuracy(run: str, metric: str, **columns: Any) -> pd.Series:
    asked = {name: columns.pop(name) for name in ("split", "step", "scope") if name in columns}
    return accuracy(select(recorded(run).frame, **columns), metric, **asked)


def _short(values: pd.Series) -> pd.Series:
    """Without the levels in which nothing differs."""
    same = [level for level in range(values.index.nlevels) if values.index.get_level_values(level).nunique() == 1]
    same = [level for level in same if level != 1 or len(same) < values.index.nlevels]  # the network is the last to go
    return values.droplevel(same) if values.index.nlevels > 1 else values
