"""Figures of adversarial training: shares of images, of runs on the page and of recorded ones."""

from metarobust.book.figures.lines import shares
from metarobust.book.figures.results import pick, points

__all__ = ["pick", "points", "shares"]
