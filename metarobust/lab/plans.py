"""How long the learned optimizers of a comparison are meta-trained, and how, at each scale."""

from dataclasses import replace

from metarobust.meta import MetaTrainConfig


def times(number: int, scale: str) -> int:
    """So many episodes at scale smoke, and more at others.

    A GPU takes about as long for an episode as a processor, but more optimizees at once cost it little. So at full an
    episode has four times as many, see `batches`, and there are a fifth fewer episodes than at small.
    """
    return {"smoke": number, "small": 2 * number, "full": 8 * number // 5}[scale]


def batches(scale: str) -> dict[str, int]:
    """Groups of an episode, and tasks of a group."""
    return {"groups": 2, "tasks": 8 if scale == "full" else 2}


def patching_plan(scale: str) -> MetaTrainConfig:
    """Of features that learn to patch in twenty steps."""
    episodes = {"smoke": 60, "small": 240, "full": 192}[scale]  # fewest where a reader waits
    return MetaTrainConfig(episodes=episodes, validate_every=episodes // 4, **batches(scale))


def variant_plan(scale: str) -> MetaTrainConfig:
    """Half as long, where many rules are learned that differ in one thing."""
    return replace(patching_plan(scale), episodes=times(60, scale))


def training_plan(scale: str) -> MetaTrainConfig:
    """Of features that learn to train in a hundred steps."""
    return MetaTrainConfig(
        episodes=times(50, scale), horizons=(50, 100), validate_every=times(10, scale), **batches(scale)
    )


def steering_plan(scale: str, horizon: int) -> MetaTrainConfig:
    """Levers are few, so the exact gradient through the whole run is affordable; and noise has no other."""
    each = times({20: 75, 100: 40}[horizon], scale)
    often = each // 5 if horizon == 20 else each // 4
    run = {"horizons": (horizon,), "truncation": horizon, "mid_loss_weight": 0.0 if horizon == 20 else 0.3}
    return MetaTrainConfig(episodes=each, validate_every=often, lr=0.02, second_order=True, **run, **batches(scale))
