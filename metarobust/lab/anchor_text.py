"""The anchor as text: our models, and under them the figures that others published of the same network."""

import pandas as pd

from metarobust.lab.results import accuracy, interval, names, select, to_markdown, to_text
from metarobust.lab.summary import setting

RELEASED, FAST = "Madry et al., released", "Wong et al. 2020, FGSM"
CHALLENGE = "github.com/MadryLab/mnist_challenge, white-box leaderboard"
AUTOATTACK = "github.com/fra31/auto-attack, README, MNIST - Linf"
PUBLISHED = (
    (RELEASED, "PGD-100 ce, 1 start", 98.53, 92.52, CHALLENGE),
    (RELEASED, "PGD-100 ce, 50 restarts", 98.53, 89.62, CHALLENGE),
    (RELEASED, "AutoAttack", 98.53, 88.50, AUTOATTACK),
    (RELEASED, "Guided Local Attack (best)", 98.53, 88.00, CHALLENGE),
    (FAST, "PGD-50 ce, 10 restarts", 98.50, 88.77, AUTOATTACK),
    (FAST, "AutoAttack", 98.50, 82.93, AUTOATTACK),
)
"""Model, attack, clean and robust accuracy in per cent, and where it is stated: MNIST, L-infinity at eps 0.3, one model
each on all 10,000 test images. A figure compares only with one under an attack of the same strength. The released
weights are those of the MNIST challenge (`secret`); Wong et al. trained a smaller network."""


def lines(frame: pd.DataFrame) -> list[list[str]]:
    """A header, a line for each way of training, and one for each published figure of the same data and eps."""
    lines = [["model", "attack", "clean %", "robust %", "by seed, or stated in"]]
    for method in names(frame, "method"):
        rows = select(frame, method=method)
        clean, robust = (100 * accuracy(rows, metric) for metric in ("clean", "robust"))
        over_seeds = [f"{each.mean:.1f} ±{each.half:.1f}" for each in map(interval, (clean, robust))]
        attack = rows.loc[rows["scope"] == "worst case", "attack"].iloc[0]
        among = f"{len(robust)} seeds, {robust.min():.1f} to {robust.max():.1f}"
        lines.append([f"ours, {method}", attack, *over_seeds, among])
    attacked = frame[frame["metric"] == "robust accuracy"]
    if set(zip(attacked["dataset"], attacked["eps"], strict=True)) == {("mnist", 0.3)}:
        lines += [
            [model, attack, f"{clean:.2f}", f"{robust:.2f}", at] for model, attack, clean, robust, at in PUBLISHED
        ]
    return lines


def table(frame: pd.DataFrame) -> str:
    """Our models, mean and spread over seeds, and under them the published ones where they compare."""
    raised = int(frame.loc[frame["metric"] == "flags", "value"].sum())
    checks = f"checks of the evaluation: {raised} flags" + (", see the manifest's summary" if raised else "")
    return "\n".join([setting(frame, frame["part"].iloc[0]), to_text(lines(frame)), checks])


def markdown(frame: pd.DataFrame, part: str) -> str:
    """The same as a Markdown table."""
    return to_markdown(lines(frame))
