"""Attacks made by hand for the learned penalties: what a sceptic tries who knows how a model was trained.

A loss that was made flat and straight around its images might hide its gradient, rather than do without what an attack
looks for. Each attack goes round one way of hiding:

    long        steps of a fiftieth of the radius, five times as many, from three starts: a way that is bent or narrow
    smoothed    the gradient of logits that are averaged over noise: one that is next to nothing, or jumps
    surrogate   on a model that was trained in the same way from another seed: one that points elsewhere

They get the images that the standard ensemble has left. And at four times the radius nearly nothing may be left of any
model: what stands there is not robust, it is hidden.

Source: Tramèr et al. 2020, "On adaptive attacks to adversarial example defenses" (arXiv 2002.08347), and Athalye et al.
2018 (arXiv 1802.00420). The choice of attacks is ours.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from metarobust.attacks import pgd
from metarobust.attacks.criterion import Predict
from metarobust.data import Split
from metarobust.evaluation import quick
from metarobust.evaluation.ensemble import Attack, transferred
from metarobust.lab.attacked import Measured, several, worst
from metarobust.tasks import Tasks
from metarobust.training import over_models

FARTHER = 4.0
"""The radius, in units of eps, at which a model should fall."""
COPIES = 8
"""With noise, of each image, over which logits are averaged."""


def by_hand(surrogate: Predict, *, eps: float, steps: int) -> list[Attack]:
    """The attacks above, in L-infinity, on the margin; the long one on DLR too.

    Args:
        surrogate: Images to logits, of a model that was trained in the same way as the one that is attacked.
        eps: The radius, in pixel units.
        steps: Of an attack; the long one takes five times as many.
    """
    slow = partial(pgd, eps=eps, steps=5 * steps, step_size=eps / 50, restarts=3, keep="first")

    def smoothed(predict: Predict, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        def average(x: Tensor) -> Tensor:
            noise = torch.randn((COPIES, *x.shape), generator=generator, device=x.device)
            return predict((x + eps / 2 * noise).flatten(0, 1)).view(COPIES, len(x), -1).mean(0)

        return pgd(average, images, labels, eps=eps, steps=steps, loss="margin", generator=generator, keep="last")

    long = [Attack(f"long-{loss}", "white", partial(slow, loss=loss)) for loss in ("margin", "dlr")]
    return [*long, Attack("smoothed", "white", smoothed), transferred(surrogate, eps=eps, steps=steps)]


def under_hand(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, classes: int, generator: torch.Generator
) -> Iterator[Measured]:
    """Attack, scope, radius and the accuracy of each of T models: as they are, under two PGDs, under these and the
    standard ensemble, under those and all attacks by hand, and under two PGDs at the larger radius.

    The surrogate of a model is the next of the T; of the last it is the first.
    """
    found: dict[str, list[float]] = {}
    attacks = ensemble = several(eps=eps, steps=steps, classes=classes)
    for index in range(len(params)):
        surrogate = tasks.predictor(params[(index + 1) % len(params)].detach())
        attacks = [*ensemble, *by_hand(surrogate, eps=eps, steps=steps)]
        one = over_models(tasks, params[index : index + 1], test, attacks, generator, independent=False)
        for name, values in one.items():
            found.setdefault(name, []).extend(values)
    yield "none", "", 0.0, found["clean"]
    yield f"pgd-{steps} ce, margin", "pair", eps, found[ensemble[1].name]
    yield worst(ensemble), "worst case", eps, found[ensemble[-1].name]
    yield worst(attacks), "by hand", eps, found["robust"]
    far = over_models(tasks, params, test, quick(eps=FARTHER * eps, steps=steps), generator, independent=False)
    yield f"pgd-{steps} ce, margin", "pair", FARTHER * eps, far["robust"]
