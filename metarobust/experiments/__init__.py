"""The experiments that `metarobust run` knows, by name."""

from metarobust.experiments import anchor
from metarobust.experiments.transfer import Transfer

EXPERIMENTS = {"patch": Transfer("patch"), "train": Transfer("train"), anchor.NAME: anchor}
