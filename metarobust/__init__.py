"""metarobust: learned optimizers that learn from adversarial mistakes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarobust.evaluation import evaluate as evaluate
    from metarobust.patching import patch as patch

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "evaluate", "patch"]


def __getattr__(name: str) -> object:
    # On demand, so that `metarobust --help` does not wait for torch.
    if name == "evaluate":
        from metarobust.evaluation import evaluate

        return evaluate
    if name == "patch":
        from metarobust.patching import patch

        return patch
    raise AttributeError(f"module 'metarobust' has no attribute {name!r}")
