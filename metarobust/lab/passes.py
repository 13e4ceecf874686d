"""Counts a model's passes over images: what a way of training costs, whatever machine it runs on.

    tally = Passes()
    ... counted(tasks, tally) in place of tasks ...
    tally.evaluations

A pass is one image through one model, forward or backward. Nothing is reckoned from formulas: a forward pass counts
when logits are asked for, a backward pass when a gradient arrives at them, and a second one when a gradient of that
gradient is taken (as for an input-gradient penalty). Passes are not equally long; a backward one takes about twice as
long as a forward one. What an optimizer computes from a gradient is no pass; it shows in the seconds alone.
"""

from dataclasses import dataclass, field, fields

from torch import Tensor

from metarobust.models import Predictor
from metarobust.tasks import Tasks


@dataclass
class Passes:
    """forward, backward: images that have passed through a model, in either direction."""

    forward: int = 0
    backward: int = 0

    @property
    def evaluations(self) -> int:
        """All passes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Watched(Predictor):
    """A predictor whose passes are counted."""

    tally: Passes

    def __call__(self, x: Tensor) -> Tensor:
        logits = super().__call__(x)
        self.tally.forward += len(x)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, slope: Tensor) -> None:
        self.tally.backward += len(slope)
        if slope.requires_grad:  # it is part of a graph that may be gone through backwards in its turn
            slope.register_hook(self._again)

    def _again(self, slope: Tensor) -> None:
        self.tally.backward += len(slope)


@dataclass(frozen=True)
class Counted(Tasks):
    """Tasks whose models' passes are counted, in training and wherever else they are asked."""

    tally: Passes = field(default_factory=Passes)

    def predictor(self, params: Tensor) -> Watched:
        """Prediction by the T optimizees with these parameters `[T, N]`."""
        return Watched(self.model, self.param_spec, params, self.tally)


def counted(tasks: Tasks, tally: Passes) -> Counted:
    """The same tasks; what their models are asked adds to the tally."""
    return Counted(**{each.name: getattr(tasks, each.name) for each in fields(Tasks)}, tally=tally)
