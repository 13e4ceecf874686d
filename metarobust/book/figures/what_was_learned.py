"""What was learned: the curves of a schedule for several networks, and what its parts are worth (`variants`)."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from metarobust.book.figures.learning_from_mistakes import kept, kept_weights, pixel_spread
from metarobust.book.figures.learning_penalties import PANELS, over_the_run
from metarobust.book.figures.two_by_two import differences, variants, verdicts
from metarobust.learned import make
from metarobust.learned.penalties import NAMES, LearnedPenalties
from metarobust.params import ParamSpec

__all__ = ["curves", "differences", "kept", "kept_weights", "pixel_spread", "variants", "verdicts"]

LEARNED = {
    **{("rate last" if name == "rate middle" else name): title for name, title in PANELS.items()},
    "rate last": "step, last layer",
    "noise": "noise, in eps",
    "smooth": "label smoothing",
}
ROLES = ("learned", "rule", "robust")


def curves(rules: Mapping[str, tuple[LearnedPenalties, ParamSpec]], steps: int = 100, places: int = 41) -> Figure:
    """Eight hyperparameters over a run, and dotted where meta-training began.

    Args:
        rules: label to a schedule and the layout of the network that it moves; three at most.
        steps: of the run.
        places: at which each curve is drawn.
    """
    progress, drawn = torch.linspace(0, 1, places), {}
    begun = make("penalties"), next(iter(rules.values()))[1]
    lines = [*zip(ROLES, rules.items(), strict=False), ("control", ("set by hand", begun))]
    for role, (label, (rule, layout)) in lines:
        found = rule.curve(layout, steps, progress)
        drawn[label] = role, found.detach().tolist()
    return over_the_run(NAMES, drawn, LEARNED)
