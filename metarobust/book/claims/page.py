"""The ledger as Markdown for the book: a table of claims and verdicts, and under it, folded, what each rests on."""

from collections import Counter
from collections.abc import Iterable

from metarobust.book.claims.claim import ORIGINS, VERDICTS, Claim

TITLES = ("What the abstract says", "What we reconstructed", "What we measured beside it", "What we chose")


def overview(claims: Iterable[Claim]) -> str:
    """How many claims of each origin have each verdict, as a list."""
    counts = Counter((claim.origin, claim.verdict) for claim in claims)
    lines = []
    for origin, title in zip(ORIGINS, TITLES, strict=True):
        each = [f"{counts[origin, verdict]} {verdict}" for verdict in VERDICTS if counts[origin, verdict]]
        lines.append(f"- {title}: {', '.join(each) or 'nothing'}.")
    return "\n".join(lines)


def section(claims: Iterable[Claim], origin: str) -> str:
    """The claims of one origin as a table, and after it the evidence, which can be opened."""
    table, evidence = ["| verdict | claim | measured in |", "| --- | --- | --- |"], []
    for claim in (claim for claim in claims if claim.origin == origin):
        runs = ", ".join(f"[{run}](run-{run.replace('/', '-')})" for run in claim.runs) or "\u2013"
        table.append(f'| **{claim.verdict}** | <span id="claim-{claim.id}"></span>{claim.text} | {runs} |')
        evidence.append(f"- `{claim.id}`" + (f", still to come: {claim.wants}" if claim.wants else ""))
        for name, held in claim.held.items():
            asked = f"{claim.ranges[name].low:g} to {claim.ranges[name].high:g}"
            asked = asked.replace(" to inf", " or more").replace("-inf to", "at most")
            evidence.append(
                f"  - *{name}*: {claim.shown[name]}; asked for {asked}, true of {held.sum()} of {len(held)}"
            )
    return "\n".join([*table, "", "````{dropdown} What each rests on", *evidence, "````"])
