"""The comparison as text: a line a method, a column an unseen network, clean beside robust."""

from collections.abc import Iterable
from typing import Any

from metarobust.stats import over_seeds

Row = dict[str, Any]


def over(rows: Iterable[Row], metric: str) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % interval, of the rows with this metric (attacks in ensemble only).

    A learned optimizer's value for a seed is its mean over meta-seeds, so that the interval is over seeds alone.
    """
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if row["metric"] == metric and row["attack"][:5] in ("none", "worst"):
            by_seed.setdefault(row["seed"], []).append(row["value"])
    return over_seeds([sum(values) / len(values) for values in by_seed.values()])


def table(rows: list[Row]) -> str:
    """The whole comparison, one block a part."""
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        models = list(dict.fromkeys(row["model"] for row in here))
        names = list(dict.fromkeys(row["method"] for row in here))
        tried = {row["seed"] for row in here if row["seed"] is not None}
        robust = next(row for row in here if row["attack"].startswith("worst"))
        verb = "Patching trained models" if part == "patch" else "Training fresh models"
        steps = max(row["step"] for row in here)
        lines += [
            f"{verb}: {robust['dataset']}, {steps} steps; clean / robust accuracy in %, ± 95 % over {len(tried)} seeds",
            f"robust: Linf eps {robust['eps']:g}, {robust['attack']}, {robust['n']} test images",
            "",
            f"{'':31}{'tier':>11} {'adv. ex.':>9} " + "".join(f"{model:>22}" for model in models),
        ]
        for name in names:
            mine = [row for row in here if row["method"] == name]
            made = max(row["value"] for row in mine if row["metric"] == "adversarial examples")
            cells = []
            for model in models:
                there = [row for row in mine if row["model"] == model]
                (c, _), (r, half) = over(there, "clean accuracy"), over(there, "robust accuracy")
                cells.append(f"{100 * c:.1f} / {100 * r:.1f} ±{100 * half:.1f}")
            lines.append(f"{name:31}{mine[0]['tier']:>11} {made:>9,.0f} " + "".join(f"{cell:>22}" for cell in cells))
        lines.append("")
    return "\n".join(lines)
