"""Attacks: functions from a prediction function, images and labels to adversarial images."""

from metarobust.attacks.apgd import apgd
from metarobust.attacks.counter import ExampleCounter, counting
from metarobust.attacks.fgsm import fgsm
from metarobust.attacks.mi_fgsm import mi_fgsm
from metarobust.attacks.pgd import pgd
from metarobust.attacks.square import square
from metarobust.attacks.transfer import transfer

__all__ = ["ExampleCounter", "apgd", "counting", "fgsm", "mi_fgsm", "pgd", "square", "transfer"]
