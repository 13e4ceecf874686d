"""The numbers of a meta-training, and the random streams that follow from its seed."""

import math
from dataclasses import dataclass

import torch

from metarobust.errors import InputError, choose

ESTIMATORS = ("backprop", "exact", "es", "pes")


@dataclass(frozen=True)
class MetaTrainConfig:
    """The numbers of a meta-training.

    Attributes:
        episodes: outer steps; each is one inner run from start to horizon.
        horizons: lengths of inner runs, in steps; one is drawn for each episode.
        truncation: inner steps between two moves of theta; `exact` takes the whole run as one.
        groups: batches of optimizees whose meta-gradients are averaged, each of one architecture.
        tasks: optimizees in a group.
        batch_size: images of an inner step.
        held_out: images of a meta-loss.
        lr: step size of Adam on theta, after a linear warm-up, falling to a tenth by a cosine.
        beta2: of that Adam: how long it remembers the squares of meta-gradients.
        warmup: episodes of the warm-up.
        clip: longest meta-gradient; of `exact`, also that of each task.
        mid_loss_weight: share of the meta-loss that is taken half-way through a truncation; the rest at its end.
        estimator: how the meta-gradient is found, see `metarobust.meta.estimators`.
        second_order: of backprop, whether gradients of gradients count.
        pairs: of es and pes, antithetic pairs of candidates in a group.
        sigma: of es and pes, distance of a candidate from theta in each coordinate.
        divergence_threshold: a truncation whose meta-loss is as high as this has diverged, see `meta_train`; of es
            and pes, a candidate's meta-loss that is higher counts as this.
        validate_every: episodes between two validations, where there are any.

    Raises:
        InputError: for numbers out of their range.
    """

    episodes: int = 200
    horizons: tuple[int, ...] = (20,)
    truncation: int = 10
    groups: int = 1
    tasks: int = 4
    batch_size: int = 64
    held_out: int = 128
    lr: float = 3e-3
    beta2: float = 0.999
    warmup: int = 10
    clip: float = 1.0
    mid_loss_weight: float = 0.3
    estimator: str = "backprop"
    second_order: bool = False
    pairs: int = 4
    sigma: float = 0.1
    divergence_threshold: float = 10.0
    validate_every: int = 10

    def __post_init__(self) -> None:
        truncations = [self.steps_between_moves(horizon) for horizon in self.horizons]
        fits = all(h > 0 and k >= 2 and h % k == 0 for h, k in zip(self.horizons, truncations, strict=True))
        if not fits or not self.horizons:
            raise InputError(
                f"horizons {list(self.horizons)} with truncation {self.truncation}: "
                f"each horizon is a whole number of truncations, and a truncation has at least 2 steps"
            )
        sizes = ("episodes", "groups", "tasks", "batch_size", "held_out", "pairs", "validate_every")
        for name in (*sizes, "lr", "clip", "sigma", "divergence_threshold"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} of a meta-training is {getattr(self, name)}: give a number above 0")
        if not 0 <= self.mid_loss_weight <= 1:
            raise InputError(f"mid_loss_weight {self.mid_loss_weight}: give a share from 0 to 1")
        choose(self.estimator, ESTIMATORS, "estimator of the meta-gradient")

    def steps_between_moves(self, horizon: int) -> int:
        """Inner steps between two moves of theta, in a run of this length."""
        return horizon if self.estimator == "exact" else self.truncation

    def lr_at(self, episode: int) -> float:
        """The step size of theta's Adam in an episode."""
        warm = min(1, (episode + 1) / max(1, self.warmup))
        return self.lr * warm * (0.55 + 0.45 * math.cos(math.pi * episode / self.episodes))


def generator_of(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator whose stream depends on all the numbers.

    Each episode has its own, made from the seed and the episode's number, so a resumed run needs no stored stream.
    """
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63 - 25)
    return torch.Generator(device).manual_seed(seed)
