"""A learned optimizer in an ordinary training loop: `MetaOptimizer` is a `torch.optim.Optimizer`.

    optimizer = MetaOptimizer(model.parameters(), total_steps=20)
    for images, labels in batches:
        optimizer.zero_grad()
        loss(model(optimizer.inputs(images)), labels).backward()
        optimizer.step()

It takes the step that `metarobust.unroll` takes with the same learned optimizer, and is tested against it. What differs
from Adam and the like: it has to know how many steps there will be, because what the rule sees includes
step / total_steps; it looks at a whole network, layer by layer, so each parameter group is taken for a network of its
own, its parameters in the order of `model.parameters()` (give a model's biases no group of their own); and some kinds
want their gradients at noised images, which `inputs` makes of the given ones.

Sources: `metarobust.learned` for the rules; the protocol is PyTorch's.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.errors import InputError
from metarobust.learned import describe
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext, places
from metarobust.params import ParamSpec


class MetaOptimizer(torch.optim.Optimizer):
    """Moves parameters by a learned rule.

    params: as for any PyTorch optimizer; a group may have `total_steps` of its own. name: one of
    `pretrained.available()`, or a learned optimizer of any kind, which is copied. total_steps: how many steps there
    will be; one more is refused, for the rule has learned nothing about it.

    What a rule of tier 1 (the steering and the joint optimizer) needs of the loop beside gradients is noise on the
    images, and `inputs` adds it. Rules of tier 0 get the images as they are, so the loop is the same for all:

        optimizer = MetaOptimizer(model.parameters(), name, total_steps=len(batches))
        for images, labels in batches:
            optimizer.zero_grad()
            loss(model(optimizer.inputs(images, generator)), labels).backward()
            optimizer.step()

    A parameter that is frozen, or whose grad is None, stays where it is. It still counts as a layer of its network, and
    for what is remembered of its gradient as a gradient of 0; until its first gradient nothing is. Convolutions are
    matrices `[out, in * h * w]`. Whatever the type of a parameter, its step is computed in that of the rule, float32,
    and then added. `state[p]` has the rule's memory of the parameter's coordinates; beyond it a step takes memory for
    one parameter at a time, some 40 bytes for each coordinate of the largest. Gradients that are nan make parameters
    that are nan, as elsewhere.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        name: str | LearnedOptimizer = pretrained.DEFAULT,
        *,
        total_steps: int,
    ):
        if not isinstance(name, str | LearnedOptimizer):
            raise InputError(f"the optimizer is {type(name).__name__}; give a learned optimizer or {_names()}")
        found = pretrained.load(name) if isinstance(name, str) else copy.deepcopy(name)
        self.rule = found.requires_grad_(False)
        super().__init__(params, {"total_steps": total_steps, "step": 0, "shared": {}, "rule": _digest(self.rule)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in any PyTorch optimizer. Raises InputError for parameters on several devices or of complex numbers."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            total = group["total_steps"]
            if isinstance(total, bool) or not isinstance(total, int) or total < 1:
                raise InputError(f"total_steps is {total!r}; give how many steps there will be, a whole number above 0")
            for p in group["params"]:
                if not p.is_floating_point():
                    raise InputError(f"a parameter is {p.dtype}; give parameters of real floating-point numbers")
            _device(group["params"])
        except InputError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves each group's parameters once. closure: computes the loss anew; its value is returned.

        Raises InputError, with nothing moved in that group, after total_steps, for sparse gradients, and where
        parameters and gradients lie on several devices.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = _filled(group)
            if any(p.grad is not None for p in params):
                self._move(group, params)
        return loss

    def inputs(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images `[n, C, H, W]` at which the rule wants the gradient of the coming step, that of the first group.

        generator: where the noise is drawn from, on the images' device; PyTorch's own if None.
        """
        group = self.param_groups[0]
        return self.rule.inputs(images, _state(group, _filled(group)), generator)

    def _move(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of the coordinates of a group, a parameter at a time."""
        total, done = group["total_steps"], group["step"]
        if done >= total:
            raise InputError(
                f"all {total} steps are taken; stop here, or make a new MetaOptimizer with more total_steps"
            )
        rule = self.rule.to(_device([*params, *(_dense(p.grad) for p in params if p.grad is not None)]))
        like = next(rule.parameters())
        state = _state(group, params)
        where = places(state.param_spec)
        levers, shared = rule.begin(state._replace(shared={key: x.to(like) for key, x in state.shared.items()}))
        now = StepContext(done + 1, total, levers)

        # Every memory first: what a weight's step looks at includes that of its bias.
        for p, place in zip(params, where, strict=True):
            held = self._memory(p, place)
            if p.grad is None and held is None:
                continue
            if held is None:
                axes = rule.slots.items()
                held = {name: like.new_zeros(*sizes, place.rows, place.columns) for name, sizes in axes}
            self._remember(p, rule.watch(_gradient(p, place, like), held, now))
        for i, (p, place) in enumerate(zip(params, where, strict=True)):
            held = self._memory(p, place)
            if held is None:
                continue
            bias = self._memory(params[i + 1], where[i + 1]) if place.biased else None
            values = p.detach().to(like).reshape(place.rows, place.columns)
            step, changed = rule.move(_gradient(p, place, like), held, values, bias, place, now)
            self._remember(p, changed)
            if p.grad is not None:
                p.add_(step.reshape(p.shape))  # adds in the wider of the two types, and rounds once
        group |= {"step": done + 1, "shared": shared}

    def _memory(self, p: Tensor, place: ParamInfo) -> dict[str, Tensor] | None:
        """What is remembered of a parameter, as matrices (views); None before its first gradient."""
        held = self.state.get(p)
        matrix = (place.rows, place.columns)
        return held and {name: x.reshape((*x.shape[: x.ndim - p.ndim], *matrix)) for name, x in held.items()}

    def _remember(self, p: Tensor, slots: dict[str, Tensor]) -> None:
        self.state[p] |= {name: x.reshape((*x.shape[:-2], *p.shape)) for name, x in slots.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on exactly where the optimizer was that gave this state.

        Raises InputError where that one had another rule, and ValueError where its groups were others.
        """
        saved = state_dict["param_groups"]
        if any(group.get("rule") != _digest(self.rule) for group in saved):
            raise InputError(
                "the state is of an optimizer with another rule; make this one with the same name or weights"
            )
        super().load_state_dict(state_dict)
        # The base class rounds averages to the parameter's type: for a half one, not what the next step needs.
        dtype = next(self.rule.parameters()).dtype
        own = (p for group in self.param_groups for p in group["params"])
        for number, p in zip((n for group in saved for n in group["params"]), own, strict=True):
            if number in state_dict["state"]:
                held = state_dict["state"][number]
                self.state[p] = {key: value.to(dtype).to(p.device) for key, value in held.items()}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"rule": self.rule}  # the base class copies its own fields alone


def _device(tensors: Iterable[Tensor]) -> torch.device:
    """The one device of the tensors. Raises InputError where there are several."""
    found = list(dict.fromkeys(t.device for t in tensors))
    if len(found) > 1:
        raise InputError(
            f"the parameters of a group and their gradients lie on {found[0]} and {found[1]}; "
            f"move the model to one device, or give each device's parameters a group, or an optimizer, of its own"
        )
    return found[0] if found else torch.device("cpu")


def _dense(grad: Tensor) -> Tensor:
    if grad.layout != torch.strided:
        raise InputError("a gradient is sparse; make the layer with sparse=False")
    return grad


def _filled(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that have any coordinate."""
    return [p for p in group["params"] if p.numel()]


def _state(group: dict[str, Any], params: list[Tensor]) -> State:
    """Where the run of a group is, without what its coordinates remember."""
    param_spec = ParamSpec(tuple(map(str, range(len(params)))), tuple(tuple(p.shape) for p in params))
    return State(group["step"], group["total_steps"], param_spec, {}, group["shared"])


def _gradient(p: Tensor, place: ParamInfo, like: Tensor) -> Tensor:
    """A parameter's gradient as a matrix, in the type that steps are computed in."""
    return (torch.zeros_like(p) if p.grad is None else p.grad).to(like).reshape(place.rows, place.columns)


def _digest(rule: LearnedOptimizer) -> str:
    """The SHA-256 of the rule's kind and numbers, so that a state is not taken up by another rule."""
    content = hashlib.sha256(repr(describe(rule)).encode())
    for p in rule.parameters():
        content.update(p.detach().cpu().double().numpy().tobytes())
    return content.hexdigest()


def _names() -> str:
    return "one of " + ", ".join(pretrained.available())
