"""The learned rule against the best plain one, seed by seed: both had the same networks, images and test.

For each unseen network and each tier the rival is the baseline with the best mean of clean and robust accuracy. It is
picked on the very results that it is compared in, which flatters the rival, never the learned rule. The intervals and
p-values are over seeds, for the networks and test images at hand. A tier's networks are several comparisons of one
question, so the p-values of the t-test are raised by Holm's correction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metarobust.errors import InputError
from metarobust.lab.stats import Paired, holm, paired
from metarobust.lab.table import BEFORE, LEARNED, Row, best_plain, by_seed, measured, names, pick

KINDS = ("robust accuracy", "clean accuracy")
TIERS = ("0", "1", "2", "adversarial")


@dataclass(frozen=True)
class PairedTest:
    """One network and tier: the rival, and learned minus rival in robust and in clean accuracy, as shares.

    p_holm: the robust t-test's p-value, corrected over the networks of the same part and tier.
    """

    part: str
    model: str
    tier: str
    rival: str
    robust: Paired
    clean: Paired
    p_holm: float


def pair(ours: Sequence[Row], theirs: Sequence[Row], metric: str) -> Paired:
    """Compares two methods on the seeds that both have. Raises InputError where fewer than two are common."""
    a, b = (by_seed(measured(rows, metric)) for rows in (ours, theirs))
    common = sorted(a.keys() & b.keys())
    return paired([a[seed] for seed in common], [b[seed] for seed in common])


def last_steps(rows: Iterable[Row]) -> list[Row]:
    """Of each method on each network only the last step."""
    rows = list(rows)
    last: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = row["part"], row["model"], row["method"]
        last[key] = max(last.get(key, 0), row["step"] or 0)
    return [row for row in rows if (row["step"] or 0) == last[row["part"], row["model"], row["method"]]]


def learned_rule(rows: Iterable[Row], part: str) -> str | None:
    """The learned rule of a part that is compared: the one called so, else the first; None where there is none."""
    there = [name for name in names((row for row in rows if row["part"] == part), "method") if name.startswith(LEARNED)]
    return LEARNED if LEARNED in there else next(iter(there), None)


def against_plain(rows: Sequence[Row], part: str, method: str = LEARNED) -> list[PairedTest]:
    """The method against the best baseline of every tier that is there, on each network of a part.

    Raises InputError where the method is not in the part.
    """
    here = last_steps(row for row in rows if row["part"] == part)
    if method not in names(here, "method"):
        raise InputError(f"part {part!r} holds no method {method!r}; there are {', '.join(names(here, 'method'))}")
    found = []
    for tier in TIERS:
        plain = [row for row in here if row["tier"] == tier and row["method"] != BEFORE]
        rivals = [row for row in plain if not row["method"].startswith(LEARNED)]
        one = []
        for model in names(rivals, "model"):
            rival = best_plain(rivals, part, model, TIERS)
            ours, theirs = pick(here, part, model, method), pick(rivals, part, model, rival)
            one.append((model, rival, *(pair(ours, theirs, kind) for kind in KINDS)))
        raised = holm([robust.p_t for _, _, robust, _ in one])
        found += [
            PairedTest(part, model, tier, rival, robust, clean, p)
            for (model, rival, robust, clean), p in zip(one, raised, strict=True)
        ]
    return found


def markdown(found: Sequence[PairedTest]) -> str:
    """The comparisons as a Markdown table, in points."""
    head = ["unseen network", "tier", "best rule of the tier", "robust", "clean", "p, t-test", "p, Holm", "p, Wilcoxon"]
    lines = [head, ["---"] * len(head)]
    for one in found:
        differences = [f"{100 * kind.difference:+.1f} ±{100 * kind.half:.1f}" for kind in (one.robust, one.clean)]
        chances = [p_value(p) for p in (one.robust.p_t, one.p_holm, one.robust.p_wilcoxon)]
        lines.append([one.model, one.tier, one.rival, *differences, *chances])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def p_value(p: float) -> str:
    """Three decimals, and no zero: no finite number of seeds shows that."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
