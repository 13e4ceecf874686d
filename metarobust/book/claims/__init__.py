"""The ledger: each claim, the expressions over recorded results that it rests on, and the verdict that follows."""

from metarobust.book.claims.citing import cite, cited, renew
from metarobust.book.claims.claims import ORIGINS, PARTLY, REFUTED, SUPPORTED, UNTESTED, VERDICTS, judge, ledger, load
from metarobust.book.claims.records import Records

__all__ = [
    "ORIGINS",
    "PARTLY",
    "REFUTED",
    "SUPPORTED",
    "UNTESTED",
    "VERDICTS",
    "Records",
    "cite",
    "cited",
    "judge",
    "ledger",
    "load",
    "renew",
]
