"""The arithmetic of the coordinate-wise LSTM, written for speed: one step forward, and many steps backward.

The equations are those of `torch.nn.LSTMCell`. What is quick about it: a coordinate is a column, so that each gate of
all coordinates is one stretch of memory; both matrix products of a cell and its bias are one product; coordinates are
taken in chunks whose numbers stay in the processor's cache; and nothing of a step is kept for the way back but what it
began with. The way back takes a chunk through all its steps again, which costs less than storing them.

Source: backpropagation through time is Werbos 1990; forgetting and computing again is Chen et al. 2016
(arXiv 1604.06174).
"""

from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CHUNK = 2048  # coordinates; 20 steps of 20 units then take some 50 MB


class Weights(NamedTuple):
    """lower: `[4 H, 2 + 1 + H]`; upper: `[4 H, H + 1 + H]`; head: `[H]`, the read-out and its scale.

    Rows are the gates input, forget, output and candidate; columns what comes from below, the bias, what comes from
    the step before.
    """

    lower: Tensor
    upper: Tensor
    head: Tensor


State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Output and memory of the lower and of the upper layer, `[H, M]` each, for M coordinates."""


def pack(lower: nn.LSTMCell, upper: nn.LSTMCell, head: Tensor) -> Weights:
    """The weights of both cells in the order that is needed here. Can be differentiated."""

    def one(cell: nn.LSTMCell) -> Tensor:
        bias = (cell.bias_ih + cell.bias_hh)[:, None]
        i, f, g, o = torch.cat([cell.weight_ih, bias, cell.weight_hh], 1).chunk(4)
        return torch.cat([i, f, o, g])

    return Weights(one(lower), one(upper), head)


class _Moment(NamedTuple):
    """Views of one layer in one step, `[4 H, m]`, `[3 H, m]` or `[H, m]` each. before, memory: at its two ends."""

    seen: Tensor
    gates: Tensor
    three: Tensor
    enter: Tensor
    forget: Tensor
    show: Tensor
    candidate: Tensor
    before: Tensor
    memory: Tensor
    squashed: Tensor
    output: Tensor


class _Room:
    """Memory for `steps` steps of a chunk of `size` coordinates, used for chunk after chunk."""

    def __init__(self, weights: Weights, steps: int, size: int):
        new, h = weights.head.new_empty, len(weights.head)
        self.seen = new(steps + 1, 3 + h, size), new(steps + 1, h + 1 + h, size)
        self.seen[0][:, 2], self.seen[1][:, h] = 1.0, 1.0  # what the bias is multiplied with
        self.memory = new(2, steps + 1, h, size)
        gates, squashed = new(2, steps, 4 * h, size), new(2, steps, h, size)
        outputs = self.seen[1][:, :h], self.seen[1][1:, h + 1 :]
        self.moments = [
            [
                _Moment(
                    self.seen[layer][k], gates[layer, k], gates[layer, k, : 3 * h], *gates[layer, k].chunk(4),
                    *self.memory[layer, k : k + 2], squashed[layer, k], outputs[layer][k],
                )
                for k in range(steps)
            ]
            for layer in (0, 1)
        ]  # fmt: skip
        self.inputs = self.seen[0][:steps, :2]
        self.start = self.seen[0][0, 3:], self.memory[0, 0], self.seen[1][0, h + 1 :], self.memory[1, 0]
        self.lower_after = list(self.seen[0][1:, 3:])  # the lower output again, where the next step sees it
        self.end = self.lower_after[-1], self.memory[0, -1], outputs[1][-1], self.memory[1, -1]
        # tanh(z) = 2 sigmoid(2 z) - 1 takes a third of tanh's time, and all four gates are one call.
        self.doubled = [w.clone() for w in weights[:2]]
        for w in self.doubled:
            w[3 * h :] *= 2
        self.minus = weights.head.new_tensor(-1.0)

    def forward(self, inputs: Tensor, state: list[Tensor]) -> None:
        """All steps from `state`, `[H, size]` each, with inputs `[steps, 2, size]`."""
        self.inputs.copy_(inputs)
        for to, one in zip(self.start, state, strict=True):
            to.copy_(one)
        for lower, upper, after in zip(*self.moments, self.lower_after, strict=True):
            self._cell(self.doubled[0], lower)
            after.copy_(lower.output)
            self._cell(self.doubled[1], upper)

    def _cell(self, weight: Tensor, at: _Moment) -> None:
        torch.mm(weight, at.seen, out=at.gates).sigmoid_()
        torch.add(self.minus, at.candidate, alpha=2, out=at.candidate)
        torch.mul(at.enter, at.candidate, out=at.memory).addcmul_(at.forget, at.before)
        torch.mul(at.memory, 2, out=at.squashed).sigmoid_()
        torch.add(self.minus, at.squashed, alpha=2, out=at.squashed)
        torch.mul(at.show, at.squashed, out=at.output)


class _Slopes:
    """Memory for the way back through one cell."""

    def __init__(self, weight: Tensor, size: int):
        self.back = weight.T.contiguous()
        self.gates, self.seen = weight.new_empty(len(weight), size), weight.new_empty(weight.shape[1], size)
        self.three, self.parts = self.gates[: len(weight) // 4 * 3], self.gates.chunk(4)

    def cell(self, at: _Moment, output: Tensor, memory: Tensor, by_weight: Tensor) -> Tensor:
        """From the slopes by its output and memory to those by what it saw; memory becomes that of the step before."""
        enter, forget, show, candidate = self.parts
        torch.mul(output, at.show, out=enter)
        memory.add_(torch.ops.aten.tanh_backward.grad_input(enter, at.squashed, grad_input=enter))
        torch.mul(memory, at.candidate, out=enter)
        torch.mul(memory, at.before, out=forget)
        torch.mul(output, at.squashed, out=show)
        torch.mul(memory, at.enter, out=candidate)
        torch.ops.aten.sigmoid_backward.grad_input(self.three, at.three, grad_input=self.three)
        torch.ops.aten.tanh_backward.grad_input(candidate, at.candidate, grad_input=candidate)
        memory.mul_(at.forget)
        by_weight.addmm_(self.gates, at.seen.T)
        return torch.mm(self.back, self.gates, out=self.seen)


def _parts(like: Tensor) -> list[slice]:
    """The chunks of coordinates. A GPU has no use for small ones; there they only bound the memory."""
    size = CHUNK * torch.get_num_threads() if like.device.type == "cpu" else 32 * CHUNK
    total = like.shape[-1]
    return [slice(begin, min(begin + size, total)) for begin in range(0, total, size)]


def _length(part: slice) -> int:
    return part.stop - part.start


@torch.no_grad()
def forward(inputs: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """One step: inputs `[2, M]`, state and weights to what is read out, `[M]`, and the next state."""
    read, after = torch.empty_like(inputs[0]), tuple(map(torch.empty_like, state))
    for length, parts in groupby(_parts(inputs), _length):
        room = _Room(weights, 1, length)
        for part in parts:
            room.forward(inputs[None, :, part], [one[:, part] for one in state])
            for to, one in zip(after, room.end, strict=True):
                to[:, part] = one
            torch.mv(room.end[2].T, weights.head, out=read[part])
    return read, after


@torch.no_grad()
def backward(
    inputs: Tensor, state: State, weights: Weights, slopes: Tensor, after: State | None = None
) -> tuple[Weights, State, Tensor]:
    """The way back through K steps that begin at `state`.

    inputs: `[K, 2, M]`. slopes: `[K, M]`, the loss's by what each step read out; after: by the state at the end, 0 if
    None. Returns the loss's slopes by weights, by state, and by inputs `[K, 2, M]`.
    """
    h, by_inputs = len(weights.head), torch.empty_like(inputs)
    by_weights = Weights(*map(torch.zeros_like, weights))
    by_state = tuple(map(torch.zeros_like, state)) if after is None else tuple(one.clone() for one in after)
    for length, parts in groupby(_parts(inputs), _length):
        room = _Room(weights, len(inputs), length)
        lower, upper = (_Slopes(weight, length) for weight in weights[:2])
        for part in parts:
            room.forward(inputs[..., part], [one[:, part] for one in state])
            low, low_memory, up, up_memory = (one[:, part].clone() for one in by_state)
            for k in reversed(range(len(inputs))):
                below, above, slope = room.moments[0][k], room.moments[1][k], slopes[k, part]
                by_weights.head.addmv_(above.output, slope)
                seen = upper.cell(above, up.addr_(weights.head, slope), up_memory, by_weights.upper)
                up = seen[h + 1 :]
                seen = lower.cell(below, low.add_(seen[:h]), low_memory, by_weights.lower)
                low, by_inputs[k, :, part] = seen[3:], seen[:2]
            for to, one in zip(by_state, (low, low_memory, up, up_memory), strict=True):
                to[:, part] = one
    return by_weights, by_state, by_inputs


class Step(torch.autograd.Function):
    """`forward` with `backward` as its derivative, of which there is no further derivative."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(inputs, *tensors)
        read, after = forward(inputs, tensors[:4], Weights(*tensors[4:]))
        return read, *after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor, *after: Tensor) -> tuple[Tensor, ...]:
        inputs, *tensors = ctx.saved_tensors
        found = backward(inputs[None], tuple(tensors[:4]), Weights(*tensors[4:]), slope[None], after)
        by_weights, by_state, by_inputs = found
        return by_inputs[0], *by_state, *by_weights
