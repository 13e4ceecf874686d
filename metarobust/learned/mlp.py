"""The feature optimizer: one small network, shared by all coordinates, that writes a residual to Adam.

For each coordinate, with features phi, weight w, and a the bias-corrected Adam direction of momentum 0.9:

    (d, s, c) = net(phi)
    update    = -exp(log_lr + s) * rms(W) * (a + d)  -  cap * tanh(c) * w

The head of the net starts at 0, so that an untrained optimizer *is* Adam with a step in proportion to the tensor's
size; what it learns is the direction d, the size s, and the decay c: the share of the weight that it takes away.

Source: the residual form and the outputs are ours; per-coordinate networks as optimizers: Andrychowicz et al. 2016
(arXiv 1606.04474), Metz et al. 2020 (arXiv 2009.11243).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.errors import choose
from metarobust.learned.features import (
    ACCUMULATORS,
    GROUPS,
    NAMES,
    TensorStats,
    accumulate,
    apply_part,
    coordinate_features,
    offsets,
    shared_features,
    tensor_stats,
    weight_parts,
)
from metarobust.learned.protocol import Accumulators, LearnedOptimizer, ParamBlock, State, StepContext

MOMENTUM = NAMES.index("momentum 0.9")  # of the coordinates' features too: those come first


def make_mlp(hidden: int, generator: torch.Generator | None) -> nn.Sequential:
    """The network from features to (d, s, c): two hidden layers, and a head that starts at 0."""
    first, second, head = nn.Linear(len(NAMES), hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 3)
    with torch.no_grad():
        for layer in (first, second):
            bound = layer.in_features**-0.5
            for p in layer.parameters():
                p.copy_(torch.rand(p.shape, generator=generator) * 2 * bound - bound)
        for p in head.parameters():
            p.zero_()
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), head)


class Prepared(NamedTuple):
    """What a step has for all coordinates alike: `weight_parts` and bias of the first layer, and more in some kinds."""

    parts: list[Tensor]
    bias: Tensor
    more: Any = None


class FeatureOptimizer(LearnedOptimizer):
    """A learned optimizer whose first layer sees the features of each coordinate.

    What coordinates share of that layer is computed once for each tensor. A kind says which layer it is, and what
    follows it.
    """

    @abstractmethod
    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Its weight `[units, len(NAMES)]` and bias."""

    @property
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        return ACCUMULATORS

    def prepare(self, state: State) -> tuple[Prepared, dict[str, Tensor]]:
        weight, bias = self.first_layer()
        return Prepared(weight_parts(weight), bias), {}

    def update_accumulators(self, grads: Tensor, accumulators: Accumulators, context: StepContext) -> None:
        accumulate(grads, accumulators)

    def tensor_stats(self, block: ParamBlock, bias: Accumulators | None, context: StepContext) -> tuple[Tensor, ...]:
        """Averages; what the first layer adds for rows and columns; and log(rms(W) * sqrt(fan-in)), `[..., 1, 1]`."""
        stats = tensor_stats(block, bias, context.step)
        shared = shared_features(stats, block.info, context.step, context.total)
        return *stats, *offsets(context.prepared.parts, context.prepared.bias, shared), shared[2][1]

    def look(self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext) -> tuple[Tensor, Tensor]:
        """The features that differ from coordinate to coordinate, and what the first layer makes of all features.

        They are `[10, ..., rows, columns]` and `[units, ..., rows, columns]`.
        """
        *averages, rows, columns, _ = stats
        features = coordinate_features(block, TensorStats(*averages), context.step)
        return features, apply_part(context.prepared.parts[0], features).add_(rows).add_(columns)


def adam_residual(
    outputs: Sequence[Tensor], adam: Tensor, block: ParamBlock, size: Tensor, log_lr: Tensor, cap: float
) -> Tensor:
    """The update in the formula above.

    Args:
        outputs: (d, s, c).
        adam: the direction a.
        block: for the weights.
        size: of the tensor, the last of `tensor_stats`.
        log_lr: as in the formula.
        cap: as in the formula.
    """
    turn, scale, decay = outputs
    root_fan_in = block.info.fan_in**0.5
    # A tensor near 0 (a bias, say) could never grow again if its step were in proportion to it alone.
    rms = (size.exp() / root_fan_in).clamp_min(0.1 / root_fan_in)
    lr = (log_lr + scale.clamp(-6, 4)).exp() * rms
    return -lr * (adam + turn) - cap * torch.tanh(decay) * block.params


def run_mlp(net: nn.Sequential, hidden: Tensor) -> tuple[Tensor, ...]:
    """What the net says of each coordinate, (d, s, c), from the outputs of its first layer."""
    shape, hidden = hidden.shape[1:], hidden.flatten(1)
    for layer in ("2", "4"):
        weight, bias = net.get_parameter(f"{layer}.weight"), net.get_parameter(f"{layer}.bias")
        hidden = torch.addmm(bias[:, None], weight, hidden.relu_())
    return hidden.view(-1, *shape).unbind(0)


class FeatureMLP(FeatureOptimizer):
    """The network above as a learned optimizer.

    Args:
        hidden: units in each of the two hidden layers.
        lr: the step before any training, relative to a tensor's root mean square.
        cap: the largest share of a weight that one step may take away or add.
        masked_features: groups of features that it does not see, for ablations.
        generator: of the weights.

    Raises:
        InputError: for an unknown group of features.
    """

    mask: Tensor

    def __init__(
        self,
        hidden: int = 16,
        lr: float = 0.02,
        cap: float = 0.3,
        masked_features: Sequence[str] = (),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.hidden, self.cap = hidden, cap
        self.masked_features = tuple(masked_features)
        masked = {name for group in masked_features for name in GROUPS[choose(group, GROUPS, "group of features")]}
        mask = torch.tensor([float(name not in masked) for name in NAMES])
        self.register_buffer("mask", mask, persistent=False)  # follows from `masked_features`
        self.net = make_mlp(hidden, generator)
        self.log_lr = nn.Parameter(torch.tensor(lr).log())

    def first_layer(self) -> tuple[Tensor, Tensor]:
        return self.net.get_parameter("0.weight") * self.mask, self.net.get_parameter("0.bias")

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features, hidden = self.look(block, stats, context)
        outputs = run_mlp(self.net, hidden)
        return adam_residual(outputs, features[MOMENTUM], block, stats[-1], self.log_lr, self.cap), {}
