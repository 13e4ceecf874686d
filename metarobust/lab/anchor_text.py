"""The anchor as text: our models, and under them the figures that others published of the same network."""

from typing import Any

import pandas as pd

from metarobust.evaluation.intervals import wilson
from metarobust.lab.results import accuracy, interval, names, select, to_markdown
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


def _ours(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each way of training: clean and robust accuracy in per cent over seeds, and the lowest and highest robust."""
    lines = []
    for method in names(frame, "method"):
        rows = select(frame, method=method)
        robust = 100 * accuracy(rows)
        worst = rows[rows["scope"] == "worst case"].iloc[0]
        lines.append({
            "method": method, "clean": interval(100 * accuracy(rows, "clean")), "robust": interval(robust),
            "low": robust.min(), "high": robust.max(), "seeds": len(robust), "attack": worst["attack"],
            "n": int(worst["n"]), "made": rows.loc[rows["metric"] == "adversarial examples", "value"].sum(),
        })  # fmt: skip
    return lines


def _comparable(frame: pd.DataFrame) -> bool:
    """Whether the published figures are of the same data and eps."""
    attacked = frame[frame["metric"] == "robust accuracy"]
    return set(zip(attacked["dataset"], attacked["eps"], strict=True)) == {("mnist", 0.3)}


def table(frame: pd.DataFrame) -> str:
    """Our models, mean and spread over seeds, and under them the published ones where they compare."""
    head = f"{'accuracy in %, ± 95 % over seeds':34}{'clean':>13}{'robust':>13}{'seeds from..to':>18}{'adv. ex.':>12}"
    lines = [f"{frame['model'].iloc[0]}. {setting(frame, frame['part'].iloc[0])}", head]
    for own in _ours(frame):
        clean, robust = (f"{own[key].mean:.1f} ±{own[key].half:.1f}" for key in ("clean", "robust"))
        among = f"{own['low']:.1f}..{own['high']:.1f}"
        lines.append(f"{own['method']:34}{clean:>13}{robust:>13}{among:>18}{own['made']:>12,.0f}")
    mean, n = own["robust"].mean, own["n"]
    low, high = wilson(round(mean * n / 100), n)
    lines.append(f"{n} images: {mean:.1f} lies in [{100 * low:.1f}, {100 * high:.1f}] whatever the seed (Wilson)")
    raised = int(frame.loc[frame["metric"] == "flags", "value"].sum())
    lines.append(f"checks of the evaluation: {raised} flags" + (", see the manifest's summary" if raised else ""))
    if _comparable(frame):
        lines += ["", f"{'published: one model each, 10,000 images':56}{'clean':>7}{'robust':>8}  stated in"]
        lines += [f"  {model:26}{attack:28}{clean:7.2f}{robust:8.2f}  {source}"
                  for model, attack, clean, robust, source in PUBLISHED]  # fmt: skip
    return "\n".join(lines)


def markdown(frame: pd.DataFrame, part: str) -> str:
    """The same as a Markdown table: a line for each way of training, and one for each published figure."""
    lines = [["model", "attack", "clean %", "robust %"]]
    for own in _ours(frame):
        among = f"{own['seeds']} seeds, {own['low']:.1f} to {own['high']:.1f}"
        robust = f"{own['robust'].mean:.1f} ±{own['robust'].half:.1f}; {among}"
        lines.append([f"ours, {own['method']}", own["attack"], f"{own['clean'].mean:.1f}", robust])
    if _comparable(frame):
        lines += [[model, attack, f"{clean:.2f}", f"{robust:.2f}"] for model, attack, clean, robust, _ in PUBLISHED]
    return to_markdown(lines)


def brief(frame: pd.DataFrame) -> str:
    """The same in a few lines."""
    lines = [setting(frame, frame["part"].iloc[0])]
    for own in _ours(frame):
        lines.append(
            f"{frame['model'].iloc[0]}, {own['method']}: clean {own['clean'].mean:.1f} %, "
            f"robust {own['robust'].mean:.1f} ±{own['robust'].half:.1f} %, "
            f"seeds from {own['low']:.1f} to {own['high']:.1f}"
        )
    if _comparable(frame):
        robust = [robust for model, _, _, robust, _ in PUBLISHED if model == RELEASED]
        lines.append(f"{RELEASED}: {min(robust):.1f} to {max(robust):.1f} %, by attack; one model, all test images")
    return "\n".join(lines)
