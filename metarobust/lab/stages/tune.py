"""The second stage: every baseline is tuned over its whole grid, on validation networks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metarobust.lab.attacked import under_quick
from metarobust.lab.baselines import Baseline, as_hyper, fit_baseline, repeat, settings
from metarobust.lab.engine import Rows
from metarobust.lab.spec import network_kind
from metarobust.lab.stages.context import Context


def tune(context: Context, name: str) -> Rows:
    """Every point of a baseline's grid with its scores: clean and robust accuracy on validation networks, weighed as
    the meta-loss of the learned optimizers weighs them.

    One score for dense and one for convolutional networks: a learned rule sees which it has; so may a plain one. With
    `deciding_seeds`, the best of each kind are scored `again`, on models that had no part in choosing them: the highest
    of many noisy scores is partly luck, and a grid of 200 points has much of it. (Successive halving with two rungs:
    Jamieson and Talwalkar 2016, "Non-stochastic best arm identification".)
    """
    spec, method = context.spec, context.baselines[name]
    points = list(settings(method))
    scores = scored(context, method, points, spec.validation, spec.tuning_seeds)
    rows = [point | {f"score {kind}": values[i] for kind, values in scores.items()} for i, point in enumerate(points)]
    for kind, values in scores.items() if spec.deciding_seeds else ():
        best = sorted(range(len(points)), key=lambda i: -values[i])[: spec.finalists]
        networks = [name for name in spec.validation if network_kind(name) == kind]
        again = scored(context, method, [points[i] for i in best], networks, spec.deciding_seeds)
        for i, value in zip(best, again[kind], strict=True):
            rows[i][f"again {kind}"] = value
    return rows


def scored(
    context: Context,
    method: Baseline,
    points: Sequence[Mapping[str, float]],
    networks: Sequence[str],
    seeds: tuple[int, ...],
) -> dict[str, list[float]]:
    """By kind of network, a score for each point: a mean over networks of that kind and seeds."""
    scores: dict[str, list[Tensor]] = {}
    images = context.pool[context.held_back]
    for name in networks:
        tasks = context.tasks(name, seeds, without=context.held_back)
        hyper = as_hyper(points, len(tasks), tasks.params)
        params, _ = fit_baseline(repeat(tasks, len(points)), method, hyper, context.inner, context.generator(name, 1))
        rng = context.generator(name, 2)
        shares = under_quick(tasks, params, images, eps=context.spec.eps, steps=10, generator=rng)
        both = torch.tensor(shares["clean"]).lerp(torch.tensor(shares["robust"]), context.part.weight)
        scores.setdefault(network_kind(name), []).append(both.nan_to_num().view(len(points), -1).mean(1))
    return {
        kind: [float(sum(values[i] for values in each) / len(each)) for i in range(len(points))]
        for kind, each in scores.items()
    }


def best_point(rows: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """The point of a grid that did best on validation networks of this kind: of those scored again, if any were."""
    again = [row for row in rows if f"again {kind}" in row]
    return max(again or rows, key=lambda row: row[f"{'again' if again else 'score'} {kind}"])


def finalists(rows: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, float]]:
    """The points that were scored again, with their `score` and `again`; best of the first round first."""
    chosen = sorted((row for row in rows if f"again {kind}" in row), key=lambda row: -row[f"score {kind}"])
    return [
        {key: value for key, value in row.items() if " " not in key}
        | {word: round(row[f"{word} {kind}"], 4) for word in ("score", "again")}
        for row in chosen
    ]
