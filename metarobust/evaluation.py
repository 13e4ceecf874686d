"""Robust accuracy, beside its clean accuracy: the share of images that no attack in the ensemble turns.

An image counts as robust only if it is classified correctly as it is and under every attack, so that adding an attack
can only lower the figure. `quick` is PGD with random starts on cross-entropy and on the margin: the pair differ,
since a model may be sure of itself without being right, and cross-entropy alone overstates by several points.

Source: the worst case per example over an ensemble is that of Croce and Hein 2020 (arXiv 2003.01690), section 6.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarobust.attacks import pgd
from metarobust.attacks.standing import fooled
from metarobust.attacks.threat import check, check_outputs
from metarobust.errors import InputError, choose
from metarobust.stats import wilson

ATTACKS = {"quick": ("ce", "margin")}


@dataclass(frozen=True)
class Report:
    """What was measured. Accuracies are shares in [0, 1]; robust is never shown without clean, attack and eps.

    clean, robust: shares of n images. under: accuracy under each attack alone. clean_interval, robust_interval: 95 %
    Wilson intervals over images. steps, restarts: of each PGD.
    """

    clean: float
    robust: float
    n: int
    clean_interval: tuple[float, float]
    robust_interval: tuple[float, float]
    under: dict[str, float]
    eps: float
    norm: str
    attacks: str
    steps: int
    restarts: int

    def __str__(self) -> str:
        def line(name: str, share: float, bounds: tuple[float, float]) -> str:
            return f"{name:7}{100 * share:5.1f} %  [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"

        return "\n".join([
            line("clean", self.clean, self.clean_interval),
            line("robust", self.robust, self.robust_interval),
            f"  {self.norm}, eps {self.eps:g}, {self.n} images, worst of",
            *(f"  {name} {100 * share:.1f} %" for name, share in self.under.items()),
        ])  # fmt: skip


def survivors(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    attacks: str = "quick",
    steps: int = 40,
    restarts: int = 1,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Which images `[n]` are still right: `clean`, under each attack alone, and `robust`, under all of them.

    predict treats every image alone: images that are wrong as they are, or fooled, are not attacked any further.
    """
    losses = ATTACKS[choose(attacks, ATTACKS, "set of attacks")]
    how = {"eps": eps, "norm": norm, "steps": steps, "restarts": restarts, "generator": generator, "leave": True}
    with torch.no_grad():
        clean = ~fooled(predict(images), labels)
    right, there = {"clean": clean}, clean.nonzero()[:, 0]
    robust = clean
    for loss in losses:
        moved = pgd(predict, images[there], labels[there], loss=loss, **how)
        stands = torch.zeros_like(clean)
        with torch.no_grad():
            stands[there] = ~fooled(predict(moved), labels[there])
        right[f"pgd-{steps}-{loss}"] = stands
        robust = robust & stands
    return right | {"robust": robust}


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    attacks: str = "quick",
    steps: int = 40,
    restarts: int = 2,
    batch_size: int = 1000,
    seed: int = 0,
) -> Report:
    """Clean and robust accuracy of a model that maps `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.

    The model is put in eval mode and left in the mode, and with the gradients, it came with.
    Raises InputError for an empty set of images, images outside [0, 1], labels the model has no output for, bad eps.
    """
    top = check(images, labels, eps, norm)
    choose(attacks, ATTACKS, "set of attacks")
    if not len(images) or batch_size < 1:
        raise InputError(f"evaluating {len(images)} images in batches of {batch_size}: give at least one of both")
    modes = [(module, module.training) for module in model.modules()]
    generator = torch.Generator(images.device).manual_seed(seed)
    model.eval()
    try:
        with torch.no_grad():
            check_outputs(model(images[:1]), top)
        parts = [
            survivors(
                model,
                x,
                y,
                eps=eps,
                norm=norm,
                attacks=attacks,
                steps=steps,
                restarts=restarts,
                generator=generator,
            )
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    finally:
        for module, training in modes:
            module.training = training
    n = len(images)
    right = {name: int(sum(part[name].sum() for part in parts)) for name in parts[0]}
    shares = {name: count / n for name, count in right.items()}
    under = {name: share for name, share in shares.items() if name not in ("clean", "robust")}
    intervals = wilson(right["clean"], n), wilson(right["robust"], n)
    return Report(shares["clean"], shares["robust"], n, *intervals, under, float(eps), norm, attacks, steps, restarts)
