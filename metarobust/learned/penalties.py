"""The learned penalties: a schedule of Adam, of noise, and of what the loss is penalised for, as functions of progress.

A rule for every coordinate cannot see what makes a model fragile: how steep and how bent its loss is in the *input*.
This one is given that, as an objective with six weights (`metarobust.penalties.Penalised`), and learns when each of
them counts. With s = t / T how much of the run is over, l the layer of a weight w and a the bias-corrected Adam
direction, every hyperparameter is a line on a logarithmic scale through three knots, at s = 0, 1/2 and 1:

    value(s)  = exp( knots(s) + offsets . (log T/100, log depth/2, log fan-in/64 of the first layer, normalises) )
    loss      = penalised( noise, bend, far, slope, smooth, slack )      all at s; lengths in units of eps
    update    = -rate_l(s) * r * a  -  decay_l(s) * r * w,    r = (64 / fan-in)^(1/2) where fan-in > 64, else 1

There is one set of numbers for perceptrons and one for networks with convolutions. normalises is 1 for a network that
normalises between its layers, else 0: full steps ruin a trained one. The offsets by the horizon, by normalisation and,
for middle layers, by depth begin where hand-made trials had them. A step relative to 1 / sqrt(fan-in), the size that a
fresh weight has, means the same in wider layers, in the spirit of Yang and Hu 2021 (arXiv 2011.14522).

The rule is of tier 2b: it may look at the gradient in the input, at the (noised) image and at a point one step along
its sign; with at_random, of tier 2a, where a random sign leads there.

Source: the form is ours; each plain rule that penalises the slope or the curvature of a loss is a special case.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.learned.protocol import Accumulators, ParamBlock, State, StepContext, param_infos
from metarobust.learned.schedule import SCALE, LearnedSchedule, network_kind
from metarobust.objectives import Objective
from metarobust.params import ParamSpec
from metarobust.penalties import Penalised

WEIGHTS = ("noise", "bend", "far", "slope", "smooth", "slack")
"""What the loss is weighted with, by name in `Penalised`; noise, far, slope and slack are in units of eps."""
LENGTHS = ("noise", "far", "slope", "slack")
HYPERPARAMETERS = {
    "rate first": (0.03, 1e-5, 0.04),
    "rate middle": (0.03, 1e-5, 0.04),
    "rate last": (0.003, 1e-5, 0.04),
    "decay first": (1e-4, 1e-7, 0.1),
    "decay middle": (1e-4, 1e-7, 0.1),
    "decay last": (1e-4, 1e-7, 0.1),
    "noise": (0.2, 1e-3, 5.0),
    "forget": (0.1, 0.05, 1.0),
    "bend": (0.1, 1e-4, 10.0),
    "far": (1.0, 0.2, 5.0),
    "slope": (0.1, 1e-4, 5.0),
    "smooth": (0.003, 1e-5, 0.2),
    "slack": (0.4, 1e-4, 5.0),
}
"""By name where each begins, set by hand, and its bounds."""
NAMES = tuple(HYPERPARAMETERS)
START = tuple(start for start, _, _ in HYPERPARAMETERS.values())
BOUNDS = tuple((low, high) for _, low, high in HYPERPARAMETERS.values())
KINDS = {"mlp": "is a perceptron", "cnn": "has convolutions", "gncnn": "normalises between its layers"}
"""The kinds of networks that are told apart, by how the names of such networks here begin."""
OFFSETS = ("horizon", "depth", "fan-in", "normalises")
FAN_IN = 64


class LearnedPenalties(LearnedSchedule):
    """The schedule above as a learned optimizer.

    Args:
        at_random: see `Penalised`.
        generator: of nothing: it begins at START, which is set by hand.
    """

    def __init__(self, at_random: bool = False, generator: torch.Generator | None = None):
        nn.Module.__init__(self)
        self.at_random = at_random
        start = torch.tensor(START).log() / SCALE
        self.knots = nn.Parameter(start[None, :, None].repeat(2, 1, 3))
        self.offsets = nn.Parameter(torch.zeros(2, len(NAMES), len(OFFSETS)))
        with torch.no_grad():
            self.offsets[:, 3:6, OFFSETS.index("horizon")] = -1 / SCALE  # twice the steps, half the decay in each
            self.offsets[:, NAMES.index("rate middle"), OFFSETS.index("depth")] = -1.5 / SCALE
            self.offsets[:, 0:3, OFFSETS.index("normalises")] = math.log(0.15) / SCALE
            self.offsets[:, 3:6, OFFSETS.index("normalises")] = math.log(0.05) / SCALE

    def values(self, state: State) -> Tensor:
        """Every hyperparameter of the coming step, `[..., 13]` in the order of NAMES."""
        return self.curve(state.param_spec, state.total, torch.tensor([state.step / state.total], device="cpu"))[..., 0]

    def curve(self, param_spec: ParamSpec, total: int, progress: Tensor) -> Tensor:
        """Every hyperparameter at some points of a run, `[..., 13, len(progress)]`, for a network and a horizon."""
        kind = network_kind(param_spec)
        knots, offsets = (numbers[..., kind, :, :] for numbers in (self.knots, self.offsets))
        low, high = knots.new_tensor(BOUNDS).log()[..., None].unbind(1)
        progress = progress.to(knots)
        # Each knot's share at a point: 1 at the knot, 0 from the next one on.
        share = (1 - (2 * progress - knots.new_tensor([0, 1, 2])[:, None]).abs()).clamp_min(0)
        line = knots @ share + (offsets @ knots.new_tensor(facts(param_spec, total)))[..., None]
        return Within.apply(SCALE * line, low, high).exp()

    def objective(self, inner: Objective, state: State, eps: float) -> Objective:
        """The penalised loss of the coming step, whatever the inner objective: it takes the place of that."""
        values = dict(zip(NAMES, self.values(state).unbind(-1), strict=True))
        weights = {name: values[name] * (eps if name in LENGTHS else 1) for name in WEIGHTS}
        return Penalised(**weights, at_random=self.at_random)

    def tensor_stats(self, block: ParamBlock, bias: Accumulators | None, context: StepContext) -> tuple[Tensor, ...]:
        scale = math.sqrt(FAN_IN / max(block.info.fan_in, FAN_IN))
        return tuple(x * scale for x in super().tensor_stats(block, bias, context))

    def for_tasks(self, tasks: int) -> "LearnedPenalties":
        """A copy with theta for each of the tasks, `[T, ...]`: so each has a meta-gradient of its own."""
        each = copy.deepcopy(self)
        for name, p in self.named_parameters():
            setattr(each, name, nn.Parameter(p.detach().expand(tasks, *p.shape).clone()))
        return each


class Within(torch.autograd.Function):
    """`clamp`, whose gradient is 0 only where a step of descent would lead further out: what is out can come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x < low, x > high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        below, above = ctx.saved_tensors
        return grad.masked_fill((below & (grad > 0)) | (above & (grad < 0)), 0), None, None


def which(param_spec: ParamSpec) -> int:
    """The place of a network's kind in KINDS, by its shapes: a layer that normalises has a vector more than a bias."""
    vectors = [info.layer for info in param_infos(param_spec) if len(info.shape) < 2]
    return 2 if len(vectors) > len(set(vectors)) else network_kind(param_spec)


def facts(param_spec: ParamSpec, total: int) -> list[float]:
    """What the offsets are multiplied by, in the order of OFFSETS."""
    infos = param_infos(param_spec)
    depth, fan_in = infos[0].last_layer + 1, infos[0].fan_in
    return [math.log(total / 100), math.log(depth / 2), math.log(fan_in / FAN_IN), float(which(param_spec) == 2)]
