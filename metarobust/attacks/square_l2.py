"""The moves of the Square attack in l2: what one window gives up, and what was not yet spent, goes to another.

    x_0 = clip(x + eps d / ||d||),   d: 5 x 5 tiles of +- eta
    x'  = clip(x + d),               d = x_k - x, but in two random windows V and W, for each channel i:
                                     d_W = 0,   d_V = u / ||u|| * sqrt(||d_{V or W}||^2 + (eps^2 - ||d||^2) / C),
                                     u = +- eta / ||eta|| + d_V / ||d_V||

So ||x' - x|| = eps before the clipping: the budget is always spent, and moves to where it counts. V keeps half of its
shape. eta is a hill beside a valley, side by side or one above the other; r pixels from its top a hill is as high as

    1 / (r + 1)^2 + 1 / (r + 2)^2 + ... + 1 / (n + 1)^2,          n: half its longer side

Source: Andriushchenko et al. 2020 (arXiv 1912.00049), algorithm 3, equation 2 and section 3; that windows have an odd
side of at least 3, and hill and valley the same length, is as in AutoAttack (arXiv 2003.01690).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.attacks.square_linf import at, place, sign, window
from metarobust.attacks.threat import project, steepest, tiny, wide

TILES = 5  # along each side of the image


def numbers(channels: int, height: int, width: int) -> tuple[int, int]:
    """How many random numbers an image needs to begin, and for each change."""
    _, rows, columns = _tiling(height, width)
    return rows * columns * (channels + 1), channels + 5


def start(images: Tensor, eps: float, uniform: Tensor) -> Tensor:
    """x_0: tiles in the image's middle. images: `[n, C, H, W]`. uniform: uniform in [0, 1), `[n, tiles (C + 1)]`."""
    n, channels, height, width = images.shape
    side, rows, columns = _tiling(height, width)
    uniform = uniform.view(n, rows, columns, channels + 1)
    tiles = sign(uniform[..., 1:, None, None]) * _turned(eta(side).to(uniform), uniform[..., 0])[:, :, :, None]
    middle = tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, rows * side, columns * side).to(wide(images).dtype)
    above, before = (height - rows * side) // 2, (width - columns * side) // 2
    delta = F.pad(middle, (before, width - columns * side - before, above, height - rows * side - above))
    return project(images + eps * steepest(delta, "l2"), images, eps, "l2")


def propose(images: Tensor, current: Tensor, eps: float, share: float, uniform: Tensor) -> Tensor:
    """x', where each window has this share of the pixels. uniform: uniform in [0, 1), `[n, C + 5]`."""
    _, channels, height, width = images.shape
    side = max(round((share * height * width) ** 0.5), 3)
    side = min(side + 1 - side % 2, height, width)
    top, left, top_w, left_w = (
        place(uniform[:, k], size, side) for k, size in enumerate((height, width, height, width))
    )
    delta = (current - images).movedim(1, 3)  # channels last: a window is then [n, side, side, C]
    v, w = window(top, left, side), window(top_w, left_w, side)
    inside = _mask(top, left, images, side) | _mask(top_w, left_w, images, side)
    freed = (delta.square() * inside[..., None]).sum((1, 2))
    unspent = (eps**2 - delta.square().sum((1, 2, 3))).clamp_min(0)
    budget = (freed + unspent[:, None] / channels).sqrt()
    pattern = _turned(eta(side).to(uniform), uniform[:, 4])[..., None] * sign(uniform[:, None, None, 5:])
    fresh = _unit(pattern.to(delta.dtype) + _unit(delta[v]))
    delta[w] = 0
    delta[v] = fresh * budget[:, None, None]
    return project(images + delta.movedim(3, 1), images, eps, "l2")


@lru_cache(maxsize=64)
def eta(side: int) -> Tensor:
    """A hill in the upper half and a valley in the lower, `[side, side]`, of length 1, in float64; read only."""
    halves = [hill(rows, side) for rows in (side // 2, side - side // 2)]
    both = torch.cat([halves[0] / halves[0].norm(), -halves[1] / halves[1].norm()])
    return both / both.norm()


def hill(height: int, width: int) -> Tensor:
    """Equation 2: steep rings around the middle, `[height, width]`."""
    n = max(height, width) // 2
    down, across = ((torch.arange(size, device="cpu") - size // 2).abs() for size in (height, width))
    steps = 1 / torch.arange(1, n + 2, dtype=torch.float64, device="cpu") ** 2
    return steps.flip(0).cumsum(0).flip(0)[torch.maximum(down[:, None], across)]


def _tiling(height: int, width: int) -> tuple[int, int, int]:
    """The side of a tile, and how many there are down and across."""
    side = max(min(height, width) // TILES, 1)
    return side, min(TILES, height // side), min(TILES, width // side)


def _turned(pattern: Tensor, uniform: Tensor) -> Tensor:
    """The pattern, or its transpose, for each number: `[...]` to `[..., side, side]`."""
    return torch.where((uniform < 0.5)[..., None, None], pattern, pattern.T)


def _mask(top: Tensor, left: Tensor, images: Tensor, side: int) -> Tensor:
    """Which pixels are in the window: `[n, H, W]`."""
    return at(top, images.shape[2], side)[:, :, None] & at(left, images.shape[3], side)[:, None, :]


def _unit(windows: Tensor) -> Tensor:
    """Each channel of each window at length 1; what is 0 stays 0."""
    return windows / windows.norm(dim=(1, 2), keepdim=True).clamp_min(tiny(windows.dtype))
