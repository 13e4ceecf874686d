"""Numbers of the ledger in prose, so that a page says what was measured, and only while it holds.

In pages of the book {claim}`ID` or {claim}`ID NAME` is the number. In Markdown that others render, README and
notebooks, it stands between two comments, which nobody sees:

    <!-- claim ID NAME -->2.9 to 10.9 points<!-- end -->

`make results` writes it anew.
"""

import re
from collections.abc import Mapping

from metarobust.book.claims.claims import SUPPORTED, Judged, ledger
from metarobust.errors import InputError, choose

MARK = re.compile(r"(<!-- claim ([^>]+?) -->)((?:(?!<!--).)*)(<!-- end -->)")  # "< 0.1 points" may stand between


def cite(words: str, claims: Mapping[str, Judged] | None = None) -> str:
    """The number of a claim, `ID`, or of one of its evidences, `ID NAME`. claims: the ledger, if not the usual one.

    Raises InputError for an unknown name, and for a claim that the records do not support: then the page is wrong.
    """
    name, _, which = words.strip().partition(" ")
    claims = ledger() if claims is None else claims
    judged = claims[choose(name, claims, "claim")]
    if judged.verdict != SUPPORTED:
        found = "; ".join(f"{f.evidence.says}: {f.shown}" for f in judged.findings) or judged.claim.wants
        raise InputError(f"claim {name!r} is {judged.verdict} ({found}); change what the page says, or the claim")
    by_name = {finding.evidence.name: finding for finding in judged.findings}
    return by_name[choose(which, by_name, f"number of claim {name!r}") if which else next(iter(by_name))].shown


def renew(text: str, claims: Mapping[str, Judged] | None = None) -> str:
    """The text with each marked number as the ledger has it now. Raises InputError as `cite` does."""
    return MARK.sub(lambda mark: mark[1] + cite(mark[2], claims) + mark[4], text)


def cited(text: str) -> list[str]:
    """The claims that a text takes numbers from, by role or by mark."""
    found = re.findall(r"\{claim\}`([^`]+)`", text) + [mark[2] for mark in MARK.finditer(text)]
    return list(dict.fromkeys(words.split()[0] for words in found))
