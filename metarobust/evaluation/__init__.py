"""Robust accuracy that cannot overclaim: an ensemble of attacks, a report, and checks of both."""

from metarobust.evaluation.checks import Flag
from metarobust.evaluation.ensemble import Attack, correct, quick, robust_masks, standard
from metarobust.evaluation.measure import evaluate
from metarobust.evaluation.report import Report

__all__ = ["Attack", "Flag", "Report", "correct", "evaluate", "quick", "robust_masks", "standard"]
