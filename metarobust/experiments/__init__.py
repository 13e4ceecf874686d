"""The experiments that `metarobust run` knows, by name."""

from metarobust.experiments import anchor, cost, what_was_learned
from metarobust.experiments.catalogue import PARTS
from metarobust.experiments.comparison import Comparison

EXPERIMENTS = {name: Comparison(name) for name in PARTS} | {
    anchor.NAME: anchor,
    cost.NAME: cost,
    what_was_learned.NAME: what_was_learned,
}
