"""theta and its Adam as named tensors, to be stored and restored.

theta.NAME       a parameter of the learned optimizer, by its name in `named_parameters`
adam.NAME.KEY    what Adam remembers of it; nothing before its first step
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def pack(theta: Mapping[str, Tensor], adam: torch.optim.Adam) -> dict[str, Tensor]:
    """theta and the state of its Adam as named tensors, copied: the originals go on changing."""
    packed = {f"theta.{name}": p.detach().clone() for name, p in theta.items()}
    for name, p in theta.items():
        packed |= {f"adam.{name}.{key}": torch.as_tensor(value).clone() for key, value in adam.state.get(p, {}).items()}
    return packed


def restore(theta: Mapping[str, Tensor], adam: torch.optim.Adam, packed: Mapping[str, Tensor]) -> None:
    """Puts theta and its Adam, in place, where they were when `pack` was called."""
    with torch.no_grad():
        for name, value in theta_of(packed).items():
            theta[name].copy_(value)
    state = {}
    for number, (name, p) in enumerate(theta.items()):
        if f"adam.{name}.step" in packed:
            # Moments laid out in memory as the parameter is: another order rounds otherwise in the last bit.
            moments = {k: torch.empty_like(p).copy_(packed[f"adam.{name}.{k}"]) for k in ("exp_avg", "exp_avg_sq")}
            state[number] = {"step": packed[f"adam.{name}.step"].clone(), **moments}
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})


def theta_of(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """theta in a checkpoint, as the learned optimizer's `load_state_dict` takes it."""
    return with_prefix(packed, "theta.")


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
