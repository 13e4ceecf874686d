"""What all learned optimizers share: their state, and one loop over the matrices of a network.

A network is seen as matrices: a convolution `[out, in, h, w]` is `[out, in * h * w]`, a vector is a column. For a
gradient g and weights W, with k the step, one update is

    levers          = begin(k, T, shapes)                what this step has for all coordinates alike
    memory          = watch(g, memory, levers)           running averages, each coordinate for itself
    summary         = survey(memory, W)                  statistics of each matrix
    move, memory    = write(g, memory, W, summary)       the step, some rows at a time

A kind of optimizer says what these four are. Where no gradient is wanted, `write` gets few enough rows to stay in the
processor's cache, so that nothing but the memory itself grows with the network. `metarobust.optim` takes the same four
calls parameter by parameter.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec

CHUNK = 32768  # coordinates at a time: some 8 MB of numbers on the way through a small network


class State(NamedTuple):
    """step: updates so far. total: how many there will be. slots: what each coordinate remembers, by name, each
    `[*, ..., N]` with axes of its own in front. shared: what the run remembers for all coordinates alike."""

    step: int
    total: int
    param_spec: ParamSpec
    slots: dict[str, Tensor]
    shared: dict[str, Tensor]


class ParamInfo(NamedTuple):
    """Where a tensor is in its network: a weight opens a layer, `last` is the number of the last one.

    rows, columns: of the matrix it is. biased: the tensor after it is the bias of its rows.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    fan_in: int
    fan_out: int
    layer: int
    last: int
    biased: bool


class StepContext(NamedTuple):
    """The step being taken, from 1 to total, and what it has for all coordinates alike."""

    step: int
    total: int
    levers: Any


@lru_cache
def places(param_spec: ParamSpec) -> tuple[ParamInfo, ...]:
    """The place of each tensor. A vector of another length, as a normalisation's after an embedding, is no bias."""
    found, last, after = [], max(param_spec.layers[-1], 0), (*param_spec.shapes[1:], ())
    for shape, following, size, fans, layer in zip(
        param_spec.shapes, after, param_spec.sizes, param_spec.fans, param_spec.layers, strict=True
    ):
        rows = shape[0] if len(shape) >= 2 else size
        biased = len(shape) >= 2 and following == shape[:1]
        found.append(ParamInfo(shape, rows, size // max(rows, 1), *fans, layer, last, biased))
    return tuple(found)


class LearnedOptimizer(nn.Module, Optimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`."""

    @property
    @abstractmethod
    def slots(self) -> dict[str, tuple[int, ...]]:
        """What each coordinate remembers: the sizes of the axes in front of the coordinates, () for one number."""

    def begin(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        """What the next step has for all coordinates alike, and the next `shared`, which is {} at first."""
        return None, {}

    def watch(self, grads: Tensor, slots: dict[str, Tensor], now: StepContext) -> dict[str, Tensor]:
        """The memory after one more gradient, as far as it takes nothing but a coordinate's own gradient."""
        return slots

    def survey(
        self,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, ...]:
        """What `write` needs of a whole matrix: tensors `[..., rows, 1]`, or with one row that is for all of them.

        bias: the slots of the bias of the rows, a column, where they have one."""
        return ()

    @abstractmethod
    def write(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        summary: Any,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The step `[..., rows, columns]` of some rows of a matrix, and those of their slots that change with it."""

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> State:
        """The state before the first of `total` steps, for params `[..., N]`."""
        slots = {name: params.new_zeros(*axes, *params.shape) for name, axes in self.slots.items()}
        return State(0, total, param_spec, slots, {})

    def update(self, grads: Tensor, state: State, params: Tensor) -> tuple[Tensor, State]:
        """The step `[..., N]` to add to params, and the next state."""
        levers, shared = self.begin(state)
        now = StepContext(state.step + 1, state.total, levers)
        slots = self.watch(grads, state.slots, now)
        where = places(state.param_spec)
        gs, ws = matrices(grads, where), matrices(params, where)
        split = {name: matrices(slot, where) for name, slot in slots.items()}
        each = [{name: parts[i] for name, parts in split.items()} for i in range(len(where))]
        steps, changed = [], []
        for i, place in enumerate(where):
            step, new = self.move(gs[i], each[i], ws[i], each[i + 1] if place.biased else None, place, now)
            steps.append(step.flatten(-2))
            changed.append(new)
        slots = slots | {name: torch.cat([new[name].flatten(-2) for new in changed], -1) for name in changed[0]}
        return torch.cat(steps, -1), State(now.step, state.total, state.param_spec, slots, shared)

    def move(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The step of a whole matrix `[..., rows, columns]` after `watch`, and the slots that changed with it."""
        summary = self.survey(slots, params, bias, place, now)
        parts = []
        for rows in chunks(params):
            here = {name: slot[..., rows, :] for name, slot in slots.items()}
            of_rows = tuple(part if part.shape[-2] == 1 else part[..., rows, :] for part in summary)
            parts.append(self.write(grads[..., rows, :], here, params[..., rows, :], of_rows, place, now))
        if len(parts) == 1:
            return parts[0]
        return torch.cat([p[0] for p in parts], -2), {n: torch.cat([p[1][n] for p in parts], -2) for n in parts[0][1]}


def matrices(flat: Tensor, where: tuple[ParamInfo, ...]) -> list[Tensor]:
    """A vector `[..., N]` as matrices `[..., rows, columns]` (views, no copy)."""
    parts = flat.split([place.rows * place.columns for place in where], -1)
    return [part.unflatten(-1, (place.rows, place.columns)) for part, place in zip(parts, where, strict=True)]


def chunks(matrix: Tensor) -> Iterator[slice]:
    """Stretches of rows of a matrix `[..., rows, columns]`, about CHUNK coordinates each; all, to be differentiated."""
    rows = matrix.shape[-2]
    size = rows if torch.is_grad_enabled() else CHUNK * rows // max(matrix.numel(), 1)
    return (slice(start, start + max(size, 1)) for start in range(0, max(rows, 1), max(size, 1)))
