"""What `patch` is made of: a copy, steps, the part of them that is kept, images held out, and how much is measured."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from metarobust.errors import InputError, choose, short_repr
from metarobust.evaluation import correct
from metarobust.evaluation.measure import eval_mode
from metarobust.evaluation.probe import share
from metarobust.optim import MetaOptimizer

PARTS = (1.0, 0.75, 0.5, 0.25)
"""How much of a patch is tried, in this order."""
ASKS = {"quick": (160, 1130), "standard": (3600, 1360)}
"""Gradients that `evaluate` asks for an image at most: for its figures, and for its checks."""
PLAIN, PENALISED = 1.5, 6.0  # gradients that a step costs for an image
SMALL = 1e12  # floating-point operations that measuring may always take: seconds on a laptop
LEAST = 10  # images that are attacked, however large the model; with fewer to check, none are


class _Detached(TorchFunctionMode):
    """Copies without its past what a forward pass left on a module: a normed or pruned weight, a kept activation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, in its modes and without gradients. Raises InputError where that cannot be, or be trained."""
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {short_repr(model)}; give an nn.Module, for its parameters are what is moved")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InputError("the model is TorchScript, which cannot be moved; give the module that it was made of")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no parameter to train; unfreeze some: p.requires_grad_()")
    try:
        with _Detached():
            return copy.deepcopy(model)
    except Exception as error:
        raise InputError(f"the model cannot be copied ({error}); take what that names off its modules") from error


def check_copy(model: nn.Module, own: nn.Module, loss: Tensor) -> None:
    """Raises InputError where a loss of a copy, `own`, would move nothing, or the original: no function is copied."""
    here, there = ([p for p in m.parameters() if p.requires_grad] for m in (own, model))
    found = torch.autograd.grad(loss, [*here, *there], allow_unused=True) if loss.requires_grad else ()
    if any(grad is not None for grad in found[len(here) :]):
        raise InputError(
            "a copy of this model still runs the original: a function is set on it (as m.forward = ...), or a hook or "
            "decorator holds it; take that off, and put it on the model that comes back"
        )
    if all(grad is None for grad in found):
        raise InputError("no gradient reaches a parameter that is free; unfreeze some that the logits depend on")


def take_steps(
    model: nn.Module,
    optimizer: MetaOptimizer,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    batch_size: int,
    seed: int,
) -> None:
    """Takes all steps of an optimizer, on batches at random with repetition, as in meta-training.

    Args:
        model: is moved in the mode it is in.
        index: of the images to train with.
        seed: of the batches; noise has a stream of its own.
        The others are as in `patch`.
    """
    batch_rng = torch.Generator().manual_seed(seed)
    noise_rng = torch.Generator(images.device).manual_seed(seed + 1)
    for _ in range(optimizer.param_groups[0]["total_steps"]):
        rows = index[torch.randint(len(index), (batch_size,), generator=batch_rng, device="cpu").to(index.device)]
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
        for module in [model] if train else model.modules():
            own = list(module.parameters(recurse=False))
            if train or (isinstance(module, _BatchNorm) and any(p.requires_grad for p in own)):
                module.train()
        yield


def keep_largest_part(model: nn.Module, old: dict[str, Tensor], images: Tensor, labels: Tensor, least: float) -> float:
    """Leaves the model with the largest part of its way from `old` whose clean accuracy is `least`, and says which.

    0 where none is; the model then has gone the whole way. Networks that are near each other in their parameters are
    joined by a line along which they work (Frankle et al. 2020, arXiv 1912.05671).
    """
    new = copy.deepcopy(model.state_dict())

    def clean(part: float) -> float:
        mixed = {
            name: torch.lerp(value, new[name], part)
            if part < 1 and isinstance(value, Tensor) and value.is_floating_point()
            else new[name]
            for name, value in old.items()
        }
        model.load_state_dict(mixed)
        torch.clear_autocast_cache()  # inside one autocast region it has the weights as they were
        return share(correct(model, images, labels))

    # nan is never right, so a way that ended there is undone too.
    part = next((part for part in PARTS if clean(part) >= least), 0.0)
    if not part:
        clean(1.0)
    return part


def split(labels: Tensor, held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out: that share of each class, rounded; at least one where there are two.

    Raises:
        InputError: the share is outside (0, 1), or no class has two images.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out!r}; give the share of the images to measure on, between 0 and 1")
    known = labels.cpu()
    order = torch.randperm(len(known), generator=generator, device="cpu")
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


def scope(model: nn.Module, images: Tensor, attacks: str, budget: float) -> tuple[Tensor, int, float, str]:
    """What two evaluations of a model in eval mode may look at: in proportion to the steps, and alike on every machine.

    Work is counted in gradients that a model is asked for an image; two logits count as one. Attacks ask for hundreds
    an image. So a large model is measured on fewer images, and without checks, where the steps were few; what takes
    seconds is always measured in full.

    Args:
        images: `[n, C, H, W]`, held out.
        attacks: as in `evaluate`.
        budget: gradients that both may ask for, beyond what is small.

    Returns:
        Rows of the images; how many the checks look at; gradients asked for at most; what is left out, or nothing.
    """
    n, (figures, checks) = len(images), ASKS[choose(attacks, ASKS, "set of attacks")]
    # It warns of hooks on compiled models, which do no harm.
    with warnings.catch_warnings(action="ignore"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[:1])
    if budget:  # a gradient is a pass there and back
        budget = max(budget, SMALL / max(2 * counter.get_total_flops(), 1))
    attacked = n if 2 * figures * n <= budget else min(n, max(int(budget / 2 // figures), LEAST))
    checked, left = min(attacked, 100), budget / 2 - figures * attacked
    if checks * checked > left:
        checked = int(left // checks) if left >= LEAST * checks else 0
    asks = 2.0 * (figures * attacked + checks * checked)
    if (attacked, checked) == (n, min(n, 100)):
        return torch.arange(n, device="cpu"), checked, asks, ""
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu")[:attacked]
    left_out = f"{attacked} of {n} held-out images were attacked and {checked} checked; measure=math.inf takes all"
    return rows, checked, asks, left_out
