"""Values between the judge and the process of a submission: JSON and safetensors over a pipe, and no pickle.

What comes from a submission is never trusted: it becomes tensors, numbers, text, and lists and dictionaries of them.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from metarobust.course.toys import TOYS, Seeded, Toy

MOST_BYTES = 8_000_000  # of one frame
MOST_ENTRIES = 200_000  # of a tensor, and of all lists of a result together
DEPTH = 6


class Broken(Exception):
    """The other side ended, or sent what is no message."""


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for what a function is given; its tensors go to `tensors`."""
    if isinstance(value, Tensor):
        key = f"{len(tensors)}"
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"#": key, "leaf": value.requires_grad, "grad": pack(value.grad, tensors) if value.is_leaf else None}
    if isinstance(value, Toy):
        parts = {name: pack(p.grad, tensors) for name, p in value.named_parameters() if p.grad is not None}
        given = {name: pack(part, tensors) for name, part in value.given.items()}
        return {"toy": type(value).__name__, "given": given, "grads": parts, "training": value.training}
    if isinstance(value, Seeded):
        return {"seed": value.seed}
    if isinstance(value, Mapping):
        return {"dict": {name: pack(part, tensors) for name, part in value.items()}}
    return [pack(part, tensors) for part in value] if isinstance(value, list | tuple) else value


def unpack(tree: Any, tensors: Mapping[str, Tensor], trusted: bool = False) -> Any:
    """What `pack` was given. trusted: whether toys and generators are made of what asks for them."""
    if isinstance(tree, list):
        return [unpack(part, tensors, trusted) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if "#" in tree:
        found = tensors.get(str(tree["#"]))
        if found is None or not trusted:
            return found
        found = found.clone().requires_grad_(bool(tree["leaf"]))
        found.grad = unpack(tree["grad"], tensors, trusted)
        return found
    if "dict" in tree:
        return {name: unpack(part, tensors, trusted) for name, part in dict(tree["dict"]).items()}
    if trusted and "seed" in tree:
        return torch.Generator().manual_seed(tree["seed"])
    if trusted and "toy" in tree:
        toy = TOYS[tree["toy"]](**{name: unpack(part, tensors, trusted) for name, part in tree["given"].items()})
        for name, grad in tree["grads"].items():
            toy.get_parameter(name).grad = unpack(grad, tensors, trusted)
        return toy.train(tree["training"])
    return None


def plain(value: Any, depth: int = DEPTH, left: list[int] | None = None) -> Any:
    """What a function returned, as tensors, numbers, text, and containers of them; else the name of its type."""
    left = [MOST_ENTRIES] if left is None else left
    left[0] -= 1
    if hasattr(value, "__array__") and not isinstance(value, Tensor) and getattr(value, "ndim", 0):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        left[0] -= value.numel()
        if left[0] > 0:
            return value.detach().to_dense() if value.layout != torch.strided else value.detach()
        return {"type": f"tensor of {value.numel():,} entries"}
    if value is None or isinstance(value, bool | str):
        return value[:1000] if isinstance(value, str) else value
    if depth and left[0] > 0:
        if isinstance(value, Mapping):
            return {str(name)[:100]: plain(part, depth - 1, left) for name, part in list(value.items())[:1000]}
        if isinstance(value, Iterable) and getattr(value, "ndim", 1):  # an array without axes is a number
            return [plain(part, depth - 1, left) for part, _ in zip(value, range(MOST_ENTRIES), strict=False)]
    for number in (operator.index, float):
        with suppress(Exception):
            return number(value)
    return {"type": type(value).__name__[:100]}


class Channel:
    """Messages over a connection: two frames each, the JSON and the tensors."""

    def __init__(self, end: Connection):
        self._end = end

    def send(self, message: Any) -> None:
        """Raises Broken where nobody is there."""
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(pack(message, tensors)).encode()
        try:
            self._end.send_bytes(tree)
            self._end.send_bytes(save(tensors))
        except OSError as error:
            raise Broken("its process ended early") from error

    def receive(self, trusted: bool = False) -> dict[str, Any]:
        """The next message. Raises Broken where there is none, or where it is no message."""
        try:
            tree, body = (self._end.recv_bytes(MOST_BYTES) for _ in range(2))
        except (EOFError, OSError) as error:
            late = isinstance(error, EOFError) or error.errno  # else the frame is too long
            raise Broken("its process ended early" if late else "it returns more than a message may hold") from error
        try:
            found = unpack(json.loads(tree), load(body), trusted)
        except (ValueError, RecursionError, SafetensorError, KeyError, TypeError, AttributeError) as error:
            raise Broken("it sends no message") from error
        if not isinstance(found, dict):
            raise Broken("it sends no message")
        return found
