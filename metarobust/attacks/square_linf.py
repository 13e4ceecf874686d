"""The moves of the Square attack in L-infinity: stripes first, then squares of one colour.

    x_0 = clip(x + eps * stripes),    stripes: a random sign for each channel and column
    x'  = x_k, but in a random square:  clip(x + eps * c),    c: a random sign for each channel

Every pixel stays at a corner of the ball, where the strongest perturbations lie.

Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithm 2 and section 3.
"""

import torch
from torch import Tensor

from metarobust.attacks.threat import wide


def numbers(channels: int, height: int, width: int) -> tuple[int, int]:
    """How many random numbers an image needs to begin, and for each change."""
    return channels * width, channels + 2


def start(images: Tensor, eps: float, uniform: Tensor) -> Tensor:
    """x_0. images: `[n, C, H, W]`. uniform: uniform in [0, 1), `[n, C W]`."""
    (n, channels, _, width), exact = images.shape, wide(images)
    return (exact + eps * sign(uniform).to(exact.dtype).view(n, channels, 1, width)).clamp(0, 1)


def propose(images: Tensor, current: Tensor, eps: float, share: float, uniform: Tensor) -> Tensor:
    """x', where the square has this share of the pixels; at least one, at most all that fit. uniform: `[n, C + 2]`."""
    _, _, height, width = images.shape
    side = min(max(round((share * height * width) ** 0.5), 1), height, width)
    top, left = (place(uniform[:, k], size, side) for k, size in enumerate((height, width)))
    each, rows, columns = window(top, left, side)
    square = each, slice(None), rows, columns  # `[n, side, side, C]`
    colour = eps * sign(uniform[:, None, None, 2:]).to(current.dtype)
    trial = current.clone()
    trial[square] = (images[square] + colour).clamp_(0, 1)
    return trial


def sign(uniform: Tensor) -> Tensor:
    """-1 or 1, both equally likely."""
    return 1 - 2 * (uniform < 0.5).to(uniform.dtype)


def place(uniform: Tensor, size: int, side: int) -> Tensor:
    """The first of `side` rows in a row among `size`, each place equally likely: `[n]`."""
    return (uniform * (size - side + 1)).long()


def window(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """What to index `[n, H, W, ...]` with for one window of each image. top, left: its first row and column, `[n]`."""
    step = torch.arange(side, device=top.device)
    images = torch.arange(len(top), device=top.device)[:, None, None]
    return images, (top[:, None] + step)[:, :, None], (left[:, None] + step)[:, None, :]


def at(first: Tensor, size: int, side: int) -> Tensor:
    """Which rows those are: `[n, size]`."""
    row = torch.arange(size, device=first.device)
    return (row >= first[:, None]) & (row < first[:, None] + side)
