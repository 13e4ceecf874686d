"""Measures the models that came out: clean accuracy, and how many images stand which attack.

`standard` is for what is recorded: two runs of PGD and the standard ensemble at one radius, and on one model of each
method the checks that know how such figures go wrong. `quick` is the two PGDs alone, for when somebody waits. `attacks`
asks what kind of attack a model stands: other ones than it was judged by, other radii, another norm. `confined` asks
whether more was learned than to give up pixels that say nothing: beside `quick`, an attacker may move no others than
those that say something.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.data import Dataset, Split
from metarobust.evaluation import evaluate
from metarobust.lab.attacked import SHORTER, confined, speaking, under_attacks, under_standard
from metarobust.lab.learning import Learning
from metarobust.lab.spec import Part, Spec
from metarobust.lab.table import BEFORE, FLAGS
from metarobust.meta import generator_of
from metarobust.tasks import Tasks
from metarobust.training import accuracy, over_models

CHECKED = 100
"""So many images the checks look at."""


class Measured(Learning):
    """Turns models into rows: the test images of a run, and what is measured on them."""

    def __init__(self, spec: Spec, part: Part, run: Any, dataset: Dataset, device: torch.device):
        super().__init__(spec, part, run, dataset, device)
        order = torch.randperm(len(dataset.test), generator=generator_of(device, 7), device=device)
        # The last of this order: the trials that settled our settings looked at the first.
        self.test = dataset.test[order[-spec.test_images :]]

    def common(self, model: str, method: str, tier: str, meta_seed: int | None, step: int) -> dict[str, Any]:
        """What all rows of a method on a network say."""
        return {
            "experiment": self.spec.experiment, "dataset": self.spec.dataset, "part": self.part.name, "model": model,
            "method": method, "meta_seed": meta_seed, "tier": tier, "step": step, "split": "test",
        }  # fmt: skip

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
        common = self.common(model, method, tier, meta_seed, step)
        found = self.measured(tasks, params, self.shown, self.generator(model, 5))
        rows = [
            common | {"seed": seed, "attack": attack, "eps": eps, "metric": metric(eps), "value": value}
            | {"n": len(self.shown)}
            for attack, eps, values in found
            for seed, value in zip(self.spec.seeds, values, strict=True)
        ]  # fmt: skip
        if step == self.part.steps and self.part.gap:
            rows += self.on_training_images(model, common, tasks, params)
        last = step == self.part.steps or method == BEFORE
        if last and self.part.measures == "standard" and meta_seed in (None, self.spec.meta_seeds[0]):
            rows.append(common | self.checks(tasks, params[0]))
        used = {"seed": None, "attack": "", "eps": None, "metric": "adversarial examples", "value": float(made)}
        return [*rows, common | used | {"n": len(tasks)}]

    @property
    def shown(self) -> Split:
        """The test images that a model is measured on: many attacks take long, so that they get fewer."""
        return self.test[:200] if self.part.measures == "attacks" else self.test

    def measured(
        self, tasks: Tasks, params: Tensor, images: Split, generator: torch.Generator, *, own: bool = False
    ) -> Iterator[tuple[str, float, list[float]]]:
        """Attack, radius, and the accuracy of each model; radius 0 is clean accuracy. own: see `fit.together`."""
        spec = self.spec
        how = {"eps": spec.eps, "steps": spec.attack_steps, "generator": generator}
        if self.part.measures == "attacks":
            yield from under_attacks(tasks, params, images, classes=self.dataset.classes, **how)
            return
        if self.part.measures == "standard":
            yield from under_standard(tasks, params, images, classes=self.dataset.classes, own=own, **how)
            return
        found = accuracy(tasks, params, images, **how)
        label = {"clean": "none", "robust": f"worst of pgd-{spec.attack_steps} ce, margin"}
        for attack, values in found.items():
            yield label.get(attack, attack), 0.0 if attack == "clean" else spec.eps, values
        if self.part.measures == "confined":
            attacks = confined(speaking(self.pool, self.dataset.classes), eps=spec.eps, steps=spec.attack_steps)
            found = over_models(tasks, params, images, attacks, generator)
            yield f"pgd-{spec.attack_steps} ce, margin on speaking pixels", spec.eps, found["robust"]

    def on_training_images(
        self, model: str, common: Mapping[str, Any], tasks: Tasks, params: Tensor
    ) -> Iterator[dict[str, Any]]:
        """The same for each model's own training images: what is lost from there to the test images is overfitting."""
        # No more of them than test images, and of all classes.
        rows = torch.stack([own[:: -(-len(own) // len(self.test))] for own in tasks.train])
        if self.part.measures == "standard":
            images = Split(tasks.images[rows.flatten()], tasks.labels[rows.flatten()])
            found = list(self.measured(tasks, params, images, self.generator(model, 5), own=True))
        else:
            each = []
            for seed, one, mine in zip(self.spec.seeds, params, rows, strict=True):
                images = Split(tasks.images[mine], tasks.labels[mine])
                each.append(list(self.measured(tasks, one[None], images, self.generator(model, 5, seed))))
            found = [(*same[0][:2], [values[0] for *_, values in same]) for same in zip(*each, strict=True)]
        for attack, eps, values in found:
            for seed, value in zip(self.spec.seeds, values, strict=True):
                yield {
                    **common, "split": "train", "seed": seed, "attack": attack, "eps": eps, "metric": metric(eps),
                    "value": value, "n": rows.shape[1],
                }  # fmt: skip

    def checks(self, tasks: Tasks, params: Tensor) -> dict[str, Any]:
        """How many flags the checks of `evaluate` raise on the model of the first seed, and which, as a row's end."""
        few = self.test[:CHECKED]
        report = evaluate(
            Model(tasks.predictor(params)), few.images, few.labels, eps=self.spec.eps, restarts=1, checks=len(few),
            label=None, **SHORTER,
        )  # fmt: skip
        names = ", ".join(flag.check for flag in report.flags)
        return {
            "seed": self.spec.seeds[0], "attack": names, "eps": self.spec.eps, "metric": FLAGS,
            "value": float(len(report.flags)), "n": len(few),
        }  # fmt: skip

    def generator(self, architecture: str, *purpose: int) -> torch.Generator:
        """The same stream for every method on an architecture, so that all see the same batches."""
        letters = int.from_bytes(f"{self.part.name}{architecture}".encode(), "big") % 1_000_003
        return generator_of(self.device, letters, *purpose)


class Model(nn.Module):
    """Prediction with given parameters, as a module: `evaluate` asks for one."""

    def __init__(self, predict: Callable[[Tensor], Tensor]):
        super().__init__()
        self.predict = predict

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(x)


def metric(eps: float) -> str:
    """What the accuracy at a radius is called."""
    return "robust accuracy" if eps else "clean accuracy"
