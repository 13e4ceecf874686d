"""A claim: a sentence, a function that measures its numbers in the recorded runs, and the range that each has to keep.

A verdict is never written: it follows from the numbers. What a claim `states` is the verdict that its pages rely on, so
a new record that turns it stops the tests, and one that does not touches no sentence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import CodeType

import pandas as pd

from metarobust.errors import InputError, choose
from metarobust.lab.results import RECORDED

ABSTRACT, RECONSTRUCTED, ADDED, CHOICE = ORIGINS = "abstract", "reconstructed", "added", "choice"
SUPPORTED, PARTLY, REFUTED, UNTESTED = VERDICTS = "supported", "partly", "not supported", "not tested"
Measure = Callable[[], dict[str, float | pd.Series]]
"""Returns each number of a claim by its name: one, or one for each of several networks."""


@dataclass(frozen=True)
class Range:
    """Where a number has to lie to speak for its claim, and how it is written."""

    low: float = -math.inf
    high: float = math.inf
    unit: str = "points"
    digits: int = 1

    def write(self, values: pd.Series) -> str:
        """The number as text: one, or the lowest to the highest of several."""
        ends = (f"{round(x, self.digits) + 0.0:.{self.digits}f}" for x in (values.min(), values.max()))  # no "-0.0"
        text = " to ".join(dict.fromkeys(ends)).replace("-", "\u2212")
        return f"{text}\u00a0{self.unit}" if self.unit else text


@dataclass(frozen=True)
class Claim:
    """A claim, judged when it is asked.

    Attributes:
        measure: its docstring is the sentence, with the names of the numbers in braces.
        origin: one of `ORIGINS`.
        pages: names of the pages that say it, without folder and ending.
        states: the verdict that these pages rely on.
        wants: what is still to come; until then a claim is supported in part at most.
        ranges: for each number its range.
    """

    measure: Measure
    origin: str
    pages: tuple[str, ...]
    states: str
    wants: str
    ranges: dict[str, Range]

    @property
    def id(self) -> str:
        return self.measure.__name__.replace("_", "-")

    @cached_property
    def values(self) -> dict[str, pd.Series]:
        """Each number, of all the networks that were looked at."""
        values = {name: pd.Series(value, dtype=float) for name, value in self.measure().items()}
        if values.keys() != self.ranges.keys():
            raise InputError(f"claim {self.id!r} measures {list(values)}, but has ranges for {list(self.ranges)}")
        return values

    @property
    def held(self) -> dict[str, pd.Series]:
        """Of each number, for which networks it lies in its range."""
        return {name: each.between(self.ranges[name].low, self.ranges[name].high) for name, each in self.values.items()}

    @property
    def verdict(self) -> str:
        """Supported where all numbers hold on all networks, not supported where none does on any, else partly."""
        held = pd.Series([one for each in self.held.values() for one in each], dtype=bool)
        if held.empty:
            return UNTESTED
        return SUPPORTED if held.all() and not self.wants else PARTLY if held.any() else REFUTED

    @property
    def shown(self) -> dict[str, str]:
        """Each number as text."""
        return {name: self.ranges[name].write(values) for name, values in self.values.items()}

    @property
    def text(self) -> str:
        """The sentence with its numbers filled in."""
        return " ".join((self.measure.__doc__ or "").split()).format_map(self.shown)

    @property
    def runs(self) -> list[str]:
        """The recorded runs that its function names."""
        known = {path.parent.relative_to(RECORDED).as_posix() for path in RECORDED.glob("**/manifest.json")}
        named = dict.fromkeys(_texts(self.measure.__code__, self.measure.__globals__))
        return [run for run in named if run in known]


def _texts(value: object, names: dict[str, object]) -> list[str]:
    """The strings in a value: itself, those of several, or those that code names."""
    if isinstance(value, CodeType):
        value = (*value.co_consts, *(names.get(name) for name in value.co_names))
    if isinstance(value, tuple):
        return [text for one in value for text in _texts(one, names)]
    return [value] if isinstance(value, str) else []


LEDGER: dict[str, Claim] = {}
"""Every claim by its id, in the order in which they are written."""


def claim(
    origin: str, *pages: str, states: str = SUPPORTED, wants: str = "", **ranges: Range
) -> Callable[[Measure], Measure]:
    """Enters a function into the ledger; what it is given are the attributes of `Claim`.

    Raises:
        InputError: the origin or the verdict is none, or the name is taken.
    """
    choose(origin, ORIGINS, "origin")
    choose(states, VERDICTS, "verdict")

    def enter(measure: Measure) -> Measure:
        entry = Claim(measure, origin, pages, states, wants, ranges)
        if entry.id in LEDGER:
            raise InputError(f"claim {entry.id!r} is there twice; give each a name of its own")
        return LEDGER.setdefault(entry.id, entry).measure

    return enter
