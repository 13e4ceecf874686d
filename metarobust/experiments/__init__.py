"""The experiments that `metarobust run` knows, by name."""

from metarobust.experiments import anchor, cost, what_was_learned
from metarobust.experiments.catalogue import PARTS
from metarobust.experiments.comparison import Comparison

EXPERIMENTS = {name: Comparison(name) for name in PARTS} | {
    anchor.NAME: anchor,
    cost.NAME: cost,
    what_was_learned.NAME: what_was_learned,
}


def recorded_as(name: str) -> str:
    """The experiment that reads a run's table. Runs from the time when patch and train were one are of `transfer`."""
    return "patch" if name == "transfer" else name
