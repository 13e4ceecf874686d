"""The Square attack: random search with squares. It asks for logits alone, so a model cannot hide its gradient.

    x_0 = x + a random pattern,    x' = x_k, changed at random in a square,    both of length eps and in [0, 1]
    x_{k+1} = x' where its margin is higher, else x_k

The square has a share p of the image's pixels: 0.8 at first, halved on a schedule, so that the search goes from coarse
to fine. What the pattern is, and what is changed, depends on the norm: see `square_linf` and `square_l2`.

Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithm 1 and section 3; 0.8 and the 5,000 queries are those of
AutoAttack, Croce and Hein 2020 (arXiv 2003.01690).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks import square_l2, square_linf
from metarobust.attacks.counter import made
from metarobust.attacks.criterion import Criterion, first_value
from metarobust.attacks.threat import check, check_answer, check_count, check_generator
from metarobust.errors import InputError

SHARE = 0.8
HALVE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
MOVES = {"linf": square_linf, "l2": square_l2}


@torch.no_grad()
def square(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: str = "linf",
    toward: Tensor | None = None,
    generator: torch.Generator,
    leave: bool = True,
) -> Tensor:
    """Adversarial images `[n, C, H, W]`, within eps of `images` and within [0, 1].

    predict: images to logits, each image alone; it need not be differentiable. images: floats in [0, 1]. labels: int64
    `[n]`. eps: radius in pixel units. norm: `linf` or `l2`. generator: of the search. queries: how often the model is
    asked about an image that stands to the end. toward: the wrong classes that the model shall say, int64 `[n]`; None
    for any. leave: see `apgd`.
    An image that is wrong (with `toward`: said to be that very class) as it is comes back as it is; one that was turned
    leaves the search; the rest come back as the point of highest margin.
    Raises InputError for input that `threat.check` refuses and for images without height and width.
    """
    check(images, labels, eps, norm, toward)
    if images.ndim != 4:
        raise InputError(
            f"images have shape {list(images.shape)}; squares need [n, channels, height, width]: give those"
        )
    check_count("queries", queries)
    if generator is None:
        raise InputError("generator is None; the search is random: pass generator=torch.Generator()")
    check_generator(generator)
    check_answer("leave", leave)
    goal = Criterion("margin", labels, toward)
    made(len(images))
    _, _, left = first_value(predict, images, goal, alone=leave)
    done = torch.ones(len(images), dtype=torch.bool, device=images.device).index_fill(0, left, False)
    left = left if leave else torch.arange(len(images), device=images.device)
    worst = images.detach().clone()
    highest = images.new_full((len(images),), -torch.inf)
    moves = MOVES[norm]
    first, later = moves.numbers(*images.shape[1:])
    # All numbers are drawn at once, and those of an image lie together: so a set in parts, one after the other, is
    # attacked as the whole is, whichever images leave. They are few beside what a network keeps of an image.
    chance = torch.rand((len(images), first + (queries - 1) * later), generator=generator, device=generator.device)
    chance = chance.to(images.device)
    x, current, aim = images[left], images[left], goal.of(left)
    for query in range(queries):
        if not len(left):
            break
        if query == 0:
            trial = moves.begin(x, eps, chance[left, :first])
        else:
            at = first + (query - 1) * later
            trial = moves.change(x, current, eps, share(query, queries), chance[left, at : at + later])
        logits = predict(trial)
        value, turned = aim.losses(logits), aim.reached(logits)
        better = (turned | (value > highest[left])) & ~done[left]
        current[better], highest[left[better]] = trial[better], value[better].to(highest.dtype)
        done[left] |= turned
        if leave and bool(turned.any()):
            worst[left] = current
            left, x, current = left[~turned], x[~turned], current[~turned]
            aim = goal.of(left)
    worst[left] = current
    return worst


def share(query: int, queries: int) -> float:
    """p, the square's share of the image: 0.8, halved as the schedule for 10,000 queries says, to scale."""
    return SHARE / 2 ** sum(query / queries > at / 10_000 for at in HALVE)
