"""A learned optimizer in an ordinary training loop: `MetaOptimizer` is a `torch.optim.Optimizer`.

    optimizer = MetaOptimizer(model.parameters(), total_steps=20)
    for images, labels in batches:
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()

It takes the step that `metarobust.unroll` takes with the same FeatureMLP, and is tested against it. What differs from
Adam and the like: it has to know how many steps there will be, because what the rule sees includes step / total_steps;
and it looks at a whole network, layer by layer, so each parameter group is taken for a network of its own, its
parameters in the order of `model.parameters()`. Give a model's biases no group of their own.

Sources: `metarobust.learned.mlp` for the rule; the protocol is PyTorch's.
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
from metarobust.layout import Layout
from metarobust.learned.features import Moments
from metarobust.learned.mlp import FeatureMLP


class MetaOptimizer(torch.optim.Optimizer):
    """Moves parameters by a learned rule.

    params: as for any PyTorch optimizer; a group may have `total_steps` of its own. optimizer: a name of
    `pretrained.available()`, or a FeatureMLP, which is copied. total_steps: how many steps there will be; one more is
    refused, for the rule has learned nothing about it.

    A parameter that is frozen, or whose grad is None, stays where it is. It still counts as a layer of its network, and
    for the averages of its gradient as a gradient of 0. Convolutions are matrices `[out, in * h * w]`. Whatever the
    type of a parameter, its step is computed in that of the rule, float32, and then added. All coordinates of a group
    are computed at once, which takes some 600 bytes of memory for each. Gradients that are nan make parameters that
    are nan, as elsewhere.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        optimizer: str | FeatureMLP = pretrained.DEFAULT,
        *,
        total_steps: int,
    ):
        if not isinstance(optimizer, str | FeatureMLP):
            raise InputError(f"optimizer is {type(optimizer).__name__}; give a FeatureMLP or {_names()}")
        found = pretrained.load(optimizer) if isinstance(optimizer, str) else copy.deepcopy(optimizer)
        self.rule = found.requires_grad_(False)
        super().__init__(params, {"total_steps": total_steps, "step": 0, "rule": _digest(self.rule)})

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
            params = [p for p in group["params"] if p.numel()]
            if any(p.grad is not None for p in params):
                self._move(group, params)
        return loss

    def _move(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of all coordinates of a group at once."""
        total, done = group["total_steps"], group["step"]
        if done >= total:
            raise InputError(
                f"all {total} steps are taken; stop here, or make a new MetaOptimizer with more total_steps"
            )
        rule = self.rule.to(_device([*params, *(p.grad for p in params if p.grad is not None)]))
        like = rule.log_lr
        layout = Layout(tuple(map(str, range(len(params)))), tuple(tuple(p.shape) for p in params))

        def flat(tensors: Iterable[Tensor]) -> Tensor:
            return layout.flatten({name: t.to(like) for name, t in zip(layout.names, tensors, strict=True)})

        values = flat(params)
        state = rule.init(values, layout, total)
        past = [self.state.get(p) for p in params]
        if done:
            means, square = (
                flat(
                    p.new_zeros(*lead, *p.shape) if held is None else held[key]
                    for p, held in zip(params, past, strict=True)
                )
                for key, lead in (("means", state.moments.means.shape[:1]), ("square", ()))
            )
            state = state._replace(moments=Moments(done, means, square))
        grads = flat(torch.zeros_like(p) if p.grad is None else _dense(p.grad) for p in params)
        steps, state = rule.update(grads, state, values)
        moves, means, square = map(layout.split, (steps, state.moments.means, state.moments.square))
        for name, p, held in zip(layout.names, params, past, strict=True):
            if p.grad is not None:
                p.add_(moves[name])  # adds in the wider of the two types, and rounds once
            if p.grad is not None or held is not None:
                # Copies: a view would keep the averages of all the others alive, and save them too.
                self.state[p] = {"means": means[name].clone(), "square": square[name].clone()}
        group["step"] = done + 1

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
        own = (p for group in self.param_groups for p in group["params"])
        for number, p in zip((n for group in saved for n in group["params"]), own, strict=True):
            if number in state_dict["state"]:
                held = state_dict["state"][number]
                self.state[p] = {key: value.to(self.rule.log_lr.dtype).to(p.device) for key, value in held.items()}

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


def _digest(rule: FeatureMLP) -> str:
    """The SHA-256 of the rule's numbers, so that a state is not taken up by another rule."""
    content = hashlib.sha256(repr(rule.cap).encode())
    for p in rule.parameters():
        content.update(p.detach().cpu().double().numpy().tobytes())
    return content.hexdigest()


def _names() -> str:
    return "one of " + ", ".join(pretrained.available())
