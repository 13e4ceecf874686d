"""Meta-training: the plan, the estimators of the meta-gradient, held-out tasks, and the loop that moves theta."""

from metarobust.meta.config import MetaTrainConfig, generator_of
from metarobust.meta.sharing import ALONE, Share
from metarobust.meta.state import pack, restore
from metarobust.meta.training import Progress, meta_train
from metarobust.meta.validation import Validation, hold_out

__all__ = [
    "ALONE",
    "MetaTrainConfig",
    "Progress",
    "Share",
    "Validation",
    "generator_of",
    "hold_out",
    "meta_train",
    "pack",
    "restore",
]
