"""Figures: the only part of the library that imports matplotlib, so that training and testing do without it."""
