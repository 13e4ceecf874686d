"""The complete experiments: run, record, compare. `EXPERIMENTS` are those that `metarobust run` knows, by name."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Loads the experiments when they are asked for, so that reading results needs none of them."""
    if name != "EXPERIMENTS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metarobust.lab import anchor, cost, what_was_learned
    from metarobust.lab.catalogue import PARTS
    from metarobust.lab.comparison import Comparison

    others = {module.NAME: module for module in (anchor, cost, what_was_learned)}
    return globals().setdefault("EXPERIMENTS", {name: Comparison(name) for name in PARTS} | others)
