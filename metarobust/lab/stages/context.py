"""What the units of one part share: its numbers, its images, the models that everybody starts from, its generators."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarobust.data import Dataset, balanced, load
from metarobust.errors import choose
from metarobust.family import make_tasks, train_clean
from metarobust.lab.baselines import Baseline, methods, robust_methods
from metarobust.lab.engine import Rows, Worker
from metarobust.lab.spec import ALL, Part, Spec, from_dict, network_kind
from metarobust.meta import generator_of
from metarobust.tasks import Tasks
from metarobust.training import Inner


class Context:
    """One part of a comparison in one process.

    Attributes:
        pool: The images to meta-train and tune with.
        rest: All other training images, out of which each model that is compared has its own few.
        test: The test images that are measured on.
        inner: The steps and the batch size of every method.
    """

    def __init__(self, spec: Spec, part: Part, worker: Worker, dataset: Dataset | None = None):
        self.spec, self.part, self.worker, self.device = spec, part, worker, worker.device
        self.dataset = worker.dataset if dataset is None else dataset
        train, test = self.dataset.train, self.dataset.test
        self.pool = train[torch.arange(spec.meta_images, device=self.device)]
        self.rest = train[torch.arange(spec.meta_images, len(train), device=self.device)]
        order = torch.randperm(len(test), generator=generator_of(self.device, 7), device=self.device)
        # The last of this order: the trials that settled our settings looked at the first.
        self.test = test[order[-spec.test_images :]]
        self.inner = Inner(part.steps, part.batch_size)
        self.per_class = spec.per_class if part.per_class is None else part.per_class

    @classmethod
    def of(cls, worker: Worker, number: int) -> "Context":
        """The part of this number, on its own data set where it has one."""
        spec = from_dict(Spec, worker.spec)
        part = spec.parts[number]
        if part.dataset is None:
            return cls(spec, part, worker)
        spec = replace(spec, dataset=part.dataset, **vars(spec.elsewhere[part.dataset]))
        return cls(spec, part, worker, load(part.dataset, worker.dataset.root, worker.device))

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """The baselines of the part, by name."""
        return part_baselines(self.spec, self.part)

    @cached_property
    def held_back(self) -> Tensor:
        """Indices of the images to tune on, in the pool: no test image is looked at before the end."""
        per_class = max(1, min(40, int(self.pool.labels.bincount().min()) // 3))
        return balanced(self.pool.labels, per_class, generator_of(self.device, 8))

    def generator(self, architecture: str, *purpose: int) -> torch.Generator:
        """The same stream for every method on an architecture, so that all see the same batches."""
        letters = int.from_bytes(f"{self.part.name}{architecture}".encode(), "big") % 1_000_003
        return generator_of(self.device, letters, *purpose)

    def tasks(self, architecture: str, seeds: tuple[int, ...], without: Tensor | None = None) -> Tasks:
        """One task a seed, with its own start and its own few images, which no meta-training saw.

        Args:
            architecture: Of all the models.
            seeds: One for each model.
            without: Indices of the pool that a trained model was not trained on, since it is measured there.

        Returns:
            The tasks, made once in a process: trained models take a while, and all methods get the same.
        """
        key = ("tasks", self.part.name, architecture, seeds, without is None)
        return self.worker.once(key, lambda: self._make_tasks(architecture, seeds, without))

    def _make_tasks(self, architecture: str, seeds: tuple[int, ...], without: Tensor | None) -> Tasks:
        rows = torch.stack([self._images_of(seed) for seed in seeds])
        generator = self.generator(architecture, 3, *seeds)
        tasks = make_tasks(architecture, self.rest, self.dataset.classes, rows, rows, generator)
        tasks = replace(tasks, eps=self.spec.eps)
        if not self.part.trained:
            return tasks
        used = torch.ones(len(self.pool), dtype=torch.bool, device=self.device)
        if without is not None:
            used[without] = False
        everything = used.nonzero()[:, 0].expand(len(seeds), -1)
        past = replace(tasks, images=self.pool.images, labels=self.pool.labels, train=everything, held_out=everything)
        return replace(tasks, params=train_clean(past, self.spec.training, generator))

    def _images_of(self, seed: int) -> Tensor:
        """Indices of the images that the model of a seed has, of those that are left."""
        if self.per_class == ALL:
            return torch.arange(len(self.rest), device=self.device)
        return balanced(self.rest.labels, self.per_class, generator_of(self.device, 2, seed))

    def common(
        self, model: str, method: str, tier: str, meta_seed: int | None, step: int, *, learned: bool = False
    ) -> dict[str, Any]:
        """What all rows of a method on a network say; see `run_folder.COLUMNS`."""
        return {
            "experiment": self.spec.experiment,
            "dataset": self.spec.dataset,
            "part": self.part.name,
            "model": model,
            "method": method,
            "meta_seed": meta_seed,
            "tier": tier,
            "step": step,
            "split": "test",
            "learned": int(learned),
            "start": "trained" if self.part.trained else "fresh",
            "network": network_kind(model),
            "images_per_class": None if self.per_class == ALL else self.per_class,
            "scope": "",
        }


def in_part(worker: Worker, number: int, stage: Callable[..., Rows], *arguments: Any) -> Rows:
    """The function of a unit: a stage of the part of this number."""
    return stage(worker.once(("part", number), lambda: Context.of(worker, number)), *arguments)


def part_baselines(spec: Spec, part: Part) -> dict[str, Baseline]:
    """The baselines that a part compares, by name. Raises InputError for an unknown one."""
    known = methods(spec.eps, patching=part.trained, wide=spec.wide_grids, annealed=spec.annealed)
    if part.robust:
        beside = [method for method in known if method.name in ("adam", "TRADES")]
        known = robust_methods(spec.eps, wide=spec.wide_grids) + beside
    by_name = {method.name: method for method in known}
    return {name: by_name[choose(name, by_name, "baseline")] for name in part.methods or by_name}
