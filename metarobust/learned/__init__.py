"""Learned optimizers by kind. Each is a module whose parameters are theta, and an `Optimizer` beside SGD and Adam.

`make` and `describe` are each other's inverse up to theta: what is stored beside weights, and read again.
"""

from typing import Any

import torch
from torch import nn

from metarobust.errors import InputError, choose
from metarobust.learned.feature_lstm import FeatureLSTM
from metarobust.learned.joint import Joint
from metarobust.learned.lstm import CoordinateLSTM
from metarobust.learned.mlp import FeatureMLP
from metarobust.learned.penalties import LearnedPenalties
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.learned.schedule import LearnedSchedule

KINDS: dict[str, type[LearnedOptimizer]] = {
    "lstm": CoordinateLSTM,
    "features": FeatureMLP,
    "feature-lstm": FeatureLSTM,
    "steering": LearnedSchedule,
    "joint": Joint,
    "penalties": LearnedPenalties,
}
TIERS = {"lstm": "0", "features": "0", "feature-lstm": "0", "steering": "1", "joint": "1", "penalties": "2"}
"""What each may look at: 0, clean gradients; 1, also gradients at noised inputs; 2, also in the input."""
SHAPES = {
    "lstm": ("hidden", "scale"),
    "features": ("hidden", "cap"),
    "feature-lstm": ("hidden", "cap"),
    "steering": (),
    "joint": ("hidden", "cap"),
    "penalties": ("at_random",),
}
"""The numbers of each that are not in theta."""


def make(kind: str, generator: torch.Generator | None = None, **shape: Any) -> LearnedOptimizer:
    """An untrained optimizer.

    Args:
        kind: one of KINDS.
        generator: of its first theta.
        **shape: its numbers by name, as in SHAPES.

    Raises:
        InputError: for another kind.
    """
    return KINDS[choose(kind, KINDS, "kind of learned optimizer")](**shape, generator=generator)


def describe(optimizer: nn.Module) -> dict[str, Any]:
    """Its kind and the numbers that `make` needs, as a JSON object.

    Raises:
        InputError: for what is no learned optimizer, and for one with masked features: that is for comparisons.
    """
    kinds = {cls.__name__: kind for kind, cls in KINDS.items()}
    kind = kinds[choose(type(optimizer).__name__, kinds, "learned optimizer")]
    if masked := getattr(optimizer, "masked_features", ()):
        raise InputError(f"an optimizer that does not see {', '.join(masked)} is not stored; make one that sees all")
    return {"kind": kind, **{name: getattr(optimizer, name) for name in SHAPES[kind]}}
