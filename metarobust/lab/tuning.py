"""Tunes the baselines of a comparison on validation networks, and makes the models that they and their rivals get."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarobust.data import Dataset, balanced
from metarobust.errors import choose
from metarobust.family import make_tasks, train_clean
from metarobust.lab.baselines import Baseline, methods, robust_methods
from metarobust.lab.fit import as_hyper, fit_baseline, repeat, settings, under_quick
from metarobust.lab.learning import slug
from metarobust.lab.measuring import Measured
from metarobust.lab.spec import ALL, Part, Spec
from metarobust.meta import generator_of
from metarobust.tasks import Tasks
from metarobust.training import Inner


class Tuned(Measured):
    """What a part of a comparison has before anything is compared: models, and settings of the baselines."""

    def __init__(self, spec: Spec, part: Part, run: Any, dataset: Dataset, device: torch.device):
        super().__init__(spec, part, run, dataset, device)
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

    def tune(self, method: Baseline) -> list[dict[str, Any]]:
        """Every point of the grid with its scores: clean and robust accuracy on validation networks, weighed as the
        judge of the learned rules weighs them.

        One score for dense and one for convolutional networks: a learned rule sees which it has; so may a plain one.
        With `deciding_seeds`, the best of each kind are scored `again`, on models that had no part in choosing them:
        the highest of many noisy scores is partly luck, and a grid of 200 points has much of it. (Successive halving
        with two rungs: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification".)
        """
        points = list(settings(method))
        scores = self.scores(method, points, self.spec.validation, self.spec.tuning_seeds)
        rows = [point | {f"score {group}": of[i] for group, of in scores.items()} for i, point in enumerate(points)]
        if self.spec.deciding_seeds:
            for group, of in scores.items():
                chosen = sorted(range(len(points)), key=lambda i: -of[i])[: self.spec.finalists]
                networks = [name for name in self.spec.validation if kind(name) == group]
                again = self.scores(method, [points[i] for i in chosen], networks, self.spec.deciding_seeds)
                for i, value in zip(chosen, again[group], strict=True):
                    rows[i][f"again {group}"] = value
        return rows

    def scores(
        self, method: Baseline, points: Sequence[Mapping[str, float]], networks: Sequence[str], seeds: tuple[int, ...]
    ) -> dict[str, list[float]]:
        """By kind of network, a score for each point: a mean over networks of that kind and seeds."""
        found: dict[str, list[Tensor]] = {}
        for name in networks:
            tasks = self.tasks(name, seeds, without=self.held_back)
            hyper = as_hyper(points, len(tasks), tasks.params)
            params, _ = fit_baseline(repeat(tasks, len(points)), method, hyper, self.how, self.generator(name, 1))
            shares = under_quick(
                tasks, params, self.pool[self.held_back], eps=self.spec.eps, steps=10, generator=self.generator(name, 2)
            )
            both = torch.tensor(shares["clean"]).lerp(torch.tensor(shares["robust"]), self.part.weight)
            found.setdefault(kind(name), []).append(both.nan_to_num().view(len(points), -1).mean(1))
        return {
            group: [float(sum(of[i] for of in each) / len(each)) for i in range(len(points))]
            for group, each in found.items()
        }

    @cached_property
    def held_back(self) -> Tensor:
        """Indices of the images to tune on, in the pool: no test image is looked at before the end."""
        per_class = max(1, min(40, int(self.pool.labels.bincount().min()) // 3))
        return balanced(self.pool.labels, per_class, generator_of(self.device, 8))

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


def kind(network: str) -> str:
    """`dense` or `convolutional`: what baselines are tuned for, each by itself."""
    return "dense" if network.startswith("mlp") else "convolutional"


def score(row: Mapping[str, Any], group: str) -> float:
    """What a point reached on validation networks of this kind; where it was scored again, then."""
    return row.get(f"again {group}", row[f"score {group}"])


def best_point(scored: Sequence[Mapping[str, Any]], group: str) -> Mapping[str, Any]:
    """The point of a grid that did best on validation networks of this kind: of those scored again, if any were."""
    again = [row for row in scored if f"again {group}" in row]
    return max(again or scored, key=lambda row: score(row, group))


def finalists(scored: Sequence[Mapping[str, Any]], group: str) -> list[dict[str, float]]:
    """The points that were scored again, with their `score` and `again`; best of the first round first."""
    chosen = sorted((row for row in scored if f"again {group}" in row), key=lambda row: -row[f"score {group}"])
    return [
        {key: value for key, value in row.items() if " " not in key}
        | {word: round(row[f"{word} {group}"], 4) for word in ("score", "again")}
        for row in chosen
    ]
