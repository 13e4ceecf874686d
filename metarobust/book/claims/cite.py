"""Numbers of claims in prose, so that a page says what was measured, and only while it holds.

In pages of the book {claim}`ID NAME` is a number. In Markdown that others render, README and notebooks, it stands
between two comments, which nobody sees, and `make results` writes it anew:

    <!-- claim ID NAME -->3.8 to 5.1 points<!-- end -->
"""

import re
from collections.abc import Mapping

from metarobust.book.claims.claim import LEDGER, SUPPORTED, Claim
from metarobust.errors import InputError, choose

MARK = re.compile(r"(<!-- claim ([^>]+?) -->)((?:(?!<!--).)*)(<!-- end -->)")
ROLE = re.compile(r"\{claim\}`([^`]+)`")


def cite(words: str, claims: Mapping[str, Claim] = LEDGER) -> str:
    """The number that `ID NAME` names; `ID` alone names a claim's first.

    Raises:
        InputError: an unknown name, or a claim that the records do not support: then the page is wrong.
    """
    name, _, which = words.strip().partition(" ")
    claim = claims[choose(name, claims, "claim")]
    if claim.verdict != SUPPORTED:
        raise InputError(f"claim {name!r} is {claim.verdict}: {claim.text} Change what the page says, or the claim")
    return claim.shown[choose(which, claim.shown, f"number of claim {name!r}") if which else next(iter(claim.shown))]


def renew(text: str, claims: Mapping[str, Claim] = LEDGER) -> str:
    """The text with each marked number as the records have it now. Raises InputError as `cite` does."""
    return MARK.sub(lambda mark: mark[1] + cite(mark[2], claims) + mark[4], text)


def cited(text: str) -> list[str]:
    """What a text cites, by role or by mark: `ID NAME`, in order."""
    return [*ROLE.findall(text), *(mark[2] for mark in MARK.finditer(text))]
