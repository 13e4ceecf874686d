"""`train`: a fresh model trained to be robust by a learned optimizer, without an adversarial example.

It is to fresh models what `metarobust.patch` is to trained ones. Both are `fit_and_report`: split, measure, take steps,
measure again. The steps themselves are a few lines that work as well in a training loop of your own.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from metarobust.attacks import counting
from metarobust.attacks.inputs import check_inputs
from metarobust.errors import InputError, check_count
from metarobust.evaluation import evaluate
from metarobust.evaluation.measure import eval_mode
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.optim import MetaOptimizer
from metarobust.params import ParamSpec
from metarobust.patch_report import PatchReport
from metarobust.pretrained import TRAIN, unfamiliar


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    optimizer: str | LearnedOptimizer = TRAIN,
    steps: int = 100,
    batch_size: int = 64,
    eps: float = 0.1,
    held_out: float = 0.2,
    attacks: str = "quick",
    seed: int = 0,
    label: str | None = "train",
) -> tuple[nn.Module, PatchReport]:
    """A trained copy of a fresh model, and what the training did.

    The model itself is left as it is. The copy is trained in train mode and measured in eval mode.

    Args:
        model: maps images `[n, C, H, W]` in [0, 1] to logits `[n, classes]`; its parameters are where training begins.
        images: clean images `[n, C, H, W]` to train with and to measure on.
        labels: `[n]`, int64.
        optimizer: a name of `pretrained.available()`, or a learned optimizer of any kind.
        steps: how many; "train" learned with 100, and knows of other numbers only that decay is to be spread over them.
        batch_size: images a step; it learned with 64.
        eps: L-infinity radius to be robust at, and to measure at, in pixel units.
        held_out: the share of each class that is measured on and not trained on.
        attacks: as in `evaluate`.
        seed: of the split, the batches, the noise and the attacks.
        label: of a progress bar; None for none.

    Raises:
        InputError: a bad number, images outside [0, 1], too few images of every class to hold some out, or a model
            without parameters to train.
    """
    numbers = {"steps": steps, "batch_size": batch_size, "eps": eps, "held_out": held_out, "seed": seed}
    return fit_and_report(
        model, images, labels, optimizer, fresh=True, keep=lambda *_: 1.0, attacks=attacks, label=label, **numbers
    )


def fit_and_report(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: str | LearnedOptimizer,
    *,
    fresh: bool,
    keep: Callable[[nn.Module, dict[str, Tensor], Tensor, Tensor], float],
    steps: int,
    batch_size: int,
    eps: float,
    held_out: float,
    attacks: str,
    seed: int,
    label: str | None,
    max_clean_drop: float = 1.0,
) -> tuple[nn.Module, PatchReport]:
    """What `train` and `patch` do.

    Args:
        fresh: whether the copy is moved in train mode.
        keep: given the moved copy in eval mode, its old state and the held-out images and labels, leaves it with the
            part of the way that is to be kept, and returns which; 0 for none, and then with all of it.
        max_clean_drop: what the report says of it.
        The others are as in `train`.
    """
    check_inputs(images, labels, eps=eps, norm="linf")
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    train, test = split(labels, held_out, torch.Generator().manual_seed(seed))
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no parameter to train; unfreeze some: p.requires_grad_()")
    moved, how = copy.deepcopy(model), {"eps": eps, "attacks": attacks, "seed": seed, "label": label}
    moved.zero_grad(set_to_none=True)
    meta_optimizer = MetaOptimizer(moved.parameters(), optimizer, total_steps=steps, eps=eps)
    old = copy.deepcopy(moved.state_dict())
    with counting() as measured:
        before = evaluate(moved, images[test], labels[test], **how)
    start = time.perf_counter()
    with counting() as in_use:
        with mode(moved, train=fresh):
            take_steps(moved, meta_optimizer, images, labels, train, batch_size, seed, label)
        with eval_mode(moved):
            part = keep(moved, old, images[test], labels[test])
    seconds = time.perf_counter() - start
    # What is measured where nothing is kept is the whole way: the report says what was undone.
    with counting() as measured_again:
        tried = evaluate(moved, images[test], labels[test], **how)
    if part == 0:
        moved.load_state_dict(old)
    known = isinstance(optimizer, str)
    return moved, PatchReport(
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
        examples_to_measure=measured.examples + measured_again.examples,
        seconds=seconds,
        done="trained" if fresh else "patched",
        warning=unfamiliar(optimizer, ParamSpec.of(moved)) if known else "",
    )


def take_steps(
    model: nn.Module,
    optimizer: MetaOptimizer,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    batch_size: int,
    seed: int,
    label: str | None,
) -> None:
    """Takes all steps of an optimizer, on batches at random with repetition, as in meta-training.

    Args:
        model: is moved in the mode it is in.
        index: of the images to train with.
        seed: of the batches; noise has a stream of its own.
        label: of a progress bar; None for none.
        The others are as in `train`.
    """
    batch_rng = torch.Generator().manual_seed(seed)
    noise_rng = torch.Generator(images.device).manual_seed(seed + 1)
    for _ in tqdm(range(optimizer.param_groups[0]["total_steps"]), desc=label, leave=False, disable=label is None):
        rows = index[torch.randint(len(index), (batch_size,), generator=batch_rng).to(index.device)]
        optimizer.zero_grad()
        optimizer.loss(model, images[rows], labels[rows], noise_rng).backward()
        optimizer.step()
    optimizer.zero_grad()


@contextmanager
def mode(model: nn.Module, *, train: bool) -> Iterator[None]:
    """The mode a model is moved in; outside, each of its modules is as it was.

    A trained model is moved as it will be used, in eval mode: dropout is off. Its batch normalisation alone is not:
    averages that stay while the weights under them move are wrong in the end. A layer of it whose parameters are frozen
    keeps its averages.
    """
    with eval_mode(model):
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            module.training = train or (isinstance(module, _BatchNorm) and any(p.requires_grad for p in own))
        yield


def split(labels: Tensor, held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out: that share of each class, rounded; at least one where there are two.

    Raises:
        InputError: the share is outside (0, 1), or no class has two images.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out!r}; give the share of the images to measure on, between 0 and 1")
    known = labels.cpu()
    order = torch.randperm(len(known), generator=generator)
    train, test = [], []
    for label in known.unique():
        rows = order[known[order] == label]
        count = min(max(round(held_out * len(rows)), 1), len(rows) - 1)
        test.append(rows[:count])
        train.append(rows[count:])
    if not train or not sum(map(len, test)):
        raise InputError(
            f"{len(known)} images, no class with two of them: give more, some to train with, some to measure"
        )
    return torch.cat(train).to(labels.device), torch.cat(test).to(labels.device)
