"""What attacks leave of T models of one kind, and which attacks those are.

`under_standard` is for every figure that is recorded, `under_pair` for when somebody waits; `under_attacks` compares
attacks, radii and norms; `under_few_pixels` is for the question whether more was learned than to give up pixels that
say nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from metarobust.attacks import fgsm, pgd
from metarobust.data import Split
from metarobust.evaluation import quick, robust_masks, standard
from metarobust.evaluation.ensemble import Attack
from metarobust.tasks import Tasks
from metarobust.training import accuracy, over_models

Measured = tuple[str, str, float, list[float]]
"""Attack, scope (see `run_folder.COLUMNS`), radius, and the accuracy of each of T models; of clean images radius 0."""
AT_ONCE = 64
"""So many models a GPU attacks at once."""

SHARES = (0.25, 0.5, 1.5, 2.0)
"""Other radii, in units of the one that is asked about."""
OF_ALL = (0.5, 0.3, 0.15)
"""Shares of all pixels that an attacker may move, the most informative ones."""
SHORTER = {"steps": 50, "queries": 500}
"""The standard ensemble, half as long and with a tenth of the queries: for many models."""


def informative(images: Split, classes: int) -> Tensor:
    """The order of pixels, most informative first, as indices `[C * H * W]`.

    A pixel says more about the class where its means over the images of each class have a larger standard deviation.
    """
    there = [each for each in range(classes) if (images.labels == each).any()]  # of no image there is no mean
    means = torch.stack([images.images[images.labels == each].mean(0) for each in there])
    return means.std(0, correction=0).flatten().argsort(descending=True, stable=True)


def confined(pixels: Tensor, *, eps: float, steps: int) -> list[Attack]:
    """PGD on cross-entropy and on the margin, in L-infinity, that moves no other pixels than these `[C, H, W]`.

    It begins at the image itself: no step leads along a pixel without a gradient, and a random start would.
    """

    def attack(loss: str) -> Attack:
        def move(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, generator: torch.Generator):
            def seen(x: Tensor) -> Tensor:
                return predict(torch.where(pixels, x, x.detach()))

            return pgd(seen, images, labels, eps=eps, steps=steps, loss=loss, keep="first")

        return Attack(f"pgd-{steps}-{loss} confined", "white", move)

    return [attack(loss) for loss in ("ce", "margin")]


def under_few_pixels(
    tasks: Tasks, params: Tensor, test: Split, order: Tensor, *, eps: float, steps: int, generator: torch.Generator
) -> Iterator[Measured]:
    """The same as `under_pair`, where no more than a share of the pixels may be moved, the first of an order."""
    for share in OF_ALL:
        few = round(share * len(order))
        pixels = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        pixels[order[:few]] = True
        attacks = confined(pixels.view(test.images.shape[1:]), eps=eps, steps=steps)
        robust = over_models(tasks, params, test, attacks, generator, independent=False)["robust"]
        yield f"pgd-{steps} ce, margin on {few} pixels", "single", eps, robust


def several(*, eps: float, steps: int, classes: int, early_exit: bool = True) -> list[Attack]:
    """Two PGDs, and the shorter standard ensemble, in the order in which they take least time one after the other."""
    how = {"eps": eps, "early_exit": early_exit}
    return [*quick(**how, steps=steps), *standard(**how, classes=classes, **SHORTER)]


def worst(attacks: Sequence[Attack]) -> str:
    """The name of the worst case over attacks."""
    return f"worst of {', '.join(attack.name for attack in attacks)}"


def under_standard(
    tasks: Tasks,
    params: Tensor,
    test: Split,
    *,
    eps: float,
    steps: int,
    classes: int,
    generator: torch.Generator,
    own: bool = False,
) -> Iterator[Measured]:
    """Attack, radius and the accuracy of each of the T models: under one PGD, under two, and under all of `several`.

    Each attack gets what those before it have left: the worst case is the same, and it takes a third of the time. own:
    see `together`.
    """
    attacks = several(eps=eps, steps=steps, classes=classes, early_exit=False)
    accuracies = together(tasks, params, test, attacks, generator, own=own)
    first, both = (attack.name for attack in attacks[:2])
    yield "none", "", 0.0, accuracies["clean"]
    yield first, "single", eps, accuracies[first]
    yield f"pgd-{steps} ce, margin", "pair", eps, accuracies[both]
    yield worst(attacks), "worst case", eps, accuracies["robust"]


def under_pair(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, generator: torch.Generator
) -> Iterator[Measured]:
    """The same under two PGDs, each alone and the worse of both."""
    for attack, values in accuracy(tasks, params, test, eps=eps, steps=steps, generator=generator).items():
        if attack == "clean":
            yield "none", "", 0.0, values
        elif attack == "robust":
            yield f"worst of pgd-{steps} ce, margin", "worst case", eps, values
        else:
            yield attack, "single", eps, values


def under_attacks(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, classes: int, generator: torch.Generator
) -> Iterator[Measured]:
    """Attack, radius and the accuracy of each of the T models, for many attacks.

    In L-infinity at eps FGSM, two PGDs, and each of a shorter standard ensemble; the worst case of all; the two PGDs at
    other radii, of which an image must stand both; and in L2, at half the distance of a corner of the L-infinity ball.
    """
    plain = Attack("fgsm", "white", partial(fgsm, eps=eps))
    accuracies = over_models(tasks, params, test, [plain], generator)
    yield "none", "", 0.0, accuracies["clean"]
    yield "fgsm", "single", eps, accuracies["fgsm"]
    both = f"pgd-{steps} ce, margin"
    attacks = several(eps=eps, steps=steps, classes=classes)
    accuracies = over_models(tasks, params, test, attacks, generator)
    for attack in attacks:
        yield attack.name, "single", eps, accuracies[attack.name]
    yield worst(attacks), "worst case", eps, accuracies["robust"]
    far = eps * test.images[0].numel() ** 0.5 / 2
    others = [(both, share * eps, "linf") for share in SHARES] + [(f"{both} in l2", far, "l2")]
    for name, radius, norm in others:
        attacks = quick(eps=radius, norm=norm, steps=steps)
        robust = over_models(tasks, params, test, attacks, generator)["robust"]
        yield name, "pair" if norm == "linf" else "single", radius, robust


def together(
    tasks: Tasks,
    params: Tensor,
    test: Split,
    attacks: Sequence[Attack],
    generator: torch.Generator,
    *,
    own: bool = False,
) -> dict[str, list[float]]:
    """As `over_models` with independent=False, all T models at once: long attacks on small models mostly wait.

    Args:
        tasks: the models' kind.
        params: of the T models, `[T, N]`.
        test: images and labels.
        attacks: in order, made with early_exit=False.
        generator: of the attacks.
        own: test is T equal stretches of images, one a model.

    Returns:
        By the names of `robust_masks`, the accuracy of each model.
    """
    models = len(params)
    images = test.images if own else test.images.repeat(models, 1, 1, 1)
    labels = test.labels if own else test.labels.repeat(models)
    masks = robust_masks(
        tasks.predictor(params.detach()), images, labels, attacks, generator=generator, independent=False, models=models
    )
    return {name: mask.view(models, -1).float().mean(1).tolist() for name, mask in masks.items()}


def under_quick(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, generator: torch.Generator
) -> dict[str, list[float]]:
    """For each of the T models its `clean` and `robust` accuracy, under two PGDs.

    On a GPU, where a small model mostly waits, AT_ONCE of them are attacked together; on a processor one after the
    other, where images that are fooled can leave.
    """
    how = {"eps": eps, "steps": steps}
    if not params.is_cuda:
        return over_models(tasks, params, test, quick(**how), generator, independent=False)
    accuracies: dict[str, list[float]] = {}
    for some in params.split(AT_ONCE):
        for name, values in together(tasks, some, test, quick(**how, early_exit=False), generator).items():
            accuracies.setdefault(name, []).extend(values)
    return accuracies
