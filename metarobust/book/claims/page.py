"""The ledger as Markdown for the book: each claim with its verdict in words, what was found, and where."""

import re
from collections import Counter
from collections.abc import Iterable

from metarobust.book.claims.claims import ORIGINS, VERDICTS, Finding, Judged

RUN = re.compile(r"\w\(\s*\"((?:bench/)?[a-z0-9]+(?:-[a-z0-9]+)*)\"")
"""The first argument of a look-up, where it is a run."""


def overview(judged: Iterable[Judged]) -> str:
    """How many claims of each origin have each verdict, as a list: a table of five columns leaves a phone."""
    counts = Counter((one.claim.origin, one.verdict) for one in judged)
    lines = []
    for origin, title in ORIGINS.items():
        each = [f"{counts[origin, verdict]} {verdict}" for verdict in VERDICTS if counts[origin, verdict]]
        lines.append(f"- {title}: {', '.join(each) or 'nothing'}.")
    return "\n".join(lines)


def section(judged: Iterable[Judged], origin: str) -> str:
    """The claims of one origin, and after them the expressions, which can be opened."""
    here = [one for one in judged if one.claim.origin == origin]
    expressions = [f"{one.claim.id}, {f.evidence.name}:\n    {f.evidence.value}" for one in here for f in one.findings]
    blocks = [_claim(one) for one in here]
    if expressions:
        inside = "\n".join(expressions)
        blocks.append(f"````{{dropdown}} The expressions behind these numbers\n```text\n{inside}\n```\n````")
    return "\n\n".join(blocks)


def runs(expression: str) -> list[str]:
    """The recorded runs that an expression asks for."""
    return list(dict.fromkeys(RUN.findall(expression)))


def _claim(one: Judged) -> str:
    lines = [f"(claim-{one.claim.id})=", f"**{one.verdict.capitalize()}.** {one.text}", ""]
    # What is only told stands in the text.
    lines += [f"- {_finding(finding)}" for finding in one.findings if not finding.evidence.context]
    if one.claim.wants:
        lines.append(f"- Still to come: {one.claim.wants}.")
    said = ", ".join("the abstract" if page == "abstract" else f"`{page}`" for page in one.claim.said)
    return "\n".join([*lines, f"- Said in: {said}. Name here: `{one.claim.id}`."])


def _finding(finding: Finding) -> str:
    evidence = finding.evidence
    where = ", ".join(f"[`{run}`](run-{run.replace('/', '-')})" for run in runs(evidence.value))
    if finding.found is None:
        return f"{evidence.says}: not tested, since {finding.missing}."
    if evidence.compares:
        return f"{evidence.says}: holds for **{finding.shown}** ({where})."
    wanted = f"Asked for: {evidence.range()}; holds for {finding.held} of {finding.of}"
    return f"{evidence.says}: **{finding.shown}**. {wanted} ({where})."
