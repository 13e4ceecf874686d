"""A learned optimizer in an ordinary training loop: `MetaOptimizer` is a `torch.optim.Optimizer`.

    optimizer = MetaOptimizer(model.parameters(), "train", total_steps=200)
    for images, labels in batches:
        optimizer.zero_grad()
        optimizer.loss(model, images, labels).backward()
        optimizer.step()

It takes the step that `metarobust.unroll` takes with the same learned optimizer, and is tested against it. What differs
from Adam and the like: it has to know how many steps there will be, because what a learned optimizer sees includes
step / total_steps; it looks at a whole network, layer by layer, so each parameter group is taken for a network of its
own, its parameters in the order of `model.parameters()` (give a model's biases no group of their own); and it has a
say in what is minimised: `loss` is cross-entropy for kinds of tier 0, has noised images for tier 1, and penalties on
how steep and how bent the loss is in the images for tier 2.

Sources: `metarobust.learned` for the updates; the protocol is PyTorch's.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.attacks.threat import check_eps
from metarobust.errors import InputError, check_count, is_number, plain
from metarobust.learned import describe
from metarobust.learned.protocol import LearnedOptimizer, ParamBlock, State, StepContext, param_infos
from metarobust.objectives import clean
from metarobust.params import ParamSpec
from metarobust.penalties import Penalised, check_second_derivative


class MetaOptimizer(torch.optim.Optimizer):
    """Moves parameters by a learned optimizer.

    A parameter that is frozen, whatever its grad, or whose grad is None, stays where it is. It still counts as a layer
    of its network, and for the accumulators as a gradient of 0. Whatever the type of a parameter, its update is
    computed in that of the learned optimizer, float32, and then added. `state[p]` has the accumulators of the
    parameter's coordinates. Gradients that are nan make parameters that are nan, as elsewhere.

    The rule knows its own rate. A group's `lr` is a factor on what is added, 1.0 at first, so that schedulers work: 0.5
    halves the coming steps. What that does to robustness nobody has measured.

    Args:
        params: as for any PyTorch optimizer; a group may have `total_steps`, `eps` and `lr` of its own.
        optimizer: "train" for fresh models, "patch" for trained ones, another of `pretrained.available()`, or a learned
            optimizer of any kind, which is copied.
        total_steps: how many steps there will be; one more is refused, for nothing was learned about it.
        eps: L-infinity radius that the model is to stand, in pixel units: what noise and penalties are relative to.

    Raises:
        InputError: for another optimizer or number of steps, other settings in a group, and for parameters on several
            devices or of a type that is not real and floating-point.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        optimizer: str | LearnedOptimizer,
        *,
        total_steps: int,
        eps: float = 0.1,
    ):
        if not isinstance(optimizer, str | LearnedOptimizer):
            names = ", ".join(pretrained.available())
            raise InputError(f"the optimizer is {type(optimizer).__name__}; give a learned optimizer or one of {names}")
        own = pretrained.load(optimizer) if isinstance(optimizer, str) else copy.deepcopy(optimizer)
        self.rule = own.requires_grad_(False)
        of_run = {"step": 0, "shared": {}, "sha256": _digest(self.rule)}
        super().__init__(params, {"lr": 1.0, "total_steps": total_steps, "eps": eps, **of_run})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in any PyTorch optimizer; refuses what the class refuses, and then leaves no trace of the group."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1], known={*self.defaults, "params", "param_names", "name", "initial_lr"})
        except InputError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves each group's parameters once.

        Args:
            closure: computes the loss anew; its value is returned.

        Raises:
            InputError: with nothing moved in that group, after total_steps, for sparse gradients, and where parameters
                and gradients lie on several devices.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = _filled(group)
            grads = [p.grad if p.requires_grad else None for p in params]
            if any(grad is not None for grad in grads):
                self._step_group(group, params, grads)
        torch.clear_autocast_cache()  # inside one autocast region it has the weights as they were
        return loss

    def loss(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the learned optimizer wants the gradient of, in the coming step of the first group.

        Args:
            model: maps images in [0, 1] to logits `[n, classes]`. A penalty asks for its gradient in the images, and
                then for the gradient of that in the parameters.
            images: `[n, C, H, W]`, clean ones.
            labels: `[n]`, int64.
            generator: where noise is drawn from, on the images' device; PyTorch's own if None.

        Returns:
            A scalar to call `backward` of.

        Raises:
            InputError: before the first step, for a model that has no second derivative where a penalty needs it.
        """
        group = self.param_groups[0]
        objective = self.rule.objective(clean, _state(group, _filled(group)), group["eps"])
        if isinstance(objective, Penalised) and group["step"] == 0:
            check_second_derivative(model, images[:2], [p for g in self.param_groups for p in g["params"]])
        with torch.enable_grad():
            return objective(model, images, labels, cast(torch.Generator, generator)).mean()

    def _step_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor | None]) -> None:
        total, done = group["total_steps"], group["step"]
        if done >= total:
            raise InputError(
                f"all {total} steps are taken; stop here, or make a new MetaOptimizer with more total_steps"
            )
        given = [grad for grad in grads if grad is not None]
        if any(grad.layout != torch.strided for grad in given):
            raise InputError("a gradient is sparse; make the layer with sparse=False")
        optimizer = self.rule.to(_device([*params, *given]))
        like, state = next(optimizer.parameters()), _state(group, params)
        prepared, shared = optimizer.prepare(state._replace(shared={k: x.to(like) for k, x in state.shared.items()}))
        context, blocks = StepContext(done + 1, total, prepared), []
        for p, grad, info in zip(params, grads, param_infos(state.param_spec), strict=True):
            matrix = (info.rows, info.columns)
            if p not in self.state:
                axes = optimizer.accumulators.items()
                self.state[p] = {name: like.new_zeros((*sizes, *p.shape)) for name, sizes in axes}
            grad = (torch.zeros_like(p) if grad is None else grad).to(like).reshape(matrix)
            held = {name: x.view(*x.shape[: x.ndim - p.ndim], *matrix) for name, x in self.state[p].items()}
            blocks.append(ParamBlock(grad, p.detach().to(like).reshape(matrix), held, info))
            for part in map(blocks[-1].rows, blocks[-1].row_chunks(optimizer.chunk)):
                optimizer.update_accumulators(part.grads, part.accumulators, context)
        for i, rows, update, changed in optimizer.updates(blocks, context):
            for name, x in changed.items():
                blocks[i].accumulators[name][..., rows, :] = x
            if grads[i] is not None:  # adds in the wider of the two types, and rounds once
                part = torch.atleast_1d(params[i])[rows]
                part.add_(update.reshape(part.shape), alpha=float(group["lr"]))
        group |= {"step": done + 1, "shared": shared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on exactly where the optimizer was that gave this state.

        Raises:
            InputError: where that one had another theta.
            ValueError: where its groups were others.
        """
        saved = state_dict["param_groups"]
        if any(group.get("sha256") != _digest(self.rule) for group in saved):
            raise InputError("the state is of another learned optimizer; make this one with the same name or weights")
        super().load_state_dict(state_dict)
        # The base class rounds averages to the parameter's type: for a half one, not what the next step needs.
        dtype = next(self.rule.parameters()).dtype
        own = (p for group in self.param_groups for p in group["params"])
        for number, p in zip((n for group in saved for n in group["params"]), own, strict=True):
            if number in state_dict["state"]:
                held = state_dict["state"][number]
                self.state[p] = {key: value.to(p.device, dtype, copy=True).contiguous() for key, value in held.items()}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"rule": self.rule}  # the base class copies its own fields alone


def _check(group: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(group.keys() - known):
        raise InputError(f"a group sets {', '.join(unknown)}; the rule knows its own: give total_steps, eps or lr")
    group["eps"] = plain(group["eps"])
    check_eps(group["eps"], "linf")
    check_count("total_steps", group["total_steps"])
    lr = group["lr"]
    if not (is_number(lr) or isinstance(lr, Tensor)) or not 0 <= lr < math.inf:
        raise InputError(f"lr is {lr!r}; give a factor on the learned step from 0, where 1.0 is the step itself")
    for p in group["params"]:
        if not p.is_floating_point():
            raise InputError(f"a parameter is {p.dtype}; give parameters of real floating-point numbers")
    _device(group["params"])


def _device(tensors: Iterable[Tensor]) -> torch.device:
    """The one device of the tensors. Raises InputError where there are several."""
    devices = list(dict.fromkeys(t.device for t in tensors))
    if len(devices) > 1:
        raise InputError(
            f"the parameters of a group and their gradients lie on {devices[0]} and {devices[1]}; "
            f"move the model to one device, or give each device's parameters a group, or an optimizer, of its own"
        )
    return devices[0] if devices else torch.device("cpu")


def _filled(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that have any coordinate."""
    return [p for p in group["params"] if p.numel()]


def _state(group: dict[str, Any], params: list[Tensor]) -> State:
    """Where the run of a group is, without its accumulators."""
    param_spec = ParamSpec(tuple(map(str, range(len(params)))), tuple(tuple(p.shape) for p in params))
    return State(group["step"], group["total_steps"], param_spec, {}, group["shared"])


def _digest(optimizer: LearnedOptimizer) -> str:
    """The SHA-256 of a learned optimizer, so that a state is not loaded into another one."""
    content = hashlib.sha256(repr(describe(optimizer)).encode())
    for p in optimizer.parameters():
        content.update(p.detach().cpu().double().numpy().tobytes())
    return content.hexdigest()
