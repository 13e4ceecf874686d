"""A model's parameters as one long vector of coordinates.

An optimizer that treats every coordinate alike wants one vector, not a list of matrices. A `ParamSpec` remembers
which part of the vector is which tensor, so that a vector `[..., N]` and the named tensors `[..., *shape]` are two
views of the same numbers. Axes in front (`...`) are tasks: T models of one architecture are one `[T, N]` tensor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParamSpec:
    """Names and shapes of a model's parameters, in order.

    Attributes:
        names: as `model.named_parameters()` gives them.
        shapes: without task axes.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> "ParamSpec":
        named = dict(model.named_parameters())
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()))

    @property
    def sizes(self) -> list[int]:
        """Coordinates of each tensor."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """N, the number of coordinates."""
        return sum(self.sizes)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors `[..., *shape]` as one vector `[..., N]`."""
        pairs = zip(self.names, self.shapes, strict=True)
        return torch.cat([tensors[n].reshape(*tensors[n].shape[: tensors[n].ndim - len(s)], -1) for n, s in pairs], -1)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector `[..., N]` as named tensors `[..., *shape]` (views, no copy)."""
        parts = flat.split(self.sizes, dim=-1)
        return {n: p.reshape((*p.shape[:-1], *s)) for n, s, p in zip(self.names, self.shapes, parts, strict=True)}

    def broadcast(self, per_tensor: Tensor) -> Tensor:
        """One value a tensor `[..., len(names)]`, repeated for each of its coordinates: `[..., N]`."""
        return per_tensor.repeat_interleave(torch.tensor(self.sizes, device=per_tensor.device), dim=-1)

    @property
    def fans(self) -> list[tuple[int, int]]:
        """(fan-in, fan-out) of each tensor; a bias takes those of the weight before it."""
        fans, last = [], (1, 1)
        for shape in self.shapes:
            if len(shape) >= 2:
                last = (math.prod(shape[1:]), shape[0] * math.prod(shape[2:]))
            fans.append(last)
        return fans

    @property
    def layers(self) -> list[int]:
        """For each tensor, the number of the layer it belongs to: a weight opens a layer, its bias joins it."""
        layer, layers = -1, []
        for shape in self.shapes:
            layer += len(shape) >= 2
            layers.append(max(layer, 0))
        return layers
