"""What was learned: the curves of a schedule for several networks, and what its parts are worth (`variants`)."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import nn

from metarobust.book.figures.learning_from_mistakes import kept, kept_weights, pixel_spread
from metarobust.book.figures.learning_penalties import PANELS, over_the_run
from metarobust.book.figures.two_by_two import differences, variants, verdicts
from metarobust.learned import make
from metarobust.learned.penalties import NAMES, LearnedPenalties
from metarobust.params import ParamSpec

__all__ = ["curves", "differences", "kept", "kept_weights", "pixel_spread", "variants", "verdicts"]

LEARNED = {
    "rate first": PANELS["rate first"],
    "rate last": "step, last layer",
    **{name: title for name, title in PANELS.items() if name != "rate first"},
    "smooth": "label smoothing",
}
ROLES = ("learned", "rule", "robust")


def curves(rules: Mapping[str, tuple[LearnedPenalties, nn.Module]], steps: int = 100, places: int = 41) -> Figure:
    """Eight hyperparameters over a run, and dotted where meta-training began.

    Args:
        rules: label to a schedule and the network that it moves; three at most.
        steps: of the run.
        places: at which each curve is drawn.
    """
    progress, drawn = torch.linspace(0, 1, places), {}
    begun = make("penalties"), next(iter(rules.values()))[1]
    lines = [*zip(ROLES, rules.items(), strict=False), ("control", ("set by hand", begun))]
    for role, (label, (rule, network)) in lines:
        found = rule.curve(ParamSpec.of(network), steps, progress)
        drawn[label] = role, found.detach().tolist()
    return over_the_run(NAMES, drawn, LEARNED)
