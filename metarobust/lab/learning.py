"""Meta-training within an experiment: which problems a rule learns from, and its checkpoints."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metarobust.data import Dataset, load
from metarobust.family import Family, vulnerable
from metarobust.lab.spec import OptimizerConfig, Part, Spec, sizes
from metarobust.learned import make
from metarobust.meta import MetaTrainer, Validation, generator_of, hold_out, theta_of
from metarobust.objectives import Adversarial, Mixed, Objective, clean

SAVE_EVERY = 20
"""Episodes between two checkpoints."""


class Learning:
    """What the stages of one part share: its images, and the learned optimizers of its run.

    run: a Run, or what knows as much of one where several processes share it. quiet: whether nobody sees how far a
    meta-training is. after_save: called whenever a checkpoint of one is stored.
    """

    def __init__(self, spec: Spec, part: Part, run: Any, dataset: Dataset, device: torch.device):
        self.spec, self.part, self.run, self.dataset, self.device = spec, part, run, dataset, device
        self.quiet = False
        self.after_save: Callable[[], None] = lambda: None
        self.pool = dataset.train[torch.arange(spec.meta_images, device=device)]
        self.rest = dataset.train[torch.arange(spec.meta_images, len(dataset.train), device=device)]
        self._families: dict[tuple[str | None, tuple[str, ...]], Family] = {}

    def named(self, rule: OptimizerConfig, seed: int) -> str:
        """The name of a rule's unit and of its checkpoint, in the part that it was learned for."""
        home = self.part.home if rule in self.part.uses else self.part.name
        return f"{slug(home)}.{slug(rule.name)}.{seed}"

    def inner(self, rule: OptimizerConfig) -> Objective:
        """Where a rule's gradients are taken, when it learns and when it is used."""
        steps = {"clean": 0, "fgsm": 1, "pgd": 7}[rule.inner]
        return Adversarial(self.spec.eps, steps) if steps else clean

    def meta(self, rule: OptimizerConfig) -> Objective:
        """What the models that come out of a rule's steps are judged by."""
        steps = {"clean": 0, "fgsm": 1, "pgd": self.part.attack_steps}[rule.meta]
        eps = self.part.meta_eps * (self.radius(rule) / self.spec.eps)
        return Mixed(Adversarial(eps, steps), self.part.weight) if steps else clean

    def radius(self, rule: OptimizerConfig) -> float:
        """The radius that goes with the images a rule learns from, which may be of another data set."""
        return self.spec.eps if rule.source is None else sizes(rule.source)["eps"]

    def family(self, source: str | None, members: tuple[str, ...]) -> Family:
        """The problems of these networks, on this data set or on another. Made once: models to patch take a while."""
        if (source, members) not in self._families:
            pool, classes, images = self.pool, self.dataset.classes, self.dataset.classes * self.spec.per_class
            if source is not None:
                there, found = sizes(source), load(source, self.dataset.root, self.device)
                pool = found.train[torch.arange(there["meta_images"], device=self.device)]
                classes, images = found.classes, found.classes * there["per_class"]
            starts = None
            if self.part.trained:
                generator = generator_of(self.device, 1)
                starts = vulnerable(members, pool, classes, self.spec.victims, self.spec.training, generator)
            self._families[source, members] = Family(members, pool, classes, images, starts)
        return self._families[source, members]

    def validation(self, rule: OptimizerConfig) -> Validation:
        """Validation networks, which no rule learns from, to keep the theta that does best on them."""
        sample = self.family(rule.source, self.spec.validation).sample
        how = {
            "inner": self.inner(rule),
            "horizon": self.part.steps,
            "batch_size": self.part.batch_size,
            "eps": self.radius(rule),
        }
        return hold_out(sample, **how, groups=6, tasks=2, device=self.device)

    def learn(self, rule: OptimizerConfig, seed: int) -> list[dict[str, Any]]:
        """Meta-trains one optimizer, from its last checkpoint where there is one, and returns the log."""
        part, name = self.part, self.named(rule, seed)
        optimizer = make(rule.kind, torch.Generator().manual_seed(seed), **rule.shape).to(self.device)
        if rule.begins is not None:
            before = self.before(rule)
            trained = self.learned(before, seed)
            if before.kind == rule.kind:
                optimizer.load_state_dict(trained.state_dict())
            else:
                optimizer.begin_from(trained)
        trainer = MetaTrainer(
            optimizer, self.family(rule.source, tuple(rule.family or self.spec.family)).sample, rule.plan,
            inner=self.inner(rule), meta=self.meta(rule), seed=seed,
            validate=self.validation(rule) if self.spec.validated else None,
        )  # fmt: skip
        held = self.run.restore(name)
        if held:
            trainer.load_state_dict(held[0], held[1]["log"])
        for _ in trainer.episodes(None if self.quiet else f"{part.name}, {rule.name}, meta-seed {seed}"):
            done = len(trainer.log)
            if done % SAVE_EVERY == 0 or trainer.is_over:
                self.run.save(name, trainer.state_dict(), {"episode": done, "log": trainer.log})
                self.after_save()
        return trainer.log

    def before(self, rule: OptimizerConfig) -> OptimizerConfig:
        """The rule that another one begins from."""
        return next(other for other in self.part.rules if other.name == rule.begins)

    def learned(self, rule: OptimizerConfig, seed: int) -> nn.Module:
        """A meta-trained optimizer, from its checkpoint."""
        tensors, _ = self.run.stored(self.named(rule, seed))
        optimizer = make(rule.kind, **rule.shape).to(self.device)
        optimizer.load_state_dict(theta_of(tensors))
        return optimizer


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
