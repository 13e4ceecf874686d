"""`evaluate`: clean and robust accuracy of a model, with what it took to measure them and what looks suspect.

Robust accuracy is the share of images that are right as they are and that no attack of the ensemble turns. It is an
upper bound: a stronger attack can only lower it. That is why the report names its attacks, and carries the flags of
checks that know how such figures go wrong.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from metarobust.attacks.criterion import check_logits
from metarobust.attacks.inputs import check_inputs, inputs_checked
from metarobust.errors import InputError, choose
from metarobust.evaluation import checks as check_for
from metarobust.evaluation import probe
from metarobust.evaluation.checks import Flag
from metarobust.evaluation.ensemble import Attack, quick, robust_masks, standard, transferred
from metarobust.evaluation.intervals import wilson
from metarobust.evaluation.report import Report

STEPS = {"standard": 100, "quick": 40}


class Counted:
    """A model that counts the images it was asked about: in all, and with a gradient."""

    def __init__(self, model: Callable[[Tensor], Tensor]):
        self.model, self.images, self.gradients = model, 0, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        self.gradients += len(images) * images.requires_grad
        return self.model(images)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    attacks: str = "standard",
    surrogate: nn.Module | None = None,
    steps: int | None = None,
    restarts: int = 2,
    queries: int = 5000,
    independent: bool = True,
    checks: int = 100,
    batch_size: int = 1000,
    seed: int = 0,
    label: str | None = "evaluate",
) -> Report:
    """Clean and robust accuracy of a model that maps `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.

    attacks: `standard` (APGD on cross-entropy, APGD toward wrong classes, Square) or `quick` (PGD on cross-entropy and
    margin). surrogate: another model for the same task; its adversarial images are tried as well. steps: of each
    gradient attack, 100 or 40 if None. restarts: of PGD, and of APGD on cross-entropy. queries: of Square. independent:
    see
    `ensemble.robust_masks`; False is faster and gives the worst case alone. checks: how many of the images the checks
    look at, 0 for none. eps: radius in pixel units. norm: `linf` or `l2`. batch_size: images asked about at once; it
    changes the memory needed and not the result. seed: of all random numbers. label: of a progress bar, None for none.
    The model is put in eval mode and left in the mode, and with the gradients, it came with.
    Raises InputError for an empty set of images, images outside [0, 1], labels the model has no output for, bad eps.
    """
    classes = check_inputs(images, labels, eps=eps, norm=norm)
    usual = STEPS[choose(attacks, STEPS, "set of attacks")]
    steps = usual if steps is None else steps
    if not len(images) or batch_size < 1 or checks < 0:
        raise InputError(
            f"evaluating {len(images)} images in batches of {batch_size}, with checks on {checks}: "
            f"give at least one image, batches of at least 1, and 0 or more images to check"
        )
    began, predict = time.perf_counter(), Counted(model)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that the size of a batch changes nothing
    came_in_train_mode = check_for.train_mode(model)
    with eval_mode(model, surrogate), inputs_checked():
        with torch.no_grad():
            logits = model(images[:1])
            check_logits(logits, 1, classes)
        make = partial(quick, restarts=restarts)
        if attacks == "standard":
            make = partial(standard, classes=logits.shape[1], restarts=restarts, queries=queries)
        ensemble = make(eps=eps, norm=norm, steps=steps)
        if surrogate is not None:
            ensemble.append(transferred(surrogate, eps=eps, norm=norm))
        right = robust_masks(
            predict, images, labels, ensemble, generator=generator, independent=independent, batch_size=batch_size,
            label=label,
        )  # fmt: skip
        points: list[tuple[float, float]] = []
        flags: list[Flag | None] = []
        if checks:
            few = min(checks, len(images))
            again = make(eps=eps, norm=norm, steps=4 * steps)[0]
            seen = {name: mask[:few] for name, mask in right.items()}
            points, flags = _look(
                predict, images[:few], labels[:few], seen, ensemble, again, eps, norm, 4 * steps, generator
            )
            flags += [came_in_train_mode, *_compare(right, ensemble)]
    n = len(images)
    count = {name: int(mask.sum()) for name, mask in right.items()}
    return Report(
        clean=count["clean"] / n, robust=count["robust"] / n, n=n,
        clean_interval=wilson(count["clean"], n), robust_interval=wilson(count["robust"], n),
        under={attack.name: count[attack.name] / n for attack in ensemble},
        eps=float(eps), norm=norm, attacks=attacks, steps=steps, restarts=restarts, independent=independent, seed=seed,
        checked=min(checks, n), flags=tuple(filter(None, flags)), curve=tuple(points),
        images_asked=predict.images, gradients_asked=predict.gradients, seconds=time.perf_counter() - began,
    )  # fmt: skip


def _look(
    predict: Counted,
    images: Tensor,
    labels: Tensor,
    right: dict[str, Tensor],
    ensemble: list[Attack],
    again: Attack,
    eps: float,
    norm: str,
    steps: int,
    generator: torch.Generator,
) -> tuple[list[tuple[float, float]], list[Flag | None]]:
    """The curve over eps, and the flags of the checks that ask the model again."""
    how = {"eps": eps, "norm": norm, "generator": generator}
    points = probe.curve(predict, images, labels, **how)
    clean = probe.share(right["clean"])
    flags = [
        *probe.outputs(predict, images, labels),
        *probe.over_eps(points, clean, len(images)),
        probe.longer(predict, images, labels, dict(points)[eps], **how),
        probe.beyond(predict, images, labels, right["robust"], attack=again, steps=steps, generator=generator),
    ]
    if all(attack.kind != "black" for attack in ensemble):
        flags.append(probe.without_gradients(predict, images, labels, right["robust"], **how))
    return points, flags


def _compare(right: dict[str, Tensor], ensemble: list[Attack]) -> list[Flag | None]:
    """The flags that the masks of the ensemble itself raise."""
    n, white = len(right["clean"]), right["clean"]
    share = {name: probe.share(mask) for name, mask in right.items()}
    of_kind = {kind: [a.name for a in ensemble if a.kind == kind] for kind in ("white", "black", "transfer")}
    for name in of_kind["white"]:
        white = white & right[name]
    found: list[Flag | None] = []
    for kind, check_kind in (("black", check_for.black_box), ("transfer", check_for.transfer)):
        for name in of_kind[kind]:
            found.append(check_kind(probe.share(white & ~right[name]), n))
    first, second = of_kind["white"]
    return [*found, check_for.margin_and_cross_entropy(share[first], share[second])]


@contextmanager
def eval_mode(*models: nn.Module | None) -> Iterator[None]:
    """The models in eval mode inside; outside, each of their modules as it was."""
    modes = [(m, m.training) for model in models if isinstance(model, nn.Module) for m in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
