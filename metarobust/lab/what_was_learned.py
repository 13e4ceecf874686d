"""What was learned: the rule that is shipped for fresh models, with one thing at a time knocked out of it.

A `Knockout` moves networks by the curves of a learned schedule (`metarobust.learned.penalties`), some of them changed:

    off       0 all the time; of a weight in the loss: this penalty is gone
    held      at its geometric mean over the run, the same in every step; of all of them: no schedule is left
    shared    at the geometric mean of several in each step, as of the rates of first, middle and last layer
    learned   False for the curves that are set by hand, where meta-training began

Nothing is learned anew, so a knock-out is worth what this rule loses without a part, and not what a rule would reach
that had learned without it. Two parts that do the same work hide each other: so some are taken together, too. The
experiment is a comparison like the others (`metarobust.lab.comparison`), its variants rules of one part.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metarobust.errors import InputError, choose
from metarobust.lab.frontier import SHIPPED
from metarobust.lab.results import PENALTIES
from metarobust.lab.spec import FRESH, Part
from metarobust.learned.penalties import NAMES, WEIGHTS, LearnedPenalties
from metarobust.learned.schedule import SCALE
from metarobust.params import ParamSpec

PART = "knock-outs, 100 steps"
RATES = [name for name in NAMES if name.startswith("rate")]
KNOCKOUTS: dict[str, dict[str, Any]] = {
    "no curvature": {"off": ["bend"]},
    "no slope": {"off": ["slope"]},
    "no slack": {"off": ["slack"]},
    "no slope, no slack": {"off": ["slope", "slack"]},
    "no smoothing": {"off": ["smooth"]},
    "no noise": {"off": ["noise"]},
    "no penalties": {"off": [name for name in WEIGHTS if name != "far"]},
    "constant penalties": {"held": list(WEIGHTS)},
    "constant rates": {"held": RATES},
    "all constant": {"held": list(NAMES)},
    "one rate": {"shared": RATES},
    "set by hand": {"learned": False},
}
"""By name what is changed: arguments of `Knockout`."""


class Knockout(LearnedPenalties):
    """A learned schedule without some of what it has learned.

    Args:
        rule: Whose numbers it takes a copy of.
        off: Hyperparameters that are 0.
        held: Those that stay at their geometric mean over the steps of a run.
        shared: Those that are all at their geometric mean.
        learned: Whether it has the numbers of the rule at all, or those that are set by hand.

    Raises:
        InputError: There is no hyperparameter of a name.
    """

    def __init__(
        self,
        rule: LearnedPenalties,
        off: Sequence[str] = (),
        held: Sequence[str] = (),
        shared: Sequence[str] = (),
        learned: bool = True,
    ):
        super().__init__(rule.at_random)
        if learned:
            self.load_state_dict(rule.state_dict())
        for name in (*off, *held, *shared):
            choose(name, NAMES, "hyperparameter")
        self.off, self.held, self.shared = off, held, shared

    def curve(self, param_spec: ParamSpec, total: int, progress: Tensor) -> Tensor:
        values = super().curve(param_spec, total, progress)
        if self.held:
            run = super().curve(param_spec, total, torch.arange(total) / total)
            values = torch.where(of(self.held, values), run.log().mean(-1, keepdim=True).exp(), values)
        if self.shared:
            some = of(self.shared, values)
            mean = (values.log() * some).sum(-2, keepdim=True) / some.sum()
            values = torch.where(some, mean.exp(), values)
        return values.masked_fill(of(self.off, values), 0)


def of(names: Sequence[str], values: Tensor) -> Tensor:
    """Which rows of values `[..., 13, n]` are of these hyperparameters: `[13, 1]`."""
    return torch.tensor([name in names for name in NAMES], device=values.device)[:, None]


def turned(rule: LearnedPenalties, name: str, knot: int, factor: float) -> LearnedPenalties:
    """A copy of a learned schedule in which one hyperparameter is another at one point of the run.

    Args:
        rule: The schedule.
        name: Of the hyperparameter, one of `metarobust.learned.penalties.NAMES`.
        knot: 0 for the start of the run, 1 for its middle, 2 for its end; in between it is a line, on a log scale.
        factor: What it is multiplied by there, for perceptrons and for convolutions; bounds are kept.

    Raises:
        InputError: There is no hyperparameter of this name, no such knot, or the factor is not above 0.
    """
    if knot not in (0, 1, 2):
        raise InputError(f"knot is {knot!r}; give 0 for the start of the run, 1 for its middle, 2 for its end")
    if not factor > 0:
        raise InputError(f"factor is {factor!r}; give a number above 0: on a log scale there is no 0")
    other, row = copy.deepcopy(rule), NAMES.index(choose(name, NAMES, "hyperparameter"))
    with torch.no_grad():
        other.knots[..., row, knot] += math.log(factor) / SCALE
    return other


def what_was_learned(scale: str, dataset: str) -> tuple[Part, ...]:
    """The rule for fresh models as it is shipped, each of its knock-outs, and two plain rules to hold them against."""
    knocked = (replace(SHIPPED, name=f"{PENALTIES}, {name}", shape=shape) for name, shape in KNOCKOUTS.items())
    unseen = (FRESH[0], FRESH[4]) if scale == "smoke" else (FRESH[0], FRESH[3], FRESH[4])
    methods = ("adam", "curvature penalty")
    return (Part(PART, 100, 64, uses=(SHIPPED, *knocked), methods=methods, unseen=unseen, trained=False),)
