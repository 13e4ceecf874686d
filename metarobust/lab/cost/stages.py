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
from metarobust.lab.cost.once import SECONDS, Cost, Once
from metarobust.lab.cost.passes import Passes, counted
from metarobust.lab.results import BEFORE, LEARNED
from metarobust.lab.spec import network_kind as kind
from metarobust.lab.spec import slug
from metarobust.lab.stages.evaluate import checks, measured, metric
from metarobust.lab.stages.tune import best_point
from metarobust.learned import TIERS
from metarobust.tasks import Tasks
from metarobust.training import Inner, Watch, fit_learned


class Costs(Once):
    """All units of the experiment on one data set: what is paid once, and what is paid for each model."""

    def before(self, network: str) -> list[dict[str, Any]]:
        """The models before the first step."""
        tasks = self.stage.tasks(network, self.spec.seeds)
        return self.accuracies(self.common("before", network, BEFORE, 0), tasks, tasks.params)

    def steps(self, network: str, method: str) -> list[dict[str, Any]]:
        """One way on one network: accuracies at each mark, and what a model has cost until then, all but seconds."""
        spec, rows = self.spec, []
        tasks = self.stage.tasks(network, spec.seeds)
        for part, horizon, marks in spec.runs():
            tally, seen = Passes(), {}

            def watch(step: int, params: Tensor, made: int, tally=tally, marks=marks, seen=seen) -> None:
                if step in marks:
                    seen[step] = params, Cost(0.0, tally.evaluations / len(tasks), made / len(tasks))

            way, tier = self.way(network, method, horizon)
            way(counted(tasks, tally), generator=self.stage.generator(network, 4), watch=watch)
            for step, (params, cost) in seen.items():
                common = self.common(part, network, method, step, tier)
                rows += self.accuracies(common, tasks, params)
                rows += [row for row in self.rows(common, cost, len(tasks)) if row["metric"] != SECONDS]
        return rows

    def seconds(self, network: str) -> list[dict[str, Any]]:
        """The median time that one model alone takes to each mark, by every way.

        The ways take turns, and each round begins with another, so that a busy moment hits all alike. A first round,
        which warms up, does not count.
        """
        spec = self.spec
        task = self.stage.tasks(network, spec.seeds[:1])
        names = [LEARNED, *(method.name for method in self.rivals)]
        taken: dict[tuple[str, int], list[float]] = {}
        for turn in range(-1, spec.rounds):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                way, _ = self.way(network, name, max(spec.horizons))
                began = self.clock()

                def watch(step: int, params: Tensor, made: int, name=name, turn=turn, began=began) -> None:
                    if step in spec.marks and turn >= 0:
                        taken.setdefault((name, step), []).append(self.clock() - began)

                way(task, generator=self.stage.generator(network, 4), watch=watch)
        tiers = {method.name: method.tier for method in self.rivals} | {LEARNED: TIERS[self.card["kind"]]}
        rows = []
        for part, _, marks in spec.runs():
            for name, mark in product(names, marks):
                common = self.common(part, network, name, mark, tiers[name])
                rows.append(common | {"metric": SECONDS, "value": median(taken[name, mark]), "n": spec.rounds})
        return rows

    def way(self, network: str, method: str, horizon: int) -> tuple[Callable[..., Any], str]:
        """A function of tasks, generator and watch that patches in `horizon` steps, and the tier of the method."""
        how = Inner(horizon, self.spec.batch_size)
        if method == LEARNED:
            return partial(fit_learned, optimizer=self.learned, how=how), TIERS[self.card["kind"]]
        rival = next(each for each in self.rivals if each.name == method)
        found = self.worker.rows(f"search.{slug(method)}.{kind(network)}")
        best = best_point([row for row in found if f"score {horizon}" in row], str(horizon))

        def train(tasks: Tasks, generator: torch.Generator, watch: Watch) -> None:
            hyper = as_hyper([{key: best[key] for key in rival.grid}], len(tasks), tasks.params)
            fit_baseline(tasks, rival, hyper, how, generator, watch)

        return train, rival.tier

    def accuracies(self, common: dict[str, Any], tasks: Tasks, params: Tensor) -> list[dict[str, Any]]:
        """Rows of clean and robust accuracy, one a seed; and at the end of a run what the checks say of one model."""
        spec, test = self.spec, self.stage.test
        found = measured(self.stage, tasks, params, test, self.stage.generator(common["model"], 5))
        rows = [
            common | {
                "seed": seed, "attack": attack, "eps": eps, "metric": metric(eps), "value": value, "n": len(test),
                "scope": scope,
            }
            for attack, scope, eps, values in found
            for seed, value in zip(spec.seeds, values, strict=True)
        ]  # fmt: skip
        if spec.measures == "standard" and common["step"] in (0, *spec.horizons):
            rows.append(common | checks(self.stage, tasks, params[0]))
        return rows
