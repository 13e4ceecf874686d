"""The experiments that `metarobust run` knows, by name. What each of them has to have, `metarobust.lab.engine` says."""

from typing import Any

from metarobust.lab import anchor, cost
from metarobust.lab.catalogue import PARTS
from metarobust.lab.comparison import Comparison

EXPERIMENTS: dict[str, Any] = {name: Comparison(name) for name in PARTS} | {
    anchor.NAME: anchor,
    cost.NAME: cost,
}
