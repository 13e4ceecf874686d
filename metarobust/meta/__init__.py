"""Meta-training: the plan, the estimators of the meta-gradient, and the loop that moves theta."""

from metarobust.meta.plan import Plan, generator_of
from metarobust.meta.sharing import ALONE, Share
from metarobust.meta.training import Progress, meta_train, pack, restore

__all__ = ["ALONE", "Plan", "Progress", "Share", "generator_of", "meta_train", "pack", "restore"]
