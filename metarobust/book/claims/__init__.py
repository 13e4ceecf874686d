"""The ledger: what the book claims, measured in the recorded runs, and the verdict that follows.

A claim is a function in the module of its theme: its docstring is the sentence, its decorator says where the claim
comes from, which pages say it, and the range of each number that it returns. To add one, write such a function.
"""

from metarobust.book.claims import abstract, costs, frontier, patching, training, transfer  # noqa: F401  they fill the ledger
from metarobust.book.claims.cite import cite, cited, renew
from metarobust.book.claims.claim import LEDGER, Claim

__all__ = ["Claim", "cite", "cited", "ledger", "renew"]


def ledger() -> dict[str, Claim]:
    """Every claim by its id."""
    return dict(LEDGER)
