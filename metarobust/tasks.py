"""Inner problems, a batch at a time: T optimizees of one architecture, each with its own start and its own data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarobust.models import Predictor
from metarobust.params import ParamSpec


@dataclass(frozen=True)
class Tasks:
    """T optimizees of one architecture, each with its own start and its own data.

    Attributes:
        model: the architecture.
        param_spec: its parameters.
        params: `[T, N]`, where each begins.
        images: a pool that all share, `[n, C, H, W]`.
        labels: `[n]`.
        train: `[T, m]` indices into the pool.
        held_out: the same of what each is scored on; the two never overlap.
        eps: radius of the attack that they are to stand, in pixel units.
    """

    model: nn.Module
    param_spec: ParamSpec
    params: Tensor
    images: Tensor
    labels: Tensor
    train: Tensor
    held_out: Tensor
    eps: float = 0.1

    def __len__(self) -> int:
        return len(self.params)

    def batch(self, rows: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`size` random images for each task, out of its row of indices: `[T * size, C, H, W]`, `[T * size]`."""
        pick = torch.randint(rows.shape[1], (len(rows), size), generator=generator, device=rows.device)
        index = rows.gather(1, pick).flatten()
        return self.images[index], self.labels[index]

    def predictor(self, params: Tensor) -> Predictor:
        """Prediction by the T optimizees with these parameters `[T, N]`."""
        return Predictor(self.model, self.param_spec, params)
