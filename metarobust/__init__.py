"""metarobust: learned optimizers that learn from adversarial mistakes."""

__version__ = "0.1.0"
