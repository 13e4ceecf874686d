"""`patch` makes a trained model more robust by a learned optimizer, and `train` a fresh one, without attacked images.

    phi_{t+1} = phi_t + u_t,    u_t = the learned step for the gradient of what the rule minimises on *clean* images

A few such steps, a second of work for a small model. What came of it is then measured, with attacks, on images that it
did not train on. A patch that costs too much clean accuracy is taken in part, phi_0 + part * (phi_T - phi_0), and where
no part is cheap enough, not at all. Whether it helps depends on the model: the pretrained optimizers have seen small
networks and small images alone (`pretrained.card`), so read the report.
"""

import copy
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from metarobust.attacks import counting
from metarobust.attacks.inputs import check_inputs
from metarobust.errors import InputError, check_count, plain
from metarobust.evaluation import correct, evaluate
from metarobust.evaluation.measure import eval_mode
from metarobust.evaluation.probe import share
from metarobust.fitting import PENALISED, PLAIN, check_copy, copied, keep_largest_part, mode, scope, split, take_steps
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.optim import MetaOptimizer
from metarobust.params import ParamSpec
from metarobust.patch_report import PatchReport
from metarobust.pretrained import PATCH, TRAIN, unfamiliar

BAR = "{l_bar}{bar}| {elapsed} so far, {remaining} to go at most"
ADVICE = "fine-tuning on attacked images is safer: loss = F.cross_entropy(model(pgd(model, x, y, eps={}, steps=7)), y)"


@torch.inference_mode(False)
@torch.enable_grad()
def patch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    optimizer: str | LearnedOptimizer = PATCH,
    steps: int = 100,
    batch_size: int = 64,
    eps: float = 0.1,
    held_out: float = 0.2,
    max_clean_drop: float = 0.05,
    fresh: bool = False,
    attacks: str = "quick",
    measure: float = 1.0,
    seed: int = 0,
    label: str | None = "patch",
) -> tuple[nn.Module, PatchReport]:
    """A patched copy of a model, and what the patch did.

    The model itself is left as it is. The copy is patched in eval mode, the way it will be used: dropout is off. Batch
    normalisation alone is in train mode, so that its averages follow the weights; all is measured in eval mode.
    Parameters that are frozen stay. The copy comes back in the modes of the original, and without gradients. A rule
    that has not met the like of the model says so in a warning before it begins, and in the report.

    Args:
        model: maps images `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.
        images: clean images `[n, C, H, W]` to patch with and to measure on.
        labels: `[n]`, int64.
        optimizer: a name of `pretrained.available()`, or a learned optimizer of any kind.
        steps: how many the patch has; "patch" learned with 100, the other rules for patching with 20.
        batch_size: images a step; they learned with 64.
        eps: L-infinity radius to be robust at, and to measure at, in pixel units.
        held_out: the share of each class that is measured on and not trained on. Best are images that the model was
            not trained on either.
        max_clean_drop: where clean accuracy on the held-out images falls by more (0.05 is 5 points), the largest part
            of the patch, 3/4, 1/2 or 1/4, that does not cost so much is returned, or the old parameters. Since these
            images decide, the clean accuracy reported of a part is a little on the bright side.
        fresh: whether the copy is moved in train mode, as a model that has learned nothing yet.
        attacks: as in `evaluate`.
        measure: how many times the work of the steps may go into measuring, beyond what takes seconds; the report says
            what is left out. `math.inf` measures all, 0 as little as can be: ten images.
        seed: of the split, the batches, the noise and the attacks.
        label: of a progress bar; None for none.

    Raises:
        InputError: a bad number, images outside [0, 1], too few images of every class to hold some out, or a model
            that has no parameters to train, cannot be copied, or is another one after its own `eval()`.
    """
    eps = plain(eps)
    check_inputs(images, labels, eps=eps, norm="linf")
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    for name, value in (("max_clean_drop", max_clean_drop), ("measure", measure)):
        if not value >= 0:
            raise InputError(f"{name} is {value!r}; give a number of 0 or more, as for 5 points max_clean_drop=0.05")
    images = images.detach()
    train, test = split(labels, held_out, torch.Generator().manual_seed(seed))
    moved, few, held = copied(model), images[train[:2]], (images[test], labels[test])
    meta_optimizer = MetaOptimizer(moved.parameters(), optimizer, total_steps=steps, eps=eps)
    known = isinstance(optimizer, str)
    if warning := unfamiliar(optimizer, ParamSpec.of(moved), tuple(few.shape[1:])) if known else "":
        warning = f"{warning}; {ADVICE.format(eps)}"
        warnings.warn(warning, stacklevel=4)
    with counting() as probe, eval_mode(model, moved):
        check_copy(model, moved, meta_optimizer.loss(moved, few, labels[train[:2]], torch.Generator(few.device)))
        work = steps * batch_size * (PENALISED if probe.points else PLAIN)
        rows, checks, asks, left_out = scope(moved, held[0], attacks, measure * work)
    some, how = [x[rows] for x in held], {"eps": eps, "attacks": attacks, "checks": checks, "seed": seed, "label": None}
    shown = {"desc": label, "disable": label is None, "leave": False, "delay": 1, "smoothing": 0, "bar_format": BAR}
    bar = tqdm(total=work / 3 + asks, **shown)
    hook = moved.register_forward_pre_hook(lambda _, x: bar.update(len(x[0]) * (1 + x[0].requires_grad) / 2) and None)
    with bar, eval_mode(moved), counting() as measured:
        before, old = evaluate(moved, *some, **how), copy.deepcopy(moved.state_dict())
        bar.update(asks / 2 - bar.n)  # images that fall are asked about no more
        least, start = share(correct(moved, *held)) - max_clean_drop, time.perf_counter()
        with counting() as in_use, mode(moved, train=fresh):
            take_steps(moved, meta_optimizer, images, labels, train, batch_size, seed)
        part, seconds = keep_largest_part(moved, old, *held, least), time.perf_counter() - start
        # What is measured where nothing is kept is the whole way: the report says what was undone.
        tried, here, again = evaluate(moved, *some, **how), moved(few), moved(few)
        hook.remove()
        moved.train()  # as whoever gets it will
        if torch.equal(here, again) and not torch.equal(here, moved.eval()(few)):
            raise InputError("the model's own train() or eval() exchanges its weights; give the network that it holds")
    return moved if part else copied(model), PatchReport(
        before=before,
        tried=tried,
        part=part,
        max_clean_drop=max_clean_drop,
        optimizer=optimizer if known else type(optimizer).__name__,
        steps=steps,
        batch_size=batch_size,
        images=len(train),
        examples_in_use=in_use.examples,
        points_in_use=in_use.points,
        examples_to_measure=measured.examples - in_use.examples,
        seconds=seconds,
        done="trained" if fresh else "patched",
        warning=warning,
        left_out=left_out,
    )


def train(
    model: nn.Module, images: Tensor, labels: Tensor, *, optimizer: str | LearnedOptimizer = TRAIN, **more: Any
) -> tuple[nn.Module, PatchReport]:
    """A trained copy of a fresh model, and what the training did: `patch` in train mode, all of which is kept.

    Args:
        model: maps images `[n, C, H, W]` in [0, 1] to logits `[n, classes]`; its parameters are where training begins.
        images: clean images `[n, C, H, W]` to train with and to measure on.
        labels: `[n]`, int64.
        optimizer: as in `patch`. "train" learned with 100 steps, and knows of other numbers only that decay is to be
            spread over them.
        **more: steps, batch_size, eps, held_out, attacks, measure, seed and label, as in `patch`.

    Raises:
        InputError: as `patch`.
    """
    how = {"fresh": True, "max_clean_drop": 1.0, "label": "train"} | more
    return patch(model, images, labels, optimizer=optimizer, **how)
