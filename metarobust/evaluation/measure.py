"""`evaluate`: clean and robust accuracy of a model, with what it took to measure them and what looks suspect.

Robust accuracy is the share of images that are right as they are and that no attack of the ensemble turns. It is an
upper bound: a stronger attack can only lower it. That is why the report names its attacks, and carries the flags of
checks that know how such figures go wrong.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor, nn

from metarobust.attacks.criterion import Predict, checked
from metarobust.attacks.inputs import careful, check_inputs, inputs_checked
from metarobust.attacks.square import check_pictures
from metarobust.errors import InputError, choose
from metarobust.evaluation import checks as check_for
from metarobust.evaluation.checks import Flag
from metarobust.evaluation.ensemble import Attack, quick, robust_masks, standard, transferred
from metarobust.evaluation.intervals import wilson
from metarobust.evaluation.probe import Curve, Probe, share
from metarobust.evaluation.report import Report

STEPS = {"standard": 100, "quick": 40}


class QueryCounter:
    """A model that counts the images it was asked about: in all, and with a gradient."""

    def __init__(self, model: Predict):
        self.model, self.images, self.gradients = model, 0, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        self.gradients += len(images) * images.requires_grad
        return self.model(images)


@careful
def evaluate(
    model: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    attacks: str = "standard",
    surrogate: Predict | None = None,
    steps: int | None = None,
    restarts: int = 2,
    queries: int = 5000,
    independent: bool = True,
    checks: int = 100,
    batch_size: int = 1000,
    seed: int = 0,
    label: str | None = "evaluate",
) -> Report:
    """Clean and robust accuracy of a model.

    Args:
        model: maps images in [0, 1] to logits `[n, classes]`; a module or any function. A module is put in eval mode,
            as it defines it, and left in the mode, and with the gradients and buffers, it came with.
        images: floats in [0, 1], `[n, C, H, W]`, or for `quick` of any shape `[n, ...]`.
        labels: int64 `[n]`.
        eps: radius in pixel units.
        norm: `linf` or `l2`.
        attacks: `standard` (APGD on cross-entropy, APGD toward wrong classes, Square) or `quick` (PGD on cross-entropy
            and margin).
        surrogate: another model for the same task; its adversarial images are tried as well.
        steps: of each gradient attack; None for 100 or 40.
        restarts: of PGD, and of APGD on cross-entropy.
        queries: of Square.
        independent: see `robust_masks`; False is faster, and gives the worst case but no figure for each attack.
        checks: how many of the images the checks look at; 0 for none.
        batch_size: images asked about at once; it changes the memory needed and not the result.
        seed: of all random numbers.
        label: of a progress bar; None for none.

    Raises:
        InputError: for an empty set of images, images outside [0, 1], labels the model has no output for, a bad eps.
    """
    classes = check_inputs(images, labels, eps=eps, norm=norm)
    usual = STEPS[choose(attacks, STEPS, "set of attacks")]
    steps = usual if steps is None else steps
    if not len(images) or batch_size < 1 or checks < 0:
        raise InputError(
            f"evaluating {len(images)} images in batches of {batch_size}, with checks on {checks}: "
            f"give at least one image, batches of at least 1, and 0 or more images to check"
        )
    if attacks == "standard":
        check_pictures(images)
    began, predict = time.perf_counter(), QueryCounter(model)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that the size of a batch changes nothing
    came_in_train_mode = check_for.train_mode(model)
    with eval_mode(model, surrogate), inputs_checked():
        with torch.no_grad():
            alone = checked(model, images, classes)(images[:1])
        make = partial(quick, eps=eps, norm=norm, restarts=restarts)
        if attacks == "standard":
            make = partial(standard, eps=eps, norm=norm, restarts=restarts, queries=queries, classes=alone.shape[1])
        ensemble = make(steps=steps)
        if surrogate is not None:
            ensemble.append(transferred(surrogate, eps=eps, norm=norm))
        how = {"generator": generator, "independent": independent, "batch_size": batch_size, "label": label}
        masks = robust_masks(predict, images, labels, ensemble, **how)
        curve: Curve = []
        flags: list[Flag | None] = []
        if checks:
            probe = Probe(predict, images[:checks], labels[:checks], eps, norm, generator)
            some = {name: mask[:checks] for name, mask in masks.items()}
            curve, flags = probe.run(some, ensemble, longer=make(steps=4 * steps)[0], alone=alone)
            flags += [came_in_train_mode, *_compare(masks, ensemble)]
    n, right = len(images), {name: int(mask.sum()) for name, mask in masks.items()}
    return Report(
        clean=right["clean"] / n,
        robust=right["robust"] / n,
        n=n,
        clean_interval=wilson(right["clean"], n),
        robust_interval=wilson(right["robust"], n),
        under={attack.name: right[attack.name] / n for attack in ensemble},
        eps=float(eps),
        norm=norm,
        attacks=attacks,
        steps=steps,
        restarts=restarts,
        independent=independent,
        seed=seed,
        checked=min(checks, n),
        flags=tuple(filter(None, flags)),
        curve=tuple(curve),
        images_asked=predict.images,
        gradients_asked=predict.gradients,
        seconds=time.perf_counter() - began,
    )


def _compare(masks: dict[str, Tensor], ensemble: list[Attack]) -> list[Flag | None]:
    """The flags that the masks of the ensemble itself raise."""
    n, stood, white = len(masks["clean"]), masks["clean"], [a.name for a in ensemble if a.kind == "white"]
    for name in white:
        stood = stood & masks[name]
    kinds = {"black": check_for.black_box, "transfer": check_for.transfer}
    others = [attack for attack in ensemble if attack.kind in kinds]
    flags = [kinds[attack.kind](share(stood & ~masks[attack.name]), n) for attack in others]
    cross_entropy, margin = (share(masks[name]) for name in white)
    return [*flags, check_for.margin_and_cross_entropy(cross_entropy, margin)]


@contextmanager
def eval_mode(*models: object) -> Iterator[None]:
    """Inside, those that are modules are in eval mode, as they define it; outside, each of their parts is as it was."""
    given = [model for model in models if isinstance(model, nn.Module)]
    came = {m: m.training for model in given for m in model.modules() if hasattr(m, "training")}
    for model in given:
        if any(came.get(m) for m in model.modules()):
            with suppress(NotImplementedError):  # of torch.export: it is measured in the mode it was exported in
                model.eval()
    inside = {m: m.training for m in came}
    try:
        yield
    finally:
        for module in came:
            module.training = inside[module]
        for module in came:  # parents come first
            if module.training != came[module]:
                module.train(came[module])
        for module in came:
            module.training = came[module]
