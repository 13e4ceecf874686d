"""Measures the models that came out: clean accuracy, and how many images stand which attack.

`quick` is two runs of PGD at one radius, and for most comparisons. `attacks` asks what kind of attack a model stands:
other ones than it was judged by, other radii, another norm. `confined` asks whether more was learned than to give up
pixels that say nothing: beside `quick`, an attacker may move no others than those that say something.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarobust.attacks import fgsm, pgd
from metarobust.data import Dataset, Split
from metarobust.evaluation import quick, standard
from metarobust.evaluation.ensemble import Attack
from metarobust.experiments.fit import accuracy, over_models
from metarobust.experiments.learning import Learning
from metarobust.experiments.spec import Part, Spec
from metarobust.meta import ALONE, Share, generator_of
from metarobust.results import Run
from metarobust.tasks import Tasks

SHARES = (0.25, 0.5, 1.5, 2.0)
"""Other radii, in units of the one that is asked about."""
SAYS_LITTLE = 0.05
"""A pixel says little about the class where its means over the images of each class differ by less, as a standard
deviation; in pixel units."""


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
        rows = []
        for attack, eps, values in self.measured(model, tasks, params):
            metric = "robust accuracy" if eps else "clean accuracy"
            for seed, value in zip(self.spec.seeds, values, strict=True):
                rows.append(
                    common
                    | {"seed": seed, "attack": attack, "eps": eps, "metric": metric, "value": value}
                    | {"n": len(self.shown)}
                )
        if self.part.gap and step == self.part.steps:
            rows += self.on_training_images(model, common, tasks, params)
        used = {"seed": None, "attack": "", "eps": None, "metric": "adversarial examples", "value": float(made)}
        return [*rows, common | used | {"n": len(tasks)}]

    @property
    def shown(self) -> Split:
        """The test images that a model is measured on: many attacks take long, so that they get fewer."""
        return self.test[:200] if self.part.measures == "attacks" else self.test

    def measured(self, model: str, tasks: Tasks, params: Tensor) -> Iterator[tuple[str, float, list[float]]]:
        """Attack, radius, and the accuracy of each model; radius 0 is clean accuracy."""
        spec, generator = self.spec, self.generator(model, 5)
        if self.part.measures == "attacks":
            how = {"eps": spec.eps, "steps": spec.attack_steps, "classes": self.dataset.classes}
            yield from under_attacks(tasks, params, self.shown, **how, generator=generator)
            return
        found = accuracy(tasks, params, self.shown, eps=spec.eps, steps=spec.attack_steps, generator=generator)
        label = {"clean": "none", "robust": f"worst of pgd-{spec.attack_steps} ce, margin"}
        for attack, values in found.items():
            yield label.get(attack, attack), 0.0 if attack == "clean" else spec.eps, values
        if self.part.measures == "confined":
            attacks = confined(speaking(self.pool, self.dataset.classes), eps=spec.eps, steps=spec.attack_steps)
            found = over_models(tasks, params, self.shown, attacks, generator)
            yield f"pgd-{spec.attack_steps} ce, margin on speaking pixels", spec.eps, found["robust"]

    def on_training_images(
        self, model: str, common: Mapping[str, Any], tasks: Tasks, params: Tensor
    ) -> list[dict[str, Any]]:
        """The same for each model's own training images: what is lost from there to the test images is overfitting."""
        spec, rows = self.spec, []
        for seed, one, own in zip(spec.seeds, params, tasks.train, strict=True):
            some = own[:: -(-len(own) // len(self.test))]  # no more of them than test images, and of all classes
            images = Split(tasks.images[some], tasks.labels[some])
            how = {"eps": spec.eps, "steps": spec.attack_steps, "generator": self.generator(model, 5, seed)}
            found = accuracy(tasks, one[None], images, **how)
            for attack, eps, metric in (("clean", 0.0, "clean accuracy"), ("robust", spec.eps, "robust accuracy")):
                label = f"worst of pgd-{spec.attack_steps} ce, margin" if eps else "none"
                rows.append(
                    {**common, "split": "train", "seed": seed, "attack": label, "eps": eps, "metric": metric}
                    | {"value": found[attack][0], "n": len(images)}
                )
        return rows

    def generator(self, architecture: str, *purpose: int) -> torch.Generator:
        """The same stream for every method on an architecture, so that all see the same batches."""
        letters = int.from_bytes(f"{self.part.name}{architecture}".encode(), "big") % 1_000_003
        return generator_of(self.device, letters, *purpose)


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
    strong = standard(eps=eps, classes=classes, steps=50, queries=500)  # half as long, tenth as many: many models
    two = quick(eps=eps, steps=steps)
    found = over_models(tasks, params, test, [*two, *strong], generator)
    for attack in (*two, *strong):
        yield attack.name, eps, found[attack.name]
    yield f"worst of {', '.join(attack.name for attack in (*two, *strong))}", eps, found["robust"]
    far = eps * test.images[0].numel() ** 0.5 / 2
    others = [(both, share * eps, "linf") for share in SHARES] + [(f"{both} in l2", far, "l2")]
    for name, radius, norm in others:
        attacks = quick(eps=radius, norm=norm, steps=steps)
        yield name, radius, over_models(tasks, params, test, attacks, generator)["robust"]
