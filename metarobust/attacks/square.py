"""The Square attack: random search with squares. It asks for logits alone, so a model cannot hide its gradient.

    x_0 = x + a random pattern,    x' = x_k, changed at random in a square,    both of length eps and in [0, 1]
    x_{k+1} = x' where its margin is higher, else x_k

The square has a share p of the image's pixels: 0.8 at first, halved on a schedule, so that the search goes from coarse
to fine. What the pattern is, and what is changed, depends on the norm: see `square_linf` and `square_l2`.

Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithm 1 and section 3; 0.8 and the 5,000 queries are those of
AutoAttack, Croce and Hein 2020 (arXiv 2003.01690).
"""

import torch
from torch import Tensor

from metarobust.attacks import square_l2, square_linf
from metarobust.attacks.criterion import Criterion, Predict, first_look, value_and_grad
from metarobust.attacks.inputs import attack
from metarobust.attacks.threat import project, wide
from metarobust.errors import InputError

SHARE = 0.8
HALVE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
MOVES = {"linf": square_linf, "l2": square_l2}


@attack
@torch.no_grad()
def square(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: str = "linf",
    targets: Tensor | None = None,
    generator: torch.Generator,
    early_exit: bool = True,
) -> Tensor:
    """Random changes in squares, of which those stay that raise the margin.

    Args:
        predict: images to logits, each image alone; it need not be differentiable.
        images: floats in [0, 1], `[n, C, H, W]`.
        labels, eps, norm, targets: as in `pgd`.
        queries: how often the model is asked about an image that stands to the end.
        generator: of the search.
        early_exit: as in `apgd`.

    Returns:
        Adversarial images `[n, C, H, W]`, within eps of `images` and within [0, 1]. An image that is misclassified
        (with targets: as just that class) as it is comes back as it is; one that was turned, as the first point that
        did it; the others, as the point of highest margin.

    Raises:
        InputError: for bad input, and for images without height and width.
    """
    if generator is None:
        raise InputError("generator is None; the search is random: pass generator=torch.Generator()")
    check_pictures(images)
    criterion = Criterion("margin", labels, targets)
    _, losses, done, rows = first_look(predict, images, criterion, early_exit=early_exit)
    worst, highest = wide(images).clone(), torch.full_like(losses, -torch.inf)
    moves = MOVES[norm]
    first, later = moves.numbers(*images.shape[1:])
    # All numbers are drawn at once, and those of an image lie together: so a set in parts, one after the other, is
    # attacked as the whole is, whichever images leave. They are few beside what a network keeps of an image.
    how = {"dtype": torch.float32, "device": generator.device}
    uniform = torch.rand((len(images), first + (queries - 1) * later), generator=generator, **how)
    uniform = uniform.to(images.device)
    x, current, criterion = images[rows], worst[rows], criterion.of(rows)
    for query in range(queries):
        if not len(rows):
            break
        if query == 0:
            trial = moves.start(x, eps, uniform[rows, :first])
        else:
            at = first + (query - 1) * later
            trial = moves.propose(x, current, eps, share(query, queries), uniform[rows, at : at + later])
        if trial.dtype != images.dtype:
            trial = project(trial, x, eps, norm)
        logits, losses, _ = value_and_grad(predict, trial, criterion, gradient=False)
        turned = criterion.reached(logits)
        better = (turned | (losses > highest[rows])) & ~done[rows]
        current[better], highest[rows[better]] = trial[better], losses[better]
        done[rows] |= turned
        if early_exit and bool(turned.any()):
            worst[rows] = current
            rows, x, current, criterion = rows[~turned], x[~turned], current[~turned], criterion.of(~turned)
    worst[rows] = current
    return worst


def check_pictures(images: Tensor) -> None:
    """Raise InputError for images without height and width."""
    if isinstance(images, Tensor) and images.ndim != 4:
        raise InputError(
            f"images have shape {list(images.shape)}; squares need [n, channels, height, width]: give those, or 'quick'"
        )


def share(query: int, queries: int) -> float:
    """p, the square's share of the image: 0.8, halved as the schedule for 10,000 queries says, to scale."""
    return SHARE / 2 ** sum(query / queries > at / 10_000 for at in HALVE)
