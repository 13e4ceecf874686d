"""The steering optimizer: it does not write steps, it moves the levers of a known rule while that rule trains.

With a the bias-corrected Adam direction, s = t / T in [0, 1) how much of the run is over, and l the layer of a weight w
(first, middle or last), every lever is a line on a logarithmic scale:

    lever(s) = exp( start + (end - start) * s )
    step     = -rate_l(s) * a  -  decay_l(s) * w
    inputs   = images + noise(s) * N(0, 1)          what the training loop has to do for it: `inputs`

Two sets of sixteen numbers are all that is learned: one for networks with convolutions, one for those without. They
mean the same at any size, and steer convolutions too, where a rule per coordinate learned less. Gradients at noised
inputs put it in tier 1.

Sources: Gaussian noise on the inputs as a regulariser is Bishop 1995; a learned optimizer that sets hyperparameters of
a known rule: Daniel et al. 2016, Xu et al. 2019 (arXiv 1909.09712). These levers, and that their schedules are found
by evolution strategies on an adversarial meta-loss, are ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.learned.features import HUGE
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext
from metarobust.params import ParamSpec

WHERE = ("first", "middle", "last")
LEVERS = (*(f"rate {w}" for w in WHERE), *(f"decay {w}" for w in WHERE), "noise", "forget")
"""rate: step of a coordinate. decay: share of a weight lost in a step. noise: standard deviation in pixel units.
forget: 1 - beta1, how fast the averaged gradient forgets."""
START = (0.01, 0.01, 0.01, 0.002, 0.002, 0.01, 0.2, 0.1)
BOUNDS = (*([(1e-5, 0.3)] * 3), *([(1e-6, 0.5)] * 3), (1e-4, 2.0), (0.01, 1.0))
SCALE = 4.0  # theta moves in units of a quarter: the meta-learning rates of networks suit levers too


class Levers(NamedTuple):
    """each: every lever of this step, in the order of LEVERS. weight: what the weights of the mean add up to."""

    each: Tensor
    weight: Tensor


class LearnedSchedule(LearnedOptimizer):
    """A learned optimizer; its parameters are theta. `init`, `update` and `inputs` as in `metarobust.optimizers`."""

    def __init__(self, generator: torch.Generator | None = None):
        super().__init__()
        begin = torch.tensor(START).log() / SCALE
        self.levers = nn.Parameter(begin[None, :, None].repeat(2, 1, 2))  # [dense or with convolutions, levers, ends]

    @property
    def slots(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (), "square": ()}

    def at(self, progress: float, kind: int) -> Tensor:
        """Every lever when this share of the run is over, in the order of LEVERS. kind: as `kind` says."""
        low, high = self.levers.new_tensor(BOUNDS).log().unbind(1)
        line = SCALE * torch.lerp(*self.levers[kind].unbind(1), progress)
        return line.clamp(low, high).exp()

    def inputs(self, images: Tensor, state: State, generator: torch.Generator | None) -> Tensor:
        """The images with as much noise as this step asks for."""
        sigma = self.at(state.step / state.total, kind(state.param_spec))[LEVERS.index("noise")]
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return images + sigma.to(images) * noise

    def begin(self, state: State) -> tuple[Levers, dict[str, Tensor]]:
        levers = self.at(state.step / state.total, kind(state.param_spec))
        weight = state.shared["weight"] if state.step else levers.new_zeros(())
        weight = torch.lerp(weight, levers.new_ones(()), levers[LEVERS.index("forget")])
        return Levers(levers, weight), {"weight": weight}

    def watch(self, grads: Tensor, slots: dict[str, Tensor], now: StepContext) -> dict[str, Tensor]:
        grads = grads.clamp(-HUGE, HUGE)
        mean = torch.lerp(slots["mean"], grads, now.levers.each[LEVERS.index("forget")])
        return {"mean": mean, "square": torch.addcmul(0.99 * slots["square"], grads, grads, value=0.01)}

    def write(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        summary: Any,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate, decay = of_layer(now.levers, place)
        return -rate * direction(slots, now) - decay * params, {}


def kind(param_spec: ParamSpec) -> int:
    """1 if the network has convolutions, else 0: which set of levers steers it."""
    return int(any(len(shape) > 2 for shape in param_spec.shapes))


def direction(slots: Mapping[str, Tensor], now: StepContext) -> Tensor:
    """The bias-corrected Adam direction, for the mean as it was weighted."""
    # 1e-14 inside the root, for its slope at 0 is infinite.
    scale = (slots["square"] / (1 - 0.99**now.step) + 1e-14).rsqrt()
    return (slots["mean"] / now.levers.weight) * scale


def of_layer(levers: Levers, place: ParamInfo) -> tuple[Tensor, Tensor]:
    """Rate and decay of a tensor by the position of its layer; nothing but weights decays."""
    where = 2 if place.layer == place.last else 0 if place.layer == 0 else 1
    return levers.each[where], levers.each[3 + where] * float(len(place.shape) >= 2)
