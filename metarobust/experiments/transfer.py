"""The main experiment: what a meta-optimizer learned from adversarial examples, used where none are made.

1. Meta-train on a family of small networks: clean inner gradients, adversarial meta-loss.
2. Tune every baseline on validation networks, each over its whole grid.
3. On networks and seeds that nothing has seen, patch trained models and train fresh ones, at equal steps and data,
   counting the adversarial examples that each method generates.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from metarobust.baselines import Method, methods
from metarobust.data import Dataset, Split, balanced, load
from metarobust.experiments import spec as specs
from metarobust.experiments.fit import Inner, accuracy, as_hyper, fit_baseline, fit_learned, repeat, settings
from metarobust.experiments.spec import SCALES, Part, Spec
from metarobust.experiments.table import table
from metarobust.family import Family, make_tasks, train_clean, vulnerable
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import Progress, generator_of, meta_train
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.results import COLUMNS, Run
from metarobust.tasks import Tasks

__all__ = ["NAME", "SCALES", "SUMMARY", "execute", "make_spec", "table"]

NAME = "transfer"
SUMMARY = "learn from adversarial examples once; patch and train unseen networks without any"
LEARNED = "learned"
FROM_DIGITS = "learned on digits"


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON."""
    return specs.make(scale, dataset, tuple(seeds) if seeds else None).as_dict()


def execute(spec: dict[str, Any], run: Run, dataset: Dataset, device: torch.device) -> None:
    """Does what is missing of the run, unit by unit, and writes its table."""
    numbers = specs.make(spec["scale"], spec["dataset"], tuple(spec["seeds"]))
    specs.check_dataset(dataset.name, len(dataset.train), dataset.classes, numbers)
    work = [unit for part in numbers.parts for unit in _Work(numbers, part, run, dataset, device).units()]
    rows: list[dict[str, Any]] = []
    tuned: dict[str, Any] = {}
    with tqdm(total=sum(unit.weight for unit in work), desc="transfer", unit="unit") as bar:
        for unit in work:
            bar.set_postfix_str(unit.name)
            found = run.unit(unit.name, unit.compute)
            rows += [row for row in found if "metric" in row]
            tuned |= {unit.name: max(found, key=lambda row: row["score"]) for _ in found[:1] if "score" in found[0]}
            bar.update(unit.weight)
    run.finish(rows, COLUMNS, {"tuned": tuned})


@dataclass(frozen=True)
class _Unit:
    """A resumable piece of work. weight: its rough share of the time, for the estimate of what is left."""

    name: str
    compute: Callable[[], list[dict[str, Any]]]
    weight: int = 1


class _Work:
    """All units of one part, in order: meta-train, tune, compare."""

    def __init__(self, spec: Spec, part: Part, run: Run, dataset: Dataset, device: torch.device):
        self.spec, self.part, self.run, self.dataset, self.device = spec, part, run, dataset, device
        self.how = Inner(part.steps, part.batch_size)
        self.methods = methods(spec.eps, patching=part.name == "patch")
        self.pool = dataset.train[torch.arange(spec.meta_images, device=device)]
        self.rest = dataset.train[torch.arange(spec.meta_images, len(dataset.train), device=device)]
        order = torch.randperm(len(dataset.test), generator=generator_of(device, 7), device=device)
        self.test = dataset.test[order[: spec.test_images]]

    def units(self) -> Iterator[_Unit]:
        part, weight = self.part.name, 20 * self.part.steps // 20
        sources = [LEARNED] + [FROM_DIGITS] * (self.dataset.name != "digits")
        for source in sources:
            for seed in self.spec.meta_seeds:
                yield _Unit(f"{part}.{_slug(source)}.{seed}", lambda w=source, s=seed: self.learn(w, s), weight)
        for method in self.methods:
            yield _Unit(f"{part}.tune.{_slug(method.name)}", lambda m=method: self.tune(m), 4)
        for name in self.spec.unseen:
            yield _Unit(f"{part}.{name}.start", lambda n=name: self.start(n))
            for method in self.methods:
                yield _Unit(f"{part}.{name}.{_slug(method.name)}", lambda n=name, m=method: self.compare(n, m))
            for source in sources:
                yield _Unit(f"{part}.{name}.{_slug(source)}", lambda n=name, w=source: self.compare_learned(n, w))

    # 1. Meta-training

    def family(self, source: str) -> Family:
        """The problems to learn from, on this data set or on the digits."""
        pool, classes, images = self.pool, self.dataset.classes, 10 * self.spec.per_class
        if source == FROM_DIGITS:
            there = specs.make("small", "digits", None)
            digits = load("digits", device=self.device)
            pool = digits.train[torch.arange(there.meta_images, device=self.device)]
            classes, images = digits.classes, 10 * there.per_class
        starts = None
        if self.part.name == "patch":
            generator = generator_of(self.device, 1)
            starts = vulnerable(self.spec.family, pool, classes, self.spec.victims, self.spec.training, generator)
        return Family(self.spec.family, pool, classes, images, starts)

    def learn(self, source: str, seed: int) -> list[dict[str, Any]]:
        """Meta-trains one optimizer, from its last checkpoint where there is one, and returns the log."""
        part, name = self.part, f"{self.part.name}.{_slug(source)}.{seed}"
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
        tensors, _ = self.run.restore(f"{self.part.name}.{_slug(source)}.{seed}") or ({}, {})
        optimizer = FeatureMLP().to(self.device)
        optimizer.load_state_dict({n.removeprefix("theta."): t for n, t in tensors.items() if n.startswith("theta.")})
        return optimizer

    # 2. Tuning

    def tune(self, method: Method) -> list[dict[str, Any]]:
        """Every point of the grid with its score: the mean of clean and robust accuracy on validation networks."""
        points = list(settings(method))
        scores = torch.zeros(len(points))
        for name in self.spec.validation:
            tasks = self.tasks(name, self.spec.tuning_seeds)
            hyper = as_hyper(points, len(tasks), tasks.params)
            params, _ = fit_baseline(repeat(tasks, len(points)), method, hyper, self.how, self.generator(name, 1))
            found = accuracy(
                tasks, params, self.validation_set, eps=self.spec.eps, steps=10, generator=self.generator(name, 2)
            )
            both = torch.tensor([found["clean"], found["robust"]]).mean(0)
            scores += both.nan_to_num().view(len(points), -1).mean(1) / len(self.spec.validation)
        return [point | {"score": float(score)} for point, score in zip(points, scores, strict=True)]

    @cached_property
    def validation_set(self) -> Split:
        """Images to tune on: of the meta-training pool, so that no test image is looked at before the end."""
        per_class = min(40, int(self.pool.labels.bincount().min()))
        return self.pool[balanced(self.pool.labels, per_class, generator_of(self.device, 8))]

    # 3. Comparing

    def tasks(self, architecture: str, seeds: tuple[int, ...]) -> Tasks:
        """One task a seed, with its own start and its own few images, which no meta-training saw."""
        draws = [
            balanced(self.rest.labels, self.spec.per_class, generator_of(self.device, 2, seed)) for seed in seeds
        ]
        rows = torch.stack(draws)
        generator = self.generator(architecture, 3, *seeds)
        tasks = make_tasks(architecture, self.rest, self.dataset.classes, rows, rows, generator)
        if self.part.name == "train":
            return tasks
        everything = torch.arange(len(self.pool), device=self.device).expand(len(seeds), -1)
        trained = Tasks(tasks.model, tasks.layout, tasks.params, self.pool.images, self.pool.labels, everything, everything)
        params = train_clean(trained, self.spec.training, generator)
        return Tasks(tasks.model, tasks.layout, params, tasks.images, tasks.labels, rows, rows)

    def start(self, name: str) -> list[dict[str, Any]]:
        """The models before the first step."""
        tasks = self.tasks(name, self.spec.seeds)
        return self.rows(name, "before", "", None, tasks, tasks.params, 0, 0)

    def compare(self, name: str, method: Method) -> list[dict[str, Any]]:
        """A tuned baseline on an unseen network."""
        slug = f"{self.part.name}.tune.{_slug(method.name)}"
        scored = self.run.rows(slug)
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
        self, model: str, method: str, tier: str, meta_seed: int | None, tasks: Tasks, params: Tensor, step: int, made: int
    ) -> list[dict[str, Any]]:
        """Tidy rows: accuracies of each seed, and the adversarial examples that all seeds together were given."""
        spec = self.spec
        found = accuracy(
            tasks, params, self.test, eps=spec.eps, steps=spec.attack_steps, generator=self.generator(model, 5)
        )
        common = {
            "experiment": NAME, "dataset": spec.dataset, "part": self.part.name, "model": model, "method": method,
            "meta_seed": meta_seed, "tier": tier, "step": step, "split": "test",
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
        used = {"seed": None, "attack": "", "eps": None, "metric": "adversarial examples", "value": float(made)}
        return [*rows, common | used | {"n": len(tasks)}]

    def generator(self, architecture: str, *purpose: int) -> torch.Generator:
        """The same stream for every method on an architecture, so that all see the same batches."""
        letters = int.from_bytes(f"{self.part.name}{architecture}".encode(), "big") % 1_000_003
        return generator_of(self.device, letters, *purpose)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
