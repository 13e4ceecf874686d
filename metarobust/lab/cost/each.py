"""What each step of a patch costs and brings, in the experiment `cost`.

Accuracies are of all seeds' models, trained side by side; passes and adversarial examples are counted there and divided
by their number. Seconds are of one model alone, as somebody would patch it.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metarobust.lab.baselines import as_hyper, fit_baseline
from metarobust.lab.cost.one_off import Cost, Setting
from metarobust.lab.cost.payback import SECONDS
from metarobust.lab.engine import Rows
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import BEFORE, LEARNED
from metarobust.lab.spec import network_kind, slug
from metarobust.lab.stages.evaluate import accuracies, checks, measured
from metarobust.lab.stages.tune import best_point
from metarobust.tasks import Tasks
from metarobust.training import Inner, Watch, fit_learned


def before(setting: Setting, network: str) -> Rows:
    """The models before the first step."""
    tasks = setting.tasks(network, setting.cost.seeds)
    return _accuracies(setting, setting.row("before", network, BEFORE, 0), tasks, tasks.params)


def steps(setting: Setting, network: str, method: str) -> Rows:
    """One way on one network: accuracies at each mark, and what a model has cost until then, all but seconds."""
    rows: Rows = []
    tasks = setting.tasks(network, setting.cost.seeds)
    for part, horizon, marks in setting.cost.runs():
        tally, seen = Passes(), {}

        def watch(step: int, params: Tensor, made: int, tally: Passes = tally, marks: Any = marks, seen: Any = seen):
            if step in marks:
                seen[step] = params, Cost(0.0, tally.evaluations / len(tasks), made / len(tasks))

        way, tier = _way(setting, network, method, horizon)
        way(counted(tasks, tally), generator=setting.generator(network, 4), watch=watch)
        for step, (params, cost) in seen.items():
            common = setting.row(part, network, method, step, tier)
            rows += _accuracies(setting, common, tasks, params)
            rows += [row for row in setting.cost_rows(common, cost, len(tasks)) if row["metric"] != SECONDS]
    return rows


def seconds(setting: Setting, network: str) -> Rows:
    """The median time that one model alone takes to each mark, by every way.

    The ways take turns, and each round begins with another, so that a busy moment hits all alike. A first round, which
    warms up, does not count.
    """
    spec, names = setting.cost, [LEARNED, *setting.rivals]
    task = setting.tasks(network, spec.seeds[:1])
    taken: dict[tuple[str, int], list[float]] = {}
    tiers = {}
    for turn in range(-1, spec.rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            way, tiers[name] = _way(setting, network, name, max(spec.horizons))
            began = setting.clock()

            def watch(step: int, params: Tensor, made: int, name: str = name, turn: int = turn, began: float = began):
                if step in spec.marks and turn >= 0:
                    taken.setdefault((name, step), []).append(setting.clock() - began)

            way(task, generator=setting.generator(network, 4), watch=watch)
    return [
        setting.row(part, network, name, mark, tiers[name])
        | {"metric": SECONDS, "value": median(taken[name, mark]), "n": spec.rounds}
        for part, _, marks in spec.runs()
        for name, mark in product(names, marks)
    ]


def _way(setting: Setting, network: str, method: str, horizon: int) -> tuple[Callable[..., Any], str]:
    """A function of tasks, generator and watch that patches in `horizon` steps, and the tier of the method."""
    inner = Inner(horizon, setting.cost.batch_size)
    if method == LEARNED:
        return partial(fit_learned, optimizer=setting.learned, numbers=inner), ""
    rival = setting.rivals[method]
    searched = setting.worker.rows(f"search.{slug(method)}.{network_kind(network)}")
    best = best_point([row for row in searched if f"score {horizon}" in row], str(horizon))

    def train(tasks: Tasks, generator: torch.Generator, watch: Watch) -> None:
        hyper = as_hyper([{key: best[key] for key in rival.grid}], len(tasks), tasks.params)
        fit_baseline(tasks, rival, hyper, inner, generator, watch)

    return train, rival.tier


def _accuracies(setting: Setting, common: dict[str, Any], tasks: Tasks, params: Tensor) -> Rows:
    """Rows of clean and robust accuracy, one a seed; and at the end of a run what the checks say of one model."""
    rng = setting.generator(common["model"], 5)
    rows = accuracies(setting, common, measured(setting, tasks, params, setting.test, rng), len(setting.test))
    if setting.part.measures == "standard" and common["step"] in (0, *setting.cost.horizons):
        rows.append(common | checks(setting, tasks, params[0]))
    return rows
