"""Attacks: functions from a prediction function, images and labels to adversarial images."""

from metarobust.attacks.count import Tally, counting
from metarobust.attacks.fgsm import fgsm
from metarobust.attacks.pgd import pgd

__all__ = ["Tally", "counting", "fgsm", "pgd"]
