"""What comes back of a call, as the judge reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarobust.book.properties import NOTHING, CannotJudge, tensor
from metarobust.course.calling import state


class Reply:
    """What a function returned for what it was given, and what it left behind; see `metarobust.course.calling`."""

    def __init__(self, given: Sequence[Any], found: dict[str, Any]):
        self._before, self._found = [state(one) for one in given], found

    def value(self) -> Any:
        """Raises CannotJudge where the function returned nothing, or stopped."""
        if "raised" in self._found:
            raise CannotJudge(f"it stops with {self._found['raised']}")
        if self._found.get("value") is None:
            raise CannotJudge(str(self._found.get("stopped") or NOTHING)[:200])
        return self._found["value"]

    def tensor(self, *shape: int, finite: bool = True) -> Tensor:
        """A floating-point tensor of this shape. Raises CannotJudge where it is none."""
        return tensor(self.value(), shape, finite)

    def graph(self) -> bool:
        """Whether what it returned can be differentiated."""
        return any(one[0] for one in self._found["graph"])

    def chained(self) -> bool:
        """Whether what it returned was computed from what has a gradient."""
        return any(one[1] for one in self._found["graph"])

    def slopes(self, *shape: int, many: int = 1) -> list[Tensor]:
        """The gradients of each of its tensors, of so many at least; 0 where there is none."""
        found = [*(self._found.get("slopes") or []), *[None] * many]
        return [s if isinstance(s, Tensor) and s.shape == shape else torch.zeros(shape) for s in found]

    def after(self, which: int, what: str | None = None) -> Any:
        """The state of what it was given: of a tensor a list, of a toy its `notes`, `training` or `parts`."""
        found = self._found["after"][which]
        return found[what] if what else found

    def kept(self, *which: int, what: str | None = None) -> bool:
        """Whether what it was given is as it was: values, gradients, and a model's mode."""
        before = [self._before[i][what] if what else self._before[i] for i in which]
        return all(_same(one, self.after(i, what)) for one, i in zip(before, which, strict=True))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and before.dtype == after.dtype and torch.equal(before, after)
    if isinstance(before, dict):
        return all(_same(before[name], after[name]) for name in before if name != "notes")
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return bool(before == after)
