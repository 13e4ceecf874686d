"""What the functions of the assignments are given: small models, losses, attacks and an optimizer with known answers.

A function gets copies, where it runs; what these see there goes back to the judge as their `notes`. They answer in the
precision and on the device that they are asked in.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class Toy(nn.Module):
    """given: tensors, numbers and models, its attributes. notes: what it saw."""

    def __init__(self, **given: Any):
        super().__init__()
        self.notes: list[Any] = []
        for name, value in given.items():
            setattr(self, name, deepcopy(value))  # nothing that a function gets is also of a toy


class Linear(Toy):
    """A linear classifier of normalised pixels: `[n, C, H, W]` in [0, 1] to logits `[n, classes]`."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__(weight=nn.Parameter(weight.detach()), bias=nn.Parameter(bias.detach()))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5) / 0.4).flatten(1) @ self.weight.to(x).T + self.bias.to(x)


class Bowl(Toy):
    """Two classes; for label 1 the loss has its peak at `top` in the pixels of `hill`, and its pit there in the others.

    Of the two ways to go, up and down, each has pixels in which it must turn back. The gradient at the start alone
    does not tell where.
    """

    def forward(self, x: Tensor) -> Tensor:
        height = 2 + 4 * (self.hill.to(x) * (x - self.top.to(x)) ** 2).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(height), height], 1)


class Table(Toy):
    """Class 1 where an image's mean is above one half, else class 0; the other way round in train mode if moody."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        if self.moody and self.training:
            score = -score
        return torch.stack([-score, score], 1)


class Turning(Toy):
    """An attack that mirrors the images of `turned` at one half, so that Table says the other class, and no others.

    It knows the images of a batch by themselves, whichever of `images` are in it. It notes whether the model was in
    train mode, and whether it was given images as they are, and which.
    """

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        known = torch.cat([self.images, 1 - self.images]).to(x)
        far = (x.detach()[:, None] - known).flatten(2).abs().sum(2)
        rows = far.argmin(1)
        self.notes.append([model.training, bool((far.min(1).values < 1e-3).all() and (rows < len(self.images)).all())])
        rows = rows % len(self.images)
        shift = (1 - 2 * self.images.to(x)[rows]) * self.turned.to(x.device)[rows].view(-1, 1, 1, 1)
        return (x + shift).clone()


class Suspect(Toy):
    """A model behind a bad defence, or behind none: all are of this class, and print alike."""

    def forward(self, x: Tensor) -> Tensor:
        levels, scale, noise, soft, company = self.strength
        logits = scale * self.model((x * levels).round() / levels if levels else x)
        if noise:
            self.notes.append(True)
            g = torch.Generator().manual_seed(self.seed + len(self.notes))
            logits = logits + noise * torch.randn(logits.shape, generator=g).to(logits)
        logits = logits.softmax(1) if soft else logits
        return logits - company * logits.mean(0)


class Quadratic(Toy):
    """sum(curvature * (w - centre)**2 / 2 + cubic * (w - centre)**3 + slope * w), of the last axis; a number."""

    def forward(self, w: Tensor, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        away = w - self.centre.to(w)
        whole = self.curvature.to(w) * away**2 / 2 + self.cubic.to(w) * away**3 + self.slope.to(w) * w
        if x is None:
            return whole.sum()
        self.notes.append(x.detach().clone())
        # The images count for nothing here, whatever somebody does to them: that is another property's business.
        return whole.sum() + 1e-6 * x.mean().to(w)


class Momentum(Toy):
    """`update(theta, g, v, w)` of assignment 3: the step and the new velocity, `[N]` each.

    theta: `[3]`, the log of the step size, the share of the weight that is given up, and the logit of the momentum.
    """

    def forward(self, theta: Tensor, g: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        velocity = theta[2].sigmoid() * v + g
        return -theta[0].exp() * velocity - theta[1] * w, velocity


class Watched(Toy):
    """Gradient descent that notes what it is given: the number of steps, then the states."""

    def init(self, params: Tensor, total: int) -> int:
        self.notes.append(total)
        return 0

    def update(self, grads: Tensor, state: int, params: Tensor) -> tuple[Tensor, int]:
        self.notes.append(state)
        return -self.lr * grads, state + 1


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random floats from low to high."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def whole(generator: torch.Generator, low: int, high: int) -> int:
    """A random whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def disguised(model: nn.Module, g: torch.Generator) -> dict[str, nn.Module]:
    """The model behind each of five bad defences, of a strength that is drawn, and as it is: by symptom."""
    seed = whole(g, 0, 10**6)
    strengths = {
        "rounded": (whole(g, 4, 9) - 1, 1, 0, 0, 0),
        "saturated": (0, float(uniform(g, 1e6, 5e6)), 0, 0, 0),
        "random": (0, 1, float(uniform(g, 0.05, 0.2)), 0, 0),
        "probabilities": (0, 1, 0, 1, 0),
        "batch": (0, 1, 0, 0, 0.9),
        "honest": (0, 1, 0, 0, 0),
    }
    return {name: Suspect(model=model, strength=s, seed=seed).eval() for name, s in strengths.items()}


def suspects(model: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Six models that are right as often as `model`, called A to F: five hide something, one hides nothing.

    Which is which depends on the seed.
    """
    g = torch.Generator().manual_seed(seed)
    models = list(disguised(model, g).values())
    order = torch.randperm(len(models), generator=g).tolist()
    return {letter: models[i] for letter, i in zip("ABCDEF", order, strict=True)}
