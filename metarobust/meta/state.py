"""What a meta-training has learned so far: theta, its Adam, the last good place of both, and the best theta yet."""

import torch
from torch import Tensor


class State:
    """theta and its Adam, which change in place, and two places to go back to.

    good: where the last episode that went well began, so that it is known to be sound; a step back leads there. best:
    theta where the held-out tasks turned out best, or None before anyone has looked. Both are copies.
    """

    def __init__(self, theta: dict[str, Tensor], lr: float):
        self.theta = theta
        self.adam = torch.optim.Adam(theta.values(), lr)
        self.good = self.here()
        self.best: dict[str, Tensor] | None = None

    def here(self) -> dict[str, Tensor]:
        """A copy of theta and Adam as they are now."""
        return pack(self.theta, self.adam)

    def go(self, there: dict[str, Tensor]) -> None:
        """Puts theta and Adam where they were when `here` was asked."""
        restore(self.theta, self.adam, there)

    def keep_best(self) -> None:
        """theta as it is now is the best yet."""
        self.best = {name: p.detach().clone() for name, p in self.theta.items()}

    def go_to_best(self) -> None:
        """Puts the best theta in place, where there is one."""
        if self.best is not None:
            with torch.no_grad():
                for name, p in self.theta.items():
                    p.copy_(self.best[name])

    def packed(self) -> dict[str, Tensor]:
        """All of it as named tensors, copied."""
        best = {f"best.{name}": p.clone() for name, p in (self.best or {}).items()}
        return self.here() | {f"good.{name}": p.clone() for name, p in self.good.items()} | best

    def take_up(self, packed: dict[str, Tensor]) -> None:
        """Goes on, in place, where `packed` left off."""
        restore(self.theta, self.adam, packed)
        parts: dict[str, dict[str, Tensor]] = {"good": {}, "best": {}}
        for name, tensor in packed.items():
            kind, _, rest = name.partition(".")
            if kind in parts:
                parts[kind][rest] = tensor.clone()
        # What `pack` alone made has no other place to go back to.
        self.good, self.best = parts["good"] or self.here(), parts["best"] or None


def pack(theta: dict[str, Tensor], adam: torch.optim.Adam) -> dict[str, Tensor]:
    """theta and the state of its Adam as named tensors, copied: the originals go on changing."""
    packed = {f"theta.{name}": p.detach().clone() for name, p in theta.items()}
    for name, p in theta.items():  # before the first step, Adam has no state
        packed |= {f"adam.{name}.{key}": torch.as_tensor(value).clone() for key, value in adam.state.get(p, {}).items()}
    return packed


def restore(theta: dict[str, Tensor], adam: torch.optim.Adam, packed: dict[str, Tensor]) -> None:
    """Takes up theta and its Adam, in place, where `pack` left them."""
    with torch.no_grad():
        for name, p in theta.items():
            p.copy_(packed[f"theta.{name}"])
    state = {}
    for number, (name, p) in enumerate(theta.items()):
        if f"adam.{name}.step" in packed:
            # Moments laid out in memory as the parameter is: another order rounds otherwise in the last bit.
            moments = {k: torch.empty_like(p).copy_(packed[f"adam.{name}.{k}"]) for k in ("exp_avg", "exp_avg_sq")}
            state[number] = {"step": packed[f"adam.{name}.step"].clone(), **moments}
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
