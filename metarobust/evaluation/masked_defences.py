"""Three defences that are known to be bad: each makes an attack fail, and none makes a model robust.

They are what the checks are tested with. Each takes any model, trained or not, and hides its gradient in another way.

Sources: Athalye et al. 2018 (arXiv 1802.00420) on shattered and stochastic gradients, sections 3 and 4; Carlini and
Wagner 2017 (arXiv 1608.04644), section VI, on large logits (defensive distillation).
"""

import torch
from torch import Tensor, nn


class RoundedInputs(nn.Module):
    """f(round(x)): the gradient of a staircase is 0 wherever it exists, so a gradient attack does not move.

    levels: values of a pixel, at least 2.
    """

    def __init__(self, model: nn.Module, levels: int = 8):
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, images: Tensor) -> Tensor:
        top = self.levels - 1
        return self.model((images * top).round() / top)


class HugeLogits(nn.Module):
    """scale * f(x): the same answers, but the softmax is 1 to the last bit and cross-entropy is flat."""

    def __init__(self, model: nn.Module, scale: float = 1000.0):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.model(images)


class NoisyOutput(nn.Module):
    """f(x) + sigma * N(0, 1): asked twice, it answers twice, and an attack takes luck for success.

    generator: of the noise; it is what makes the defence repeatable, from one start, and it advances with each call.
    """

    def __init__(self, model: nn.Module, sigma: float, generator: torch.Generator):
        super().__init__()
        self.model, self.sigma, self.generator = model, sigma, generator

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        noise = torch.randn(logits.shape, generator=self.generator, dtype=logits.dtype, device=logits.device)
        return logits + self.sigma * noise
