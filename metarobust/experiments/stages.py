"""The stages of the transfer experiment: meta-train, tune, compare. Each is cut into units that can be resumed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarobust.baselines import Method, methods
from metarobust.data import Dataset, balanced, load
from metarobust.errors import InputError
from metarobust.experiments import spec as specs
from metarobust.experiments.fit import Inner, accuracy, as_hyper, fit_baseline, fit_learned, repeat, settings
from metarobust.experiments.spec import Part, Spec
from metarobust.family import Family, make_tasks, train_clean, vulnerable
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import Progress, generator_of, meta_train
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.results import Run
from metarobust.tasks import Tasks

LEARNED = "learned"
FROM_DIGITS = "learned on digits"


@dataclass(frozen=True)
class Unit:
    """A resumable piece of work. weight: its rough share of the time, for the estimate of what is left."""

    name: str
    compute: Callable[[], list[dict[str, Any]]]
    weight: int = 1


class Stages:
    """All units of one part, in order: meta-train, tune, compare."""

    def __init__(self, spec: Spec, part: Part, run: Run, dataset: Dataset, device: torch.device):
        self.spec, self.part, self.run, self.dataset, self.device = spec, part, run, dataset, device
        self.how = Inner(part.steps, part.batch_size)
        self.methods = methods(spec.eps, patching=part.name == "patch", wide=spec.wide_grids)
        self.pool = dataset.train[torch.arange(spec.meta_images, device=device)]
        self.rest = dataset.train[torch.arange(spec.meta_images, len(dataset.train), device=device)]
        order = torch.randperm(len(dataset.test), generator=generator_of(device, 7), device=device)
        # The last of this order: the trials that settled our settings looked at the first.
        self.test = dataset.test[order[-spec.test_images :]]

    def units(self) -> Iterator[Unit]:
        part, plan = self.part.name, self.part.plan
        weight = 1 + plan.episodes * sum(plan.horizons) // len(plan.horizons) // 120
        # Another data set's lesson is tried where it is wanted most: on models that are in use already.
        elsewhere = part == "patch" and self.dataset.name != "digits"
        sources = [LEARNED, FROM_DIGITS] if elsewhere else [LEARNED]
        for source in sources:
            for seed in self.spec.meta_seeds:
                yield Unit(f"{part}.{slug(source)}.{seed}", lambda w=source, s=seed: self.learn(w, s), weight)
        for method in self.methods:
            yield Unit(f"{part}.tune.{slug(method.name)}", lambda m=method: self.tune(m), 2)
        for name in self.spec.unseen:
            yield Unit(f"{part}.{name}.start", lambda n=name: self.start(n))
            for method in self.methods:
                yield Unit(f"{part}.{name}.{slug(method.name)}", lambda n=name, m=method: self.compare(n, m))
            for source in sources:
                yield Unit(f"{part}.{name}.{slug(source)}", lambda n=name, w=source: self.compare_learned(n, w))

    # 1. Meta-training

    def family(self, source: str) -> Family:
        """The problems to learn from, on this data set or on the digits."""
        pool, classes, images = self.pool, self.dataset.classes, self.dataset.classes * self.spec.per_class
        if source == FROM_DIGITS:
            there = specs.make("small", "digits", None)
            digits = load("digits", device=self.device)
            pool = digits.train[torch.arange(there.meta_images, device=self.device)]
            classes, images = digits.classes, digits.classes * there.per_class
        starts = None
        if self.part.name == "patch":
            generator = generator_of(self.device, 1)
            starts = vulnerable(self.spec.family, pool, classes, self.spec.victims, self.spec.training, generator)
        return Family(self.spec.family, pool, classes, images, starts)

    def learn(self, source: str, seed: int) -> list[dict[str, Any]]:
        """Meta-trains one optimizer, from its last checkpoint where there is one, and returns the log."""
        part, name = self.part, f"{self.part.name}.{slug(source)}.{seed}"
        optimizer = FeatureMLP(generator=torch.Generator().manual_seed(seed)).to(self.device)
        held = self.run.restore(name)
        resume = held and (held[0], Progress(held[1]["episode"], held[1]["log"]))
        log = meta_train(
            optimizer, self.family(source).sample, part.plan, inner=clean,
            meta=Mixed(Adversarial(part.meta_eps, part.attack_steps), part.weight), seed=seed, device=self.device,
            save=lambda tensors, done: self.run.save(name, tensors, {"episode": done.episode, "log": done.log}),
            resume=resume, label=f"{part.name}, {source}, meta-seed {seed}",
        )  # fmt: skip
        return log

    def learned(self, source: str, seed: int) -> FeatureMLP:
        """A meta-trained optimizer, from its checkpoint."""
        name = f"{self.part.name}.{slug(source)}.{seed}"
        held = self.run.restore(name)
        if held is None:
            lost, unit = self.run.path(f"{name}.safetensors"), self.run.out / "units" / f"{name}.json"
            raise InputError(f"{lost} is missing; delete {unit} too and give --resume, so that it is learned again")
        tensors, _ = held
        optimizer = FeatureMLP().to(self.device)
        optimizer.load_state_dict({n.removeprefix("theta."): t for n, t in tensors.items() if n.startswith("theta.")})
        return optimizer

    # 2. Tuning

    def tune(self, method: Method) -> list[dict[str, Any]]:
        """Every point of the grid with its score: the mean of clean and robust accuracy on validation networks."""
        points = list(settings(method))
        scores = torch.zeros(len(points))
        for name in self.spec.validation:
            tasks = self.tasks(name, self.spec.tuning_seeds, without=self.held_back)
            hyper = as_hyper(points, len(tasks), tasks.params)
            params, _ = fit_baseline(repeat(tasks, len(points)), method, hyper, self.how, self.generator(name, 1))
            found = accuracy(
                tasks,
                params,
                self.pool[self.held_back],
                eps=self.spec.eps,
                steps=10,
                generator=self.generator(name, 2),
            )
            both = torch.tensor([found["clean"], found["robust"]]).mean(0)
            scores += both.nan_to_num().view(len(points), -1).mean(1) / len(self.spec.validation)
        return [point | {"score": float(score)} for point, score in zip(points, scores, strict=True)]

    @cached_property
    def held_back(self) -> Tensor:
        """Indices of the images to tune on, in the pool: no test image is looked at before the end."""
        per_class = max(1, min(40, int(self.pool.labels.bincount().min()) // 3))
        return balanced(self.pool.labels, per_class, generator_of(self.device, 8))

    # 3. Comparing

    def tasks(self, architecture: str, seeds: tuple[int, ...], without: Tensor | None = None) -> Tasks:
        """One task a seed, with its own start and its own few images, which no meta-training saw.

        without: indices of the pool that a model to be patched was not trained on, since it is measured there.
        """
        draws = [balanced(self.rest.labels, self.spec.per_class, generator_of(self.device, 2, seed)) for seed in seeds]
        rows = torch.stack(draws)
        generator = self.generator(architecture, 3, *seeds)
        tasks = make_tasks(architecture, self.rest, self.dataset.classes, rows, rows, generator)
        if self.part.name == "train":
            return tasks
        old = torch.ones(len(self.pool), dtype=torch.bool, device=self.device)
        if without is not None:
            old[without] = False
        everything = old.nonzero()[:, 0].expand(len(seeds), -1)
        past = replace(tasks, images=self.pool.images, labels=self.pool.labels, train=everything, held_out=everything)
        return replace(tasks, params=train_clean(past, self.spec.training, generator))

    def start(self, name: str) -> list[dict[str, Any]]:
        """The models before the first step."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.rows(name, "before", "", None, tasks, tasks.params, 0, 0)

    def compare(self, name: str, method: Method) -> list[dict[str, Any]]:
        """A tuned baseline on an unseen network."""
        scored = self.run.rows(f"{self.part.name}.tune.{slug(method.name)}")
        best = {key: value for key, value in max(scored, key=lambda row: row["score"]).items() if key != "score"}
        tasks = self.tasks(name, self.spec.seeds)
        hyper = as_hyper([best], len(tasks), tasks.params)
        params, made = fit_baseline(tasks, method, hyper, self.how, self.generator(name, 4))
        return self.rows(name, method.name, method.tier, None, tasks, params, self.part.steps, made)

    def compare_learned(self, name: str, source: str) -> list[dict[str, Any]]:
        """The learned optimizers, one for each meta-seed, on an unseen network."""
        tasks = self.tasks(name, self.spec.seeds)
        rows = []
        for seed in self.spec.meta_seeds:
            params, made = fit_learned(tasks, self.learned(source, seed), self.how, self.generator(name, 4))
            rows += self.rows(name, source, "0", seed, tasks, params, self.part.steps, made)
        return rows

    def rows(
        self,
        model: str,
        method: str,
        tier: str,
        meta_seed: int | None,
        tasks: Tasks,
        params: Tensor,
        step: int,
        made: int,
    ) -> list[dict[str, Any]]:
        """Tidy rows: accuracies of each seed, and the adversarial examples that all seeds together were given."""
        spec = self.spec
        found = accuracy(
            tasks,
            params,
            self.test,
            eps=spec.eps,
            steps=spec.attack_steps,
            generator=self.generator(model, 5),
        )
        common = {
            "experiment": spec.experiment, "dataset": spec.dataset, "part": self.part.name, "model": model,
            "method": method, "meta_seed": meta_seed, "tier": tier, "step": step, "split": "test",
        }  # fmt: skip
        rows = []
        for attack, values in found.items():
            kind = "clean" if attack == "clean" else "robust"
            worst = f"worst of pgd-{spec.attack_steps} ce, margin"
            label = {"clean": "none", "robust": worst}.get(attack, attack)
            for seed, value in zip(spec.seeds, values, strict=True):
                rows.append(
                    common | {
                        "seed": seed, "attack": label, "eps": 0.0 if kind == "clean" else spec.eps,
                        "metric": "clean accuracy" if kind == "clean" else "robust accuracy",
                        "value": value, "n": len(self.test),
                    }
                )  # fmt: skip
        used = {
            "seed": None,
            "attack": "",
            "eps": None,
            "metric": "adversarial examples",
            "value": float(made),
        }
        return [*rows, common | used | {"n": len(tasks)}]

    def generator(self, architecture: str, *purpose: int) -> torch.Generator:
        """The same stream for every method on an architecture, so that all see the same batches."""
        letters = int.from_bytes(f"{self.part.name}{architecture}".encode(), "big") % 1_000_003
        return generator_of(self.device, letters, *purpose)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
