"""What all learned optimizers share: their state, and one loop over the tensors of a network.

A tensor is seen as a matrix: a convolution `[out, in, h, w]` is `[out, in * h * w]`, a vector is a column. With
gradients g and weights W, step k of T is

    prepared        = prepare(k, T, shapes)                        what this step has for all coordinates alike
    update_accumulators(g, accumulators)                           running averages, each coordinate for itself
    stats           = tensor_stats(g, W, accumulators)             statistics of each tensor
    update          = compute_update(g, W, accumulators, stats)    what is added to the weights, some rows at a time

A kind of optimizer says what these four are. Where no gradient is wanted, `compute_update` gets few enough rows to stay
in the processor's cache, so that nothing but the accumulators grows with the network. `metarobust.optim` makes the same
calls parameter by parameter.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec

Accumulators = Mapping[str, Tensor]


class State(NamedTuple):
    """The state of a run.

    Attributes:
        step: updates so far.
        total: how many there will be.
        param_spec: the network.
        accumulators: what each coordinate remembers, by name: `[*axes, ..., N]`.
        shared: what the run remembers for all coordinates alike.
    """

    step: int
    total: int
    param_spec: ParamSpec
    accumulators: dict[str, Tensor]
    shared: dict[str, Tensor]


class ParamInfo(NamedTuple):
    """A tensor's place in its network.

    Attributes:
        shape: as the network has it.
        rows, columns: of the matrix that it is seen as.
        fan_in, fan_out: as in `ParamSpec.fans`.
        layer: number of its layer, from 0: a weight opens a layer.
        last_layer: number of the network's last layer.
        has_bias: whether the tensor after it is the bias of its rows.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    fan_in: int
    fan_out: int
    layer: int
    last_layer: int
    has_bias: bool


class StepContext(NamedTuple):
    """The step being taken, from 1 to total, and what `prepare` computed for it."""

    step: int
    total: int
    prepared: Any


class ParamBlock(NamedTuple):
    """A tensor as a matrix, or some of its rows: gradients and weights `[..., rows, columns]`, and accumulators."""

    grads: Tensor
    params: Tensor
    accumulators: Accumulators
    info: ParamInfo

    def row_chunks(self, chunk: int) -> Iterator[slice]:
        """Slices of rows, about so many coordinates each; all of them at once where they are to be differentiated."""
        rows = self.params.shape[-2]
        size = rows if torch.is_grad_enabled() else chunk * rows // max(self.params.numel(), 1)
        return (slice(start, start + max(size, 1)) for start in range(0, max(rows, 1), max(size, 1)))

    def rows(self, rows: slice) -> "ParamBlock":
        """Some rows of it (views, no copy)."""
        parts = {name: x[..., rows, :] for name, x in self.accumulators.items()}
        return ParamBlock(self.grads[..., rows, :], self.params[..., rows, :], parts, self.info)


@lru_cache
def param_infos(param_spec: ParamSpec) -> tuple[ParamInfo, ...]:
    """The place of each tensor. A vector of another length, as a normalisation's after an embedding, is no bias."""
    infos, last_layer, after = [], max(param_spec.layers[-1], 0), (*param_spec.shapes[1:], ())
    for shape, following, size, fans, layer in zip(
        param_spec.shapes, after, param_spec.sizes, param_spec.fans, param_spec.layers, strict=True
    ):
        rows = shape[0] if len(shape) >= 2 else size
        has_bias = len(shape) >= 2 and following == shape[:1]
        infos.append(ParamInfo(shape, rows, size // max(rows, 1), *fans, layer, last_layer, has_bias))
    return tuple(infos)


class LearnedOptimizer(nn.Module, Optimizer):
    """A learned optimizer: a module whose parameters are theta, and an optimizer as in `metarobust.optimizers`."""

    chunk = 32768  # coordinates at a time: some 8 MB of numbers on the way through a small network

    @property
    @abstractmethod
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        """What each coordinate remembers: the sizes of the axes in front of the coordinates, () for one number."""

    def prepare(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        """What the next step has for all coordinates alike, and the next `shared`, which is {} at first."""
        return None, {}

    def update_accumulators(self, grads: Tensor, accumulators: Accumulators, context: StepContext) -> None:
        """Takes one more gradient into the accumulators, in place, as far as a coordinate's own says it all."""

    def tensor_stats(self, block: ParamBlock, bias: Accumulators | None, context: StepContext) -> tuple[Tensor, ...]:
        """What `compute_update` needs of a whole tensor.

        Args:
            block: the tensor.
            bias: accumulators of the bias of its rows, a column, where it has one.
            context: the step.

        Returns:
            Tensors `[..., rows, 1]`, or with one row that is for all of them.
        """
        return ()

    @abstractmethod
    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to some rows of a tensor, `[..., rows, columns]`, and the accumulators that change with it."""

    def for_tasks(self, tasks: int) -> "LearnedOptimizer":
        """The same with a theta of its own for each of the tasks, where a kind can; else itself."""
        return self

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> State:
        """The state before the first of `total` steps, for params `[..., N]`."""
        accumulators = {name: params.new_zeros(*axes, *params.shape) for name, axes in self.accumulators.items()}
        return State(0, total, param_spec, accumulators, {})

    def update(self, grads: Tensor, state: State, params: Tensor) -> tuple[Tensor, State]:
        """What is added to params `[..., N]`, and the next state."""
        prepared, shared = self.prepare(state)
        context, infos = StepContext(state.step + 1, state.total, prepared), param_infos(state.param_spec)
        accumulators = {name: x.clone() for name, x in state.accumulators.items()}
        self.update_accumulators(grads, accumulators, context)
        split = {name: matrices(x, infos) for name, x in accumulators.items()}
        each = [{name: parts[i] for name, parts in split.items()} for i in range(len(infos))]
        blocks = list(map(ParamBlock, matrices(grads, infos), matrices(params, infos), each, infos))
        _, _, updates, changed = zip(*self.updates(blocks, context), strict=True)
        new = {name: torch.cat([each[name].flatten(-2) for each in changed], -1) for name in changed[0]}
        state = State(context.step, state.total, state.param_spec, accumulators | new, shared)
        return torch.cat([update.flatten(-2) for update in updates], -1), state

    def updates(
        self, blocks: Sequence[ParamBlock], context: StepContext
    ) -> Iterator[tuple[int, slice, Tensor, dict[str, Tensor]]]:
        """What is added, after `update_accumulators`: a tensor's number, some of its rows, their `compute_update`."""
        for i, block in enumerate(blocks):
            stats = self.tensor_stats(block, blocks[i + 1].accumulators if block.info.has_bias else None, context)
            for rows in block.row_chunks(self.chunk):
                of_rows = [x if x.shape[-2] == 1 else x[..., rows, :] for x in stats]
                yield i, rows, *self.compute_update(block.rows(rows), of_rows, context)


def matrices(flat: Tensor, infos: Sequence[ParamInfo]) -> list[Tensor]:
    """A vector `[..., N]` as matrices `[..., rows, columns]` (views, no copy)."""
    parts = flat.split([info.rows * info.columns for info in infos], -1)
    return [part.unflatten(-1, (info.rows, info.columns)) for part, info in zip(parts, infos, strict=True)]
