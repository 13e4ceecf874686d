"""Questions to the rules that are shipped for fresh models and for trained ones: nothing is learned here."""

from dataclasses import replace

from metarobust.lab.frontier import FEWER, SHIPPED
from metarobust.lab.spec import FRESH, KINDS, Part

SHIPPED_ALONE = ("adaptive", "few-images", "new-kinds", "pixels", "what-was-learned")
PATCHES = replace(SHIPPED, pretrained="patch")
PATCHING = {"name": "patch, 100 steps", "steps": 100, "batch_size": 64, "uses": (PATCHES,)}
TWO = (FRESH[0], FRESH[4])
"""A perceptron and a convolutional network."""


def few_images(scale: str, dataset: str) -> tuple[Part, ...]:
    """Training fresh models with few images."""
    counts = (10,) if scale == "smoke" else (5, 10, 20, 40) if dataset == "digits" else (10, 50, 100, 500)
    shared = {"trained": False, "uses": (SHIPPED,), "methods": FEWER, "unseen": TWO, "gap": True}
    return tuple(Part(f"{each} images a class", 100, 64, per_class=each, **shared) for each in counts)


def new_kinds(scale: str, dataset: str) -> tuple[Part, ...]:
    """Networks deeper than any that was learned on, and ones that normalise; a ResNet where a processor will do."""
    unseen = KINDS if dataset == "digits" or scale == "full" else KINDS[:2]
    return (Part(**PATCHING, methods=("std-prune", "N-FGSM training", "PGD-7 training"), unseen=unseen),)


def pixels(scale: str, dataset: str) -> tuple[Part, ...]:
    """Is a patch more than giving up pixels that say nothing? The attacker may move the most informative ones alone."""
    measures = "quick" if scale == "smoke" else "pixels"
    return (Part(**PATCHING, methods=("std-prune", "PGD-7 training"), unseen=TWO, measures=measures),)


def adaptive(scale: str, dataset: str) -> tuple[Part, ...]:
    """Does what came out stand attacks by hand, too, made by somebody who knows how it was trained?"""
    shared = {"methods": ("PGD-7 training",), "unseen": TWO, "measures": "by hand"}
    return Part("train, 100 steps", 100, 64, uses=(SHIPPED,), trained=False, **shared), Part(**PATCHING, **shared)
