"""The stages of a comparison: meta-train, tune, compare. Each is cut into units that can be resumed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarobust.evaluation import robust_masks, standard
from metarobust.lab.baselines import Baseline
from metarobust.lab.fit import as_hyper, fit_baseline
from metarobust.lab.learning import slug
from metarobust.lab.spec import OptimizerConfig
from metarobust.lab.table import BEFORE, REFERENCE, STANDARD
from metarobust.lab.tuning import Tuned, best_point, kind, score
from metarobust.learned import TIERS
from metarobust.tasks import Tasks
from metarobust.training import Watch, fit_learned


@dataclass(frozen=True)
class Unit:
    """A resumable piece of work. weight: its rough share of the time, for the estimate of what is left. needs: the
    names of units that have to be finished before it."""

    name: str
    compute: Callable[[], list[dict[str, Any]]]
    weight: int = 1
    needs: tuple[str, ...] = ()


class Stages(Tuned):
    """All units of one part, in order: meta-train, tune, compare."""

    def lessons(self) -> Iterator[Unit]:
        """The units that learn, in order. They take longest, so they come first."""
        for rule in self.part.rules:
            weight = 1 + rule.plan.episodes * sum(rule.plan.horizons) // len(rule.plan.horizons) // 60
            for seed in self.spec.meta_seeds:
                before = () if rule.begins is None else (self.named(self.before(rule), seed),)
                yield Unit(self.named(rule, seed), lambda r=rule, s=seed: self.learn(r, s), weight, before)

    def tuning(self) -> Iterator[Unit]:
        """The units that search for settings."""
        for method in self.methods:
            yield Unit(self.search(method), lambda m=method: self.tune(m), 2)

    def comparisons(self) -> Iterator[Unit]:
        """All other units, in order."""
        part = self.name
        learned = {rule.name: tuple(self.named(rule, seed) for seed in self.spec.meta_seeds) for rule in self.rules}
        for name in self.unseen:
            yield Unit(f"{part}.{name}.start", lambda n=name: self.start(n))
            for method in self.methods:
                yield Unit(
                    f"{part}.{name}.{slug(method.name)}", lambda n=name, m=method: self.compare(n, m),
                    needs=(self.search(method),),
                )  # fmt: skip
            for rule in self.rules:
                yield Unit(
                    f"{part}.{name}.{slug(rule.name)}", lambda n=name, r=rule: self.compare_learned(n, r), 2,
                    learned[rule.name],
                )  # fmt: skip
            if self.spec.strong_seeds and self.part.measures != "standard":
                needs = (*map(self.search, self.methods), *(each for names in learned.values() for each in names))
                yield Unit(f"{part}.{name}.standard", lambda n=name: self.strong(n), 4, needs)

    def search(self, method: Baseline) -> str:
        """The name of the unit that tunes a baseline."""
        return f"{self.name}.tune.{slug(method.name)}"

    @property
    def rules(self) -> tuple[OptimizerConfig, ...]:
        """All learned optimizers that are compared, with those that an earlier part has learned."""
        return (*self.part.rules, *self.part.uses)

    # 3. Comparing

    def start(self, name: str) -> list[dict[str, Any]]:
        """The models before the first step."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.rows(name, BEFORE, "", None, tasks, tasks.params, 0, 0)

    def compare(self, name: str, method: Baseline) -> list[dict[str, Any]]:
        """A tuned baseline on an unseen network."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.trace(name, method.name, method.tier, None, tasks, lambda w: self.fitted(name, method, tasks, w))

    def fitted(self, name: str, method: Baseline, tasks: Tasks, watch: Watch | None = None) -> tuple[Tensor, int]:
        """A network's tasks, trained by a baseline at the best point for networks of its kind."""
        best = best_point(self.run.rows(self.search(method)), kind(name))
        hyper = as_hyper([{key: best[key] for key in method.grid}], len(tasks), tasks.params)
        return fit_baseline(tasks, method, hyper, self.how, self.generator(name, 4), watch)

    def compare_learned(self, name: str, rule: OptimizerConfig) -> list[dict[str, Any]]:
        """The learned optimizers, one for each meta-seed, on an unseen network."""
        tasks = self.tasks(name, self.spec.seeds)
        tier = TIERS[rule.kind] if rule.inner == "clean" else "adversarial"
        rows = []
        for seed in self.spec.meta_seeds:
            learned = self.learned(rule, seed)
            rows += self.trace(
                name, rule.name, tier, seed, tasks,
                lambda watch, learned=learned: fit_learned(
                    tasks, learned, self.how, self.generator(name, 4), self.inner(rule), watch
                ),
            )  # fmt: skip
        return rows

    def trace(
        self,
        model: str,
        method: str,
        tier: str,
        meta_seed: int | None,
        tasks: Tasks,
        fit: Callable[[Watch], tuple[Tensor, int]],
    ) -> list[dict[str, Any]]:
        """The rows of a method at each mark on its way, and in the end."""
        marks: list[tuple[int, Tensor, int]] = []

        def watch(step: int, params: Tensor, made: int) -> None:
            if step in self.part.marks and step < self.part.steps:
                marks.append((step, params, made))

        params, made = fit(watch)
        found = [*marks, (self.part.steps, params, made)]
        return [row for step, at, so_far in found
                for row in self.rows(model, method, tier, meta_seed, tasks, at, step, so_far)]  # fmt: skip

    def strong(self, name: str) -> list[dict[str, Any]]:
        """The models that matter most once more, under the standard ensemble.

        Those before the first step, those of the plain rule that tuning puts first (no test decides), of adversarial
        training, and of the learned rules with their first meta-seed.
        """
        spec, tasks = self.spec, self.tasks(name, self.spec.seeds)
        plain = [method for method in self.methods if method.tier != "adversarial"]
        tuned = {m.name: self.run.rows(self.search(m)) for m in plain}
        first = max(plain, key=lambda m: score(best_point(tuned[m.name], kind(name)), kind(name)))
        models = [(BEFORE, "", None, tasks.params)] if self.part.trained else []
        for method in (first, *(method for method in self.methods if method.name == REFERENCE)):
            models.append((method.name, method.tier, None, self.fitted(name, method, tasks)[0]))
        for rule in self.rules:
            params, _ = fit_learned(tasks, self.learned(rule, spec.meta_seeds[0]), self.how, self.generator(name, 4))
            models.append((rule.name, TIERS[rule.kind], spec.meta_seeds[0], params))
        test, rows = self.test[: spec.strong_images], []
        attacks = standard(eps=spec.eps, classes=self.dataset.classes)
        for method, tier, meta_seed, params in models:
            for seed, one in list(zip(spec.seeds, params, strict=True))[: spec.strong_seeds]:
                generator = torch.Generator(self.device).manual_seed(seed)
                right = robust_masks(
                    tasks.predictor(one), test.images, test.labels, attacks, generator=generator, independent=False
                )
                rows.append(
                    self.common(name, method, tier, meta_seed, 0 if method == BEFORE else self.part.steps) | {
                        "seed": seed, "attack": f"{STANDARD}{', '.join(attack.name for attack in attacks)}",
                        "eps": spec.eps, "metric": "robust accuracy", "n": len(test),
                        "value": float(right["robust"].float().mean()),
                    }
                )  # fmt: skip
        return rows
