"""Small models with known answers, and defences that are known to be bad, for the cases of the assignments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.course.question import uniform


class Linear(nn.Module):
    """A linear classifier of normalised pixels: `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.

    Its weights are small enough for every entry of a cross-entropy's gradient to be below 1, and none of them is 0.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, generator: torch.Generator):
        super().__init__()
        pixels = int(torch.tensor(shape).prod())
        signs = torch.randint(0, 2, (classes, pixels), generator=generator) * 2.0 - 1
        self.weight = nn.Parameter(signs * uniform(generator, 0.05, 0.15, classes, pixels))
        self.bias = nn.Parameter(uniform(generator, -0.1, 0.1, classes))
        self.std = 0.4

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5) / self.std).flatten(1) @ self.weight.T + self.bias


class Bowl(nn.Module):
    """Two classes; for label 1 the loss has its peak at `top` in the pixels of `hill`, and its pit there in the others.

    Of the two ways to go, up and down, each has pixels in which it must turn back. The gradient at the start alone
    does not tell where.
    """

    def __init__(self, top: Tensor, hill: Tensor):
        super().__init__()
        self.top, self.signs = top, hill.float() * 2 - 1
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        height = 2 + self.scale * (self.signs * (x - self.top) ** 2).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(height), height], 1)


class Table(nn.Module):
    """Says class 1 where an image's mean is above one half, else class 0; in train mode the other way round."""

    def __init__(self, moody: bool = False):
        super().__init__()
        self.moody = moody

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        if self.moody and self.training:
            score = -score
        return torch.stack([-score, score], 1)


class Softmax(nn.Module):
    """softmax(f(x)): probabilities in place of logits, so that a cross-entropy takes the softmax twice."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(1)


class BatchMates(nn.Module):
    """f(x) minus its mean over the batch: the answer for an image depends on the images beside it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits - 0.9 * logits.mean(0)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image `[n]`, without a graph."""
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


def images(generator: torch.Generator, n: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Random images in [low, high], `[n, C, H, W]`; the first pixel of each is black and the last one white."""
    x = uniform(generator, low, high, n, *shape)
    x.view(n, -1)[:, 0], x.view(n, -1)[:, -1] = 0.0, 1.0
    return x
