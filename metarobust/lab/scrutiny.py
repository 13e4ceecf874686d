"""How far to trust the robust accuracies of a run: what stronger attacks left of them, and what the checks said."""

import re
from collections.abc import Sequence

from metarobust.lab.stats import over_seeds
from metarobust.lab.table import FLAGS, STANDARD, Row, by_seed, measured, names, pick, pipes

PAIR = re.compile(r"pgd-\d+ ce, margin")


def lowered(rows: Sequence[Row]) -> list[Row]:
    """A row for each model that both looked at: as `value`, how far the standard ensemble is below two PGDs; a share.

    The ensemble came after the two, on what they had left; or by itself, and then perhaps on a part of the images. On
    test images, at each step that was measured. No rows where no ensemble was run.
    """
    rows = [row for row in rows if row["metric"] == "robust accuracy" and row["split"] != "train"]
    strong = [row for row in rows if row["attack"].startswith(STANDARD)]
    weak = [row for row in rows if row["attack"].startswith("worst")]
    if not strong:
        strong, radii = weak, {row["eps"] for row in weak}
        weak = [row for row in rows if PAIR.fullmatch(row["attack"]) and row["eps"] in radii]

    def model(row: Row) -> tuple:
        return tuple(row[name] for name in ("part", "model", "method", "meta_seed", "seed", "step"))

    two = {model(row): row["value"] for row in weak}
    return [row | {"value": two[model(row)] - row["value"]} for row in strong if model(row) in two]


def overstated(rows: Sequence[Row], part: str) -> str:
    """In a sentence: by how much two PGDs alone would have said more than the standard ensemble; or ""."""
    falls = [100 * row["value"] for row in lowered([row for row in rows if row["part"] == part])]
    if not falls:
        return ""
    mean, most = (f"{value:.1f}" for value in (sum(falls) / len(falls), max(falls)))
    return f"Two PGDs alone would have said {mean} points more under attack on average, and for one model {most}."


def strongest(rows: Sequence[Row], part: str) -> str:
    """Robust accuracy under the standard ensemble, a line a method, where some of its models were measured so; else "".

    In brackets: how many points that is above (+) or below (−) the two PGDs, on the same models. The ensemble may have
    had fewer images than they, so that the difference is not of the attacks alone.
    """
    here = [row for row in rows if row["part"] == part]
    strong = [row for row in here if row["attack"].startswith(STANDARD)]
    if not strong:
        return ""
    models = names(strong, "model")
    lines = [["standard ensemble", *models]]
    for method in names(strong, "method"):
        cells = []
        for model in models:
            mine = pick(strong, part, model, method)
            if not mine:  # the best plain rule of one network need not be that of another
                cells.append("–")
                continue
            whose = {row["meta_seed"] for row in mine}
            quick = [r for r in pick(here, part, model, method) if r["meta_seed"] in whose]
            quick = by_seed(measured(quick, "robust accuracy"))
            under = by_seed(mine)
            mean, half = over_seeds(list(under.values()))
            change = 100 * sum(value - quick[seed] for seed, value in under.items()) / len(under)
            cells.append(f"{100 * mean:.1f} ±{100 * half:.1f} ({change:+.1f})".replace("-", "−"))
        lines.append([method, *cells])
    return pipes(lines)


def checked(rows: Sequence[Row], part: str) -> str:
    """In a sentence: at how many models of a part the checks of `evaluate` looked, and what they flagged; or ""."""
    here = [row for row in rows if row["part"] == part and row["metric"] == FLAGS]
    if not here:
        return ""
    flagged = [f"{row['method']} on {row['model']} ({row['attack']})" for row in here if row["value"]]
    start = f"The checks looked at {len(here)} of these models, one of each line and network"
    return f"{start}; flagged: {', '.join(flagged)}." if flagged else f"{start}, and raised no flag."
