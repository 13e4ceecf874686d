"""The stages of a comparison: meta-train, tune, compare. Each is cut into units that can be resumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarobust.baselines import Method, methods, robust_methods
from metarobust.data import Dataset, balanced
from metarobust.errors import choose
from metarobust.evaluation import quick, standard, survivors
from metarobust.experiments.fit import Inner, Watch, as_hyper, fit_baseline, fit_learned, over_models, repeat, settings
from metarobust.experiments.learning import slug
from metarobust.experiments.measuring import Measured
from metarobust.experiments.spec import ALL, Part, Rule, Spec
from metarobust.experiments.table import BEFORE, REFERENCE, STANDARD
from metarobust.family import make_tasks, train_clean
from metarobust.learned import TIERS
from metarobust.meta import ALONE, Share, generator_of
from metarobust.results import Run
from metarobust.tasks import Tasks


@dataclass(frozen=True)
class Unit:
    """A resumable piece of work. weight: its rough share of the time, for the estimate of what is left."""

    name: str
    compute: Callable[[], list[dict[str, Any]]]
    weight: int = 1


class Stages(Measured):
    """All units of one part, in order: meta-train, tune, compare."""

    def __init__(
        self, spec: Spec, part: Part, run: Run | None, dataset: Dataset, device: torch.device, share: Share = ALONE
    ):
        super().__init__(spec, part, run, dataset, device, share)
        self.how = Inner(part.steps, part.batch_size)
        self._tasks: dict[tuple[str, tuple[int, ...], bool], Tasks] = {}
        self.name, self.unseen, self.per_class = (
            slug(part.name), part.unseen or spec.unseen, spec.per_class if part.per_class is None else part.per_class
        )  # fmt: skip
        known = methods(spec.eps, patching=part.trained, wide=spec.wide_grids)
        if part.robust:
            known = robust_methods(spec.eps, wide=spec.wide_grids) + [m for m in known if m.name in ("adam", "TRADES")]
        by_name = {method.name: method for method in known}
        self.methods = [by_name[choose(name, by_name, "baseline")] for name in part.methods or by_name]

    def lessons(self) -> Iterator[Unit]:
        """The units that learn, in order. They come first, since each is done by all processes together."""
        for rule in self.part.rules:
            weight = 1 + rule.plan.episodes * sum(rule.plan.horizons) // len(rule.plan.horizons) // 60
            for seed in self.spec.meta_seeds:
                yield Unit(self.named(rule, seed), lambda r=rule, s=seed: self.learn(r, s), weight)

    def tuning(self) -> Iterator[Unit]:
        """The units that search for settings. No comparison can be made before them."""
        for method in self.methods:
            yield Unit(f"{self.name}.tune.{slug(method.name)}", lambda m=method: self.tune(m), 2)

    def comparisons(self) -> Iterator[Unit]:
        """All other units, in order."""
        part = self.name
        for name in self.unseen:
            yield Unit(f"{part}.{name}.start", lambda n=name: self.start(n))
            for method in self.methods:
                yield Unit(f"{part}.{name}.{slug(method.name)}", lambda n=name, m=method: self.compare(n, m))
            for rule in self.rules:
                yield Unit(f"{part}.{name}.{slug(rule.name)}", lambda n=name, r=rule: self.compare_learned(n, r), 2)
            if self.spec.strong_seeds and self.part.measures != "standard":
                yield Unit(f"{part}.{name}.standard", lambda n=name: self.strong(n), 4)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All learned optimizers that are compared, with those that an earlier part has learned."""
        return (*self.part.rules, *self.part.uses)

    # 2. Tuning

    def tune(self, method: Method) -> list[dict[str, Any]]:
        """Every point of the grid with its scores: clean and robust accuracy on validation networks, weighed as the
        judge of the learned rules weighs them.

        One score for dense and one for convolutional networks: a learned rule sees which it has; so may a plain one.
        """
        points = list(settings(method))
        scores: dict[str, list[Tensor]] = {}
        for name in self.spec.validation:
            tasks = self.tasks(name, self.spec.tuning_seeds, without=self.held_back)
            hyper = as_hyper(points, len(tasks), tasks.params)
            params, _ = fit_baseline(repeat(tasks, len(points)), method, hyper, self.how, self.generator(name, 1))
            found = over_models(
                tasks, params, self.pool[self.held_back], quick(eps=self.spec.eps, steps=10), self.generator(name, 2),
                alone=False,
            )  # fmt: skip
            both = torch.tensor(found["clean"]).lerp(torch.tensor(found["robust"]), self.part.weight)
            scores.setdefault(kind(name), []).append(both.nan_to_num().view(len(points), -1).mean(1))
        return [
            point
            | {f"score {group}": float(sum(of[i] for of in found) / len(found)) for group, found in scores.items()}
            for i, point in enumerate(points)
        ]

    @cached_property
    def held_back(self) -> Tensor:
        """Indices of the images to tune on, in the pool: no test image is looked at before the end."""
        per_class = max(1, min(40, int(self.pool.labels.bincount().min()) // 3))
        return balanced(self.pool.labels, per_class, generator_of(self.device, 8))

    # 3. Comparing

    def tasks(self, architecture: str, seeds: tuple[int, ...], without: Tensor | None = None) -> Tasks:
        """One task a seed, with its own start and its own few images, which no meta-training saw.

        without: indices of the pool that a model to be patched was not trained on, since it is measured there. Models
        to patch take a while to train, and all methods get the same: they are kept.
        """
        key = (architecture, seeds, without is None)
        if key not in self._tasks:
            self._tasks[key] = self._make(architecture, seeds, without)
        return self._tasks[key]

    def _make(self, architecture: str, seeds: tuple[int, ...], without: Tensor | None) -> Tasks:
        rows = torch.stack([self._few(seed) for seed in seeds])
        generator = self.generator(architecture, 3, *seeds)
        tasks = make_tasks(architecture, self.rest, self.dataset.classes, rows, rows, generator)
        if not self.part.trained:
            return tasks
        old = torch.ones(len(self.pool), dtype=torch.bool, device=self.device)
        if without is not None:
            old[without] = False
        everything = old.nonzero()[:, 0].expand(len(seeds), -1)
        past = replace(tasks, images=self.pool.images, labels=self.pool.labels, train=everything, held_out=everything)
        return replace(tasks, params=train_clean(past, self.spec.training, generator))

    def _few(self, seed: int) -> Tensor:
        """Indices of the images that the model of a seed has, of those that are left."""
        if self.per_class == ALL:
            return torch.arange(len(self.rest), device=self.device)
        return balanced(self.rest.labels, self.per_class, generator_of(self.device, 2, seed))

    def start(self, name: str) -> list[dict[str, Any]]:
        """The models before the first step."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.rows(name, BEFORE, "", None, tasks, tasks.params, 0, 0)

    def compare(self, name: str, method: Method) -> list[dict[str, Any]]:
        """A tuned baseline on an unseen network."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.trace(name, method.name, method.tier, None, tasks, lambda w: self.fitted(name, method, tasks, w))

    def fitted(self, name: str, method: Method, tasks: Tasks, watch: Watch | None = None) -> tuple[Tensor, int]:
        """A network's tasks, trained by a baseline at the best point for networks of its kind."""
        best = best_point(self.run.rows(f"{self.name}.tune.{slug(method.name)}"), kind(name))
        hyper = as_hyper([{key: best[key] for key in method.grid}], len(tasks), tasks.params)
        return fit_baseline(tasks, method, hyper, self.how, self.generator(name, 4), watch)

    def compare_learned(self, name: str, rule: Rule) -> list[dict[str, Any]]:
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
        tuned = {m.name: self.run.rows(f"{self.name}.tune.{slug(m.name)}") for m in plain}
        first = max(plain, key=lambda m: best_point(tuned[m.name], kind(name))[f"score {kind(name)}"])
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
                right = survivors(
                    tasks.predictor(one), test.images, test.labels, attacks, generator=generator, alone=False
                )
                rows.append(
                    self.common(name, method, tier, meta_seed, 0 if method == BEFORE else self.part.steps) | {
                        "seed": seed, "attack": f"{STANDARD}{', '.join(attack.name for attack in attacks)}",
                        "eps": spec.eps, "metric": "robust accuracy", "n": len(test),
                        "value": float(right["robust"].float().mean()),
                    }
                )  # fmt: skip
        return rows


def kind(network: str) -> str:
    """`dense` or `convolutional`: what baselines are tuned for, each by itself."""
    return "dense" if network.startswith("mlp") else "convolutional"


def best_point(scored: Sequence[Mapping[str, Any]], group: str) -> Mapping[str, Any]:
    """The point of a grid that did best on validation networks of this kind."""
    return max(scored, key=lambda row: row[f"score {group}"])
