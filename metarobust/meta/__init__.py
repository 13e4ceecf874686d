"""Meta-training: its config, the estimators of the meta-gradient, held-out tasks, and the loop that moves theta."""

from metarobust.meta.checkpoint import pack, restore, theta_of
from metarobust.meta.config import MetaTrainConfig, generator_of
from metarobust.meta.training import MetaTrainer, Sample, meta_train
from metarobust.meta.validation import Validation, hold_out

__all__ = [
    "MetaTrainConfig",
    "MetaTrainer",
    "Sample",
    "Validation",
    "generator_of",
    "hold_out",
    "meta_train",
    "pack",
    "restore",
    "theta_of",
]
