"""Figures of new architectures: the matrix of what was meta-trained on against the networks that were patched."""

from metarobust.book.figures.grid import Grid
from metarobust.book.figures.images import row
from metarobust.book.figures.matrix import by_network, draw, reading
from metarobust.book.figures.results import by_seed

__all__ = ["Grid", "by_network", "by_seed", "draw", "reading", "row"]
