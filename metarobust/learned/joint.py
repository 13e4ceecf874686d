"""The joint optimizer: a learned schedule sets the pace of each layer, and a small network corrects every coordinate.

With rate, decay and a as in `metarobust.learned.schedule`, and phi the features of `metarobust.learned.features`:

    (d, s, c) = net(phi)
    update    = -rate_l(s) * exp(s) * (a + d)  -  ( decay_l(s) + cap * tanh(c) ) * w
    images    = images + noise(s) * N(0, 1)

The head of the net starts at 0: an untrained joint optimizer *is* its schedule, and meta-training goes on from one that
is trained. Gradients at noised inputs put it in tier 1. The combination is ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metarobust.learned.features import ACCUMULATORS, HUGE
from metarobust.learned.mlp import FeatureOptimizer, Prepared, make_mlp, run_mlp
from metarobust.learned.protocol import Accumulators, ParamBlock, State, StepContext
from metarobust.learned.schedule import FORGET, LearnedSchedule, adam_direction, of_layer, per_task
from metarobust.objectives import Objective


class Joint(FeatureOptimizer):
    """Schedule and network above as a learned optimizer.

    Args:
        hidden: units in each of the two hidden layers.
        cap: the largest share of a weight that one step may take away or add on top of the decay.
        generator: of the weights.
    """

    def __init__(self, hidden: int = 16, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.steering = LearnedSchedule()  # stored weights have it by this name
        self.hidden, self.cap = hidden, cap
        self.net = make_mlp(hidden, generator)

    def begin_from(self, schedule: LearnedSchedule) -> None:
        """Copies a trained schedule: where this one's own meta-training begins."""
        self.steering.load_state_dict(schedule.state_dict())

    @property
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        return ACCUMULATORS | self.steering.accumulators  # both average the square alike

    def objective(self, inner: Objective, state: State, eps: float) -> Objective:
        """The inner objective at images with as much noise as this step asks for."""
        return self.steering.objective(inner, state, eps)

    def first_layer(self) -> tuple[Tensor, Tensor]:
        return self.net.get_parameter("0.weight"), self.net.get_parameter("0.bias")

    def prepare(self, state: State) -> tuple[Prepared, dict[str, Tensor]]:
        hyperparameters, shared = self.steering.prepare(state)
        return super().prepare(state)[0]._replace(more=hyperparameters), shared

    def update_accumulators(self, grads: Tensor, accumulators: Accumulators, context: StepContext) -> None:
        forget = per_task(context.prepared.more.values[..., FORGET], grads)
        accumulators["mean"].lerp_(grads.clamp(-HUGE, HUGE), forget)
        super().update_accumulators(grads, accumulators, context)

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        turn, scale, more_decay = run_mlp(self.net, self.look(block, stats, context)[1])
        hyperparameters = context.prepared.more
        rate, decay = of_layer(hyperparameters, block.info)
        direction = adam_direction(block.accumulators, hyperparameters, context.step)
        step = -rate * scale.clamp(-6, 4).exp() * (direction + turn)
        return step.addcmul(block.params, decay + self.cap * torch.tanh(more_decay), value=-1), {}
