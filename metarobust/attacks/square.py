"""The Square attack: random search with squares. It asks for logits alone, so a model cannot hide its gradient.

    x_0 = clip(x + eps * stripes),    stripes: a random sign for each colour and column
    x'  = x_k, but in a random square:  clip(x + eps * c),    c: a random sign for each colour
    x_{k+1} = x' where its margin is higher, else x_k

Every pixel stays at a corner of the ball, where the strongest perturbations lie. The square has a share p of the
image's pixels: 0.8 at first, halved on a schedule, so that the search goes from coarse to fine.

Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithms 1 and 2 and section 3; 0.8 and the 5,000 queries are
those of AutoAttack, Croce and Hein 2020 (arXiv 2003.01690). L-infinity only: the l2 form is another search.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.count import made
from metarobust.attacks.losses import margin
from metarobust.attacks.standing import first_look, fooled
from metarobust.attacks.threat import check
from metarobust.errors import InputError

SHARE = 0.8
HALVE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


@torch.no_grad()
def square(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: str = "linf",
    generator: torch.Generator,
) -> Tensor:
    """Adversarial images `[n, C, H, W]`, within eps of `images` in L-infinity and within [0, 1].

    predict: images to logits, each image alone; it need not be differentiable. images: floats in [0, 1]. labels: int64
    `[n]`. eps: radius in pixel units. queries: how often the model is asked about an image that stands to the end.
    An image that is wrong as it is comes back as it is; one that was turned leaves the search; the rest come back as
    the point of highest margin.
    Raises InputError for input that `threat.check` refuses, for another norm and for images without height and width.
    """
    top = check(images, labels, eps, norm)
    if norm != "linf":
        raise InputError(f"the square attack was given norm {norm!r}; it is here for 'linf' only: use apgd for l2")
    if images.ndim != 4:
        raise InputError(f"images have shape {list(images.shape)}; squares need [n, channels, height, width]")
    if queries < 1:
        raise InputError(f"the square attack was given queries={queries}; they count from 1")
    if not isinstance(generator, torch.Generator):
        raise InputError(f"generator is {generator!r}; the search is random: pass generator=torch.Generator()")
    made(len(images))
    _, left = first_look(predict, images, labels, top)
    worst = images.detach().clone()
    highest = images.new_full((len(images),), -torch.inf)
    for query in range(queries):
        if not len(left):
            break
        x, y = images[left], labels[left]
        shape = (*x.shape[:2], 1, x.shape[3] if query == 0 else 1)
        sign = torch.randint(2, shape, generator=generator, device=x.device).to(x.dtype) * 2 - 1
        trial = (x + eps * sign).clamp(0, 1)
        if query:
            trial = torch.where(_squares(x, share(query, queries), generator), trial, worst[left])
        logits = predict(trial)
        value, turned = margin(logits, y), fooled(logits, y)
        better = turned | (value > highest[left])
        worst[left[better]], highest[left[better]] = trial[better], value[better].to(highest.dtype)
        left = left[~turned]
    return worst


def share(query: int, queries: int) -> float:
    """p, the square's share of the image: 0.8, halved as the schedule for 10,000 queries says, to scale."""
    return SHARE / 2 ** sum(query / queries > at / 10_000 for at in HALVE)


def _squares(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """For each image a square at a random place, as a mask `[n, 1, H, W]`; at least a pixel, at most all that fits."""
    n, _, height, width = images.shape
    side = min(max(round((share * height * width) ** 0.5), 1), height, width)

    def band(size: int) -> Tensor:
        first = torch.randint(size - side + 1, (n, 1), generator=generator, device=images.device)
        at = torch.arange(size, device=images.device)
        return (at >= first) & (at < first + side)

    return band(height)[:, None, :, None] & band(width)[:, None, None, :]
