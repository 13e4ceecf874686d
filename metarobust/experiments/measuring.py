"""Measures the models that came out: clean accuracy, and how many images stand which attack.

`standard` is for what is recorded: two runs of PGD and the standard ensemble at one radius, and on one model of each
method the checks that know how such figures go wrong. `quick` is the two PGDs alone, for when somebody waits. `attacks`
asks what kind of attack a model stands: other ones than it was judged by, other radii, another norm. `confined` asks
whether more was learned than to give up pixels that say nothing: beside `quick`, an attacker may move no others than
those that say something.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.attacks import fgsm, pgd
from metarobust.data import Dataset, Split
from metarobust.evaluation import evaluate, quick, standard
from metarobust.evaluation.ensemble import Attack
from metarobust.experiments.fit import accuracy, over_models, together
from metarobust.experiments.learning import Learning
from metarobust.experiments.spec import Part, Spec
from metarobust.experiments.table import BEFORE, FLAGS
from metarobust.meta import ALONE, Share, generator_of
from metarobust.results import Run
from metarobust.tasks import Tasks

SHARES = (0.25, 0.5, 1.5, 2.0)
"""Other radii, in units of the one that is asked about."""
SAYS_LITTLE = 0.05
"""A pixel says little about the class where its means over the images of each class differ by less, as a standard
deviation; in pixel units."""
SHORTER = {"steps": 50, "queries": 500}
"""The standard ensemble, half as long and with a tenth of the queries: for many models."""
CHECKED = 100
"""So many images the checks look at."""


class Measured(Learning):
    """Turns models into rows: the test images of a run, and what is measured on them."""

    def __init__(
        self, spec: Spec, part: Part, run: Run | None, dataset: Dataset, device: torch.device, share: Share = ALONE
    ):
        super().__init__(spec, part, run, dataset, device, share)
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
        self, tasks: Tasks, params: Tensor, images: Split, generator: torch.Generator
    ) -> Iterator[tuple[str, float, list[float]]]:
        """Attack, radius, and the accuracy of each model; radius 0 is clean accuracy."""
        spec = self.spec
        how = {"eps": spec.eps, "steps": spec.attack_steps, "generator": generator}
        if self.part.measures == "attacks":
            yield from under_attacks(tasks, params, images, classes=self.dataset.classes, **how)
            return
        if self.part.measures == "standard":
            yield from under_standard(tasks, params, images, classes=self.dataset.classes, **how)
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
        for seed, one, own in zip(self.spec.seeds, params, tasks.train, strict=True):
            some = own[:: -(-len(own) // len(self.test))]  # no more of them than test images, and of all classes
            images = Split(tasks.images[some], tasks.labels[some])
            for attack, eps, values in self.measured(tasks, one[None], images, self.generator(model, 5, seed)):
                yield {
                    **common, "split": "train", "seed": seed, "attack": attack, "eps": eps, "metric": metric(eps),
                    "value": values[0], "n": len(images),
                }  # fmt: skip

    def checks(self, tasks: Tasks, params: Tensor) -> dict[str, Any]:
        """How many flags the checks of `evaluate` raise on the model of the first seed, and which, as a row's end."""
        few = self.test[:CHECKED]
        report = evaluate(
            Model(tasks.predictor(params)), few.images, few.labels, eps=self.spec.eps, restarts=1, checks=len(few),
            **SHORTER,
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


def speaking(images: Split, classes: int) -> Tensor:
    """Which pixels `[C, H, W]` say something about the class; see SAYS_LITTLE."""
    there = [each for each in range(classes) if (images.labels == each).any()]  # of no image there is no mean
    means = torch.stack([images.images[images.labels == each].mean(0) for each in there])
    return means.std(0, correction=0) >= SAYS_LITTLE


def confined(pixels: Tensor, *, eps: float, steps: int) -> list[Attack]:
    """PGD on cross-entropy and on the margin, in L-infinity, that moves no other pixels than these `[C, H, W]`.

    It begins at the image itself: no step leads along a pixel without a gradient, and a random start would.
    """

    def attack(loss: str) -> Attack:
        def move(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, generator: torch.Generator):
            return pgd(
                lambda x: predict(torch.where(pixels, x, x.detach())), images, labels, eps=eps, steps=steps, loss=loss,
                leave=True,
            )  # fmt: skip

        return Attack(f"pgd-{steps}-{loss} confined", "white", move)

    return [attack(loss) for loss in ("ce", "margin")]


def several(*, eps: float, steps: int, classes: int, leave: bool = True) -> list[Attack]:
    """Two PGDs, and the shorter standard ensemble, in the order in which they take least time one after the other."""
    return [*quick(eps=eps, steps=steps, leave=leave), *standard(eps=eps, classes=classes, **SHORTER, leave=leave)]


def worst(attacks: Sequence[Attack]) -> str:
    """The name of the worst case over attacks."""
    return f"worst of {', '.join(attack.name for attack in attacks)}"


def under_standard(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, classes: int, generator: torch.Generator
) -> Iterator[tuple[str, float, list[float]]]:
    """Attack, radius and the accuracy of each of the T models: under one PGD, under two, and under all of `several`.

    Each attack gets what those before it have left: the worst case is the same, and it takes a third of the time.
    """
    attacks = several(eps=eps, steps=steps, classes=classes, leave=False)
    found = together(tasks, params, test, attacks, generator)
    first, both = (attack.name for attack in attacks[:2])
    yield "none", 0.0, found["clean"]
    yield first, eps, found[first]
    yield f"pgd-{steps} ce, margin", eps, found[both]
    yield worst(attacks), eps, found["robust"]


def under_attacks(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, classes: int, generator: torch.Generator
) -> Iterator[tuple[str, float, list[float]]]:
    """Attack, radius and the accuracy of each of the T models, for many attacks.

    In L-infinity at eps FGSM, two PGDs, and each of a shorter standard ensemble; the worst case of all; the two PGDs at
    other radii, of which an image must stand both; and in L2, at half the distance of a corner of the L-infinity ball.
    """
    plain = Attack("fgsm", "white", partial(fgsm, eps=eps))
    found = over_models(tasks, params, test, [plain], generator)
    yield "none", 0.0, found["clean"]
    yield "fgsm", eps, found["fgsm"]
    both = f"pgd-{steps} ce, margin"
    attacks = several(eps=eps, steps=steps, classes=classes)
    found = over_models(tasks, params, test, attacks, generator)
    for attack in attacks:
        yield attack.name, eps, found[attack.name]
    yield worst(attacks), eps, found["robust"]
    far = eps * test.images[0].numel() ** 0.5 / 2
    others = [(both, share * eps, "linf") for share in SHARES] + [(f"{both} in l2", far, "l2")]
    for name, radius, norm in others:
        attacks = quick(eps=radius, norm=norm, steps=steps)
        yield name, radius, over_models(tasks, params, test, attacks, generator)["robust"]
