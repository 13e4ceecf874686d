"""Claims, what is measured for each, and the verdict that follows. `claims.toml` holds them and says how to add one."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from metarobust.book.claims.language import Value, evaluate, numbers
from metarobust.book.claims.lookups import Lookups
from metarobust.book.claims.records import NotRecorded, Records
from metarobust.errors import InputError, choose
from metarobust.lab.quote import FOLDER

FILE = Path(__file__).with_name("claims.toml")
ORIGINS = {
    "abstract": "What the abstract says",
    "reconstructed": "What we reconstructed",
    "added": "What we measured beside it",
    "choice": "What we chose",
}
"""Where a claim comes from. The last are set-up choices: ours, and read from the manifests."""

SUPPORTED, PARTLY, REFUTED, UNTESTED = "supported", "partly", "not supported", "not tested"
VERDICTS = (SUPPORTED, PARTLY, REFUTED, UNTESTED)


@dataclass(frozen=True)
class Evidence:
    """One expression and the range in which it speaks for the claim; without a range it is a comparison that holds.

    context: the number is told, and says nothing for or against the claim.
    """

    name: str
    says: str
    value: str
    low: float
    high: float
    unit: str
    digits: int
    compares: bool
    context: bool

    def shown(self, found: Value) -> str:
        """The number as text: one, or the lowest to the highest of several."""
        low, high = (self._number(x) for x in (min(numbers(found)), max(numbers(found))))
        unit = f"\u00a0{self.unit}" if self.unit else ""
        return (low if low == high else f"{low} to {high}") + unit

    def _number(self, x: float) -> str:
        least = 10.0**-self.digits
        if 1e-12 < x < least / 2:  # a p-value is never 0
            return f"< {least:.{self.digits}f}"
        text = f"{round(x, self.digits) + 0.0:.{self.digits}f}"  # what rounds to zero has no sign
        return text.replace("-", "\u2212")

    def range(self) -> str:
        """What has to be found, as text."""
        if self.context:
            return "told only"
        if self.compares:
            return "to hold for each"
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Finding:
    """What the records say to an evidence: for how many of how many labels it holds, or what is missing."""

    evidence: Evidence
    found: Value | None
    missing: str = ""

    @property
    def of(self) -> int:
        return 0 if self.found is None else len(numbers(self.found))

    @property
    def held(self) -> int:
        inside = (self.evidence.low <= x <= self.evidence.high for x in numbers(*_some(self.found)))
        return sum(inside)

    @property
    def shown(self) -> str:
        """The number as text; of a comparison, for how many it holds."""
        if self.found is None:
            return "not recorded"
        return f"{self.held} of {self.of}" if self.evidence.compares else self.evidence.shown(self.found)


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the file. said: the pages that say it, or "abstract"."""

    id: str
    origin: str
    said: tuple[str, ...]
    text: str
    evidence: tuple[Evidence, ...]
    wants: str


@dataclass(frozen=True)
class Judged:
    """A claim and what was found for it."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """Supported where all evidence holds on all networks, not supported where none does on any, else partly.

        While some is still to come, a claim is supported in part at most.
        """
        voting = [finding for finding in self.findings if not finding.evidence.context]
        tested = [finding for finding in voting if finding.found is not None]
        if not tested:
            return UNTESTED
        whole = len(tested) == len(voting) and not self.claim.wants
        if whole and all(finding.held == finding.of for finding in tested):
            return SUPPORTED
        return PARTLY if any(finding.held for finding in tested) else REFUTED

    @property
    def text(self) -> str:
        """The claim with its numbers filled in."""
        shown = {finding.evidence.name: finding.shown for finding in self.findings}
        try:
            return self.claim.text.format_map(shown)
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"claim {self.claim.id!r}: its text asks for {error}; name one of {', '.join(shown)} in braces"
            ) from None


def load(path: Path = FILE) -> list[Claim]:
    """The claims of a file, in order. Raises InputError, naming the claim, for one that is not well-formed."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not TOML: {error}") from None
    claims = [_claim(entry) for entry in content.get("claim", [])]
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise InputError(f"claim {claim.id!r} is there twice; give each a name of its own")
        seen.add(claim.id)
    return claims


def _claim(entry: Mapping[str, Any]) -> Claim:
    name = entry.get("id", "")
    try:
        for key in entry:
            choose(key, ("id", "origin", "said", "text", "evidence", "wants"), "key")
        for key in ("id", "origin", "said", "text"):
            if not entry.get(key):
                raise InputError(f"it has no {key}; give one")
        choose(entry["origin"], ORIGINS, "origin")
        evidence = tuple(_evidence(one) for one in entry.get("evidence", []))
        if all(one.context for one in evidence) and not entry.get("wants"):
            raise InputError("it has no evidence; give some, or say in `wants` what is to come")
        if len({one.name for one in evidence}) < len(evidence):
            raise InputError("two of its evidences have one name; give each its own")
    except InputError as error:
        raise InputError(f"claim {name!r}: {error}") from None
    text = " ".join(entry["text"].split())
    return Claim(name, entry["origin"], tuple(entry["said"]), text, evidence, entry.get("wants", ""))


def _evidence(entry: Mapping[str, Any]) -> Evidence:
    for key in entry:
        choose(key, ("name", "says", "value", "range", "unit", "digits", "context"), "key of its evidence")
    for key in ("name", "says", "value"):
        if not entry.get(key):
            raise InputError(f"an evidence has no {key}; give one")
    limits = entry.get("range", [1, 1])
    if len(limits) != 2 or not limits[0] <= limits[1]:
        raise InputError(f"range {limits} is none; give the lowest and the highest value, such as [0, inf]")
    value = " ".join(entry["value"].split())
    digits = entry.get("digits", 1)
    low, high = map(float, limits)
    context = entry.get("context", False)
    compares = not context and "range" not in entry
    return Evidence(entry["name"], entry["says"], value, low, high, entry.get("unit", ""), digits, compares, context)


def judge(claim: Claim, records: Records) -> Judged:
    """What the records say to a claim. Raises InputError, naming it, where an expression is wrong."""
    functions = Lookups(records).functions()
    findings = []
    for one in claim.evidence:
        try:
            findings.append(Finding(one, evaluate(one.value, functions)))
        except NotRecorded as missing:
            findings.append(Finding(one, None, str(missing)))
        except InputError as error:
            raise InputError(f"claim {claim.id!r}, {one.name!r}: {error}") from None
    return Judged(claim, tuple(findings))


@cache
def ledger(folder: Path = FOLDER, path: Path = FILE) -> dict[str, Judged]:
    """Every claim by its id, judged by the recorded runs in a folder."""
    records = Records(folder)
    return {claim.id: judge(claim, records) for claim in load(path)}


def _some(found: Value | None) -> list[Value]:
    return [] if found is None else [found]
