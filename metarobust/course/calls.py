"""A call of a student's function, in whatever process: the request, and the reply as the judge reads it.

    reply = Reply(read(perform(function, request(x, eps))))

A request is pickled, for the judge is trusted. A reply is JSON, for a submission is not: it becomes tensors, numbers,
text, and lists and dictionaries of them.
"""

from __future__ import annotations

import json
import operator
import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metarobust.book.properties import NOTHING, CannotJudge, calm, tensor
from metarobust.course.toys import Toy

MOST_BYTES = 8_000_000  # of a reply
MOST_ENTRIES = 200_000  # of a tensor
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


class Ended(Exception):
    """The other side is no longer there, or talks nonsense: a status in a word or two, and what to say of it."""


def request(*given: Any, slope: int | None = None, used: bool = False) -> bytes:
    """A call, for `perform`.

    Args:
        given: what the function gets: tensors, numbers, generators, toys, and lists and dictionaries of them.
        slope: which of these to differentiate the sum of each result by; None for none.
        used: whether there are gradients of somebody else's in whatever can have one.
    """
    return pickle.dumps((given, slope, used))


def perform(function: Callable[..., Any], asked: bytes) -> bytes:
    """Call a function as requested, on tensors of its own. Returns what `Reply` is about."""
    with calm():
        try:
            given, slope, used = pickle.loads(asked)
            for leaf in chain.from_iterable(map(_leaves, given)):
                leaf.grad = torch.ones_like(leaf) if used and leaf.requires_grad else None
            before = [_state(one) for one in given]
            result = function(*given)
            tensors = [one for one in tree_leaves(result) if isinstance(one, Tensor)][:10]
            reply = {
                "value": result,
                "graph": any(one.requires_grad for one in tensors),
                "chained": any(one.grad_fn is not None for one in tensors),
                "slopes": [] if slope is None else [_slope(one, _leaves(given[slope])[0]) for one in tensors],
                "kept": [_state(one) == state for one, state in zip(given, before, strict=True)],
                "notes": [_notes(one) for one in given],
            }
            text = json.dumps(reply, default=_plain, skipkeys=True)
            if len(text) > MOST_BYTES:
                raise ValueError("it returns more than a message may hold")
            return text.encode()
        except Exception as error:
            return stopped(error)


def stopped(error: BaseException) -> bytes:
    """The reply of a function that raises."""
    return json.dumps({"stopped": f"it stops with {words(error)}"}).encode()


def words(error: BaseException) -> str:
    """An error in one short line; its text is the student's own, and as long as they like."""
    text = " ".join(str(error)[:500].split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _leaves(given: Any) -> list[Tensor]:
    """The tensors in what a function is given."""
    if isinstance(given, nn.Module):
        return list(given.parameters())
    return [given] if isinstance(given, Tensor) else []


def _state(given: Any) -> str:
    """What a function might change of what it is given: entries, gradients, and a model's mode."""
    leaves = [[one, one.requires_grad, one.grad] for one in _leaves(given)]
    return json.dumps([leaves, getattr(given, "training", None)], default=_plain)


def _notes(given: Any) -> list[Any]:
    """What toys saw of the call."""
    if isinstance(given, list):
        return [note for one in given for note in _notes(one)]
    return given.notes[:200] if isinstance(given, Toy) else []


def _slope(result: Tensor, leaf: Tensor) -> Tensor | None:
    if not result.requires_grad:
        return None
    return torch.autograd.grad(result.sum(), leaf, retain_graph=True, allow_unused=True)[0]


def _plain(value: Any) -> Any:
    """What JSON can say of a value that it does not know: of a stranger, the name of its type."""
    if hasattr(value, "__array__") and getattr(value, "ndim", 0) and not isinstance(value, Tensor):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.numel() > MOST_ENTRIES or dtype not in DTYPES:
            return {"type": f"tensor of {value.numel():,} entries, {dtype}"}
        return {"#": value.detach().to_dense().flatten().tolist(), "shape": value.shape, "dtype": dtype}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and getattr(value, "ndim", 1):  # an array without axes is a number
        return list(islice(value, MOST_ENTRIES))
    for number in (operator.index, float):
        with suppress(Exception):
            return number(value)
    return {"type": type(value).__name__[:100]}


def read(content: bytes) -> dict[str, Any]:
    """The reply that this is. Raises Ended where it is none."""
    try:
        found = json.loads(content, object_hook=_tensor)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise Ended("crashed", "it sends no message") from error
    if not isinstance(found, dict):
        raise Ended("crashed", "it sends no message")
    return found


def _tensor(found: dict[str, Any]) -> Any:
    if "#" not in found:
        return found
    dtype = getattr(torch, DTYPES[DTYPES.index(found["dtype"])])
    return torch.tensor(found["#"], dtype=dtype).view(found["shape"])


class Reply:
    """What a function returned for what it was given, and what it left behind. May be forged: nothing of it is sure."""

    def __init__(self, found: dict[str, Any]):
        self._found = found

    def value(self) -> Any:
        """Raises CannotJudge where the function returned nothing, or stopped."""
        if self._found.get("value") is None:
            raise CannotJudge(str(self._found.get("stopped") or NOTHING)[:300])
        return self._found["value"]

    def tensor(self, *shape: int, finite: bool = True) -> Tensor:
        """A floating-point tensor of this shape. Raises CannotJudge where it is none."""
        return tensor(self.value(), shape, finite)

    def graph(self) -> bool:
        """Whether what it returned can be differentiated."""
        return bool(self._found["graph"])

    def chained(self) -> bool:
        """Whether what it returned carries the graph of what it was computed from."""
        return bool(self._found["chained"])

    def slopes(self, *shape: int) -> list[Tensor]:
        """The gradients of each of its tensors, and of one more; 0 where there is none."""
        found = [*self._found["slopes"], None]
        return [s if isinstance(s, Tensor) and s.shape == shape else torch.zeros(shape) for s in found]

    def notes(self, which: int) -> list[Any]:
        """What a toy that it was given saw, or all of a list of them."""
        return list(self._found["notes"][which])

    def kept(self, *which: int) -> bool:
        """Whether these of what it was given are as they were: entries, gradients, and a model's mode."""
        return all(self._found["kept"][one] for one in which)
