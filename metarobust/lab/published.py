"""What others measured on MNIST in L-infinity at eps 0.3, to hold our anchor against, and the text that does so.

Each figure is of one trained model on all 10,000 test images. They differ by model and by attack, so a figure is only
comparable to one under an attack of the same strength: the same weights stand at 92.5 % under one run of PGD and at
88.0 % under the strongest attack that anyone has sent in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from metarobust.evaluation.intervals import wilson
from metarobust.lab.results import as_rows
from metarobust.lab.table import Row, names, over, pick, setting


@dataclass(frozen=True)
class Figure:
    """Clean and robust accuracy of one published model in per cent, under which attack, and where it is stated."""

    model: str
    attack: str
    clean: float
    robust: float
    source: str


RELEASED, FAST = "Madry et al., released", "Wong et al. 2020, FGSM"
CHALLENGE = "github.com/MadryLab/mnist_challenge, white-box leaderboard"
AUTOATTACK = "github.com/fra31/auto-attack, README, MNIST - Linf"
PUBLISHED = (
    Figure(RELEASED, "PGD-100 ce, 1 start", 98.53, 92.52, CHALLENGE),
    Figure(RELEASED, "PGD-100 ce, 50 restarts", 98.53, 89.62, CHALLENGE),
    Figure(RELEASED, "AutoAttack", 98.53, 88.50, AUTOATTACK),
    Figure(RELEASED, "Guided Local Attack (best)", 98.53, 88.00, CHALLENGE),
    Figure(FAST, "PGD-50 ce, 10 restarts", 98.50, 88.77, AUTOATTACK),
    Figure(FAST, "AutoAttack", 98.50, 82.93, AUTOATTACK),
)
"""The released weights are those of the MNIST challenge (`secret`). Wong et al. trained a smaller network."""


def comparable(rows: Sequence[Row]) -> bool:
    """Whether the published figures are of the same data and eps."""
    return {(row["dataset"], row["eps"]) for row in rows if row["metric"] == "robust accuracy"} == {("mnist", 0.3)}


def spread(rows: Sequence[Row]) -> tuple[float, float]:
    """The lowest and the highest robust accuracy of a seed."""
    values = [row["value"] for row in rows if row["attack"].startswith("worst")]
    return min(values), max(values)


def ours(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Each way of training with its rows, in order."""
    return [(method, pick(rows, rows[0]["part"], rows[0]["model"], method)) for method in names(rows, "method")]


def table(rows: Sequence[Row]) -> str:
    """Our models, mean and spread over seeds, and under them the published ones where they compare."""
    rows = as_rows(rows)
    head = f"{'accuracy in %, ± 95 % over seeds':34}{'clean':>13}{'robust':>13}{'seeds from..to':>18}{'adv. ex.':>12}"
    lines = [f"{rows[0]['model']}. {setting(rows, rows[0]['part'])}", head]
    for method, mine in ours(rows):
        cells = [f"{100 * mean:.1f} ±{100 * half:.1f}" for mean, half in
                 (over(mine, "clean accuracy"), over(mine, "robust accuracy"))]  # fmt: skip
        low, high = spread(mine)
        made = sum(row["value"] for row in mine if row["metric"] == "adversarial examples")
        among = f"{100 * low:.1f}..{100 * high:.1f}"
        lines.append(f"{method:34}{cells[0]:>13}{cells[1]:>13}{among:>18}{made:>12,.0f}")
    n = next(row["n"] for row in mine if row["attack"].startswith("worst"))
    mean = over(mine, "robust accuracy")[0]
    low, high = wilson(round(mean * n), n)
    lines.append(f"{n} images: {100 * mean:.1f} lies in [{100 * low:.1f}, {100 * high:.1f}] whatever the seed (Wilson)")
    raised = int(sum(row["value"] for row in rows if row["metric"] == "flags"))
    lines.append(f"checks of the evaluation: {raised} flags" + (", see the manifest's summary" if raised else ""))
    if comparable(rows):
        lines += ["", f"{'published: one model each, 10,000 images':56}{'clean':>7}{'robust':>8}  stated in"]
        lines += [f"  {f.model:26}{f.attack:28}{f.clean:7.2f}{f.robust:8.2f}  {f.source}" for f in PUBLISHED]
    return "\n".join(lines)


def markdown(rows: Sequence[Row], part: str) -> str:
    """The same as a Markdown table: a line for each way of training, and one for each published figure."""
    rows = as_rows(rows)
    lines = [["model", "attack", "clean %", "robust %"], ["---"] * 4]
    for method, mine in ours(rows):
        (clean, _), (robust, half), (low, high) = (
            over(mine, "clean accuracy"),
            over(mine, "robust accuracy"),
            spread(mine),
        )
        attack = next(row["attack"] for row in mine if row["attack"].startswith("worst"))
        seeds = len({row["seed"] for row in mine if row["metric"] == "robust accuracy"})
        shown = f"{100 * robust:.1f} ±{100 * half:.1f}; {seeds} seeds, {100 * low:.1f} to {100 * high:.1f}"
        lines.append([f"ours, {method}", attack, f"{100 * clean:.1f}", shown])
    if comparable(rows):
        lines += [[f.model, f.attack, f"{f.clean:.2f}", f"{f.robust:.2f}"] for f in PUBLISHED]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def brief(rows: Sequence[Row]) -> str:
    """The same in a few lines."""
    rows = as_rows(rows)
    lines = [setting(rows, rows[0]["part"])]
    for method, mine in ours(rows):
        (clean, _), (robust, half), (low, high) = (
            over(mine, "clean accuracy"),
            over(mine, "robust accuracy"),
            spread(mine),
        )
        lines.append(
            f"{rows[0]['model']}, {method}: clean {100 * clean:.1f} %, robust {100 * robust:.1f} ±{100 * half:.1f} %, "
            f"seeds from {100 * low:.1f} to {100 * high:.1f}"
        )
    if comparable(rows):
        found = [figure.robust for figure in PUBLISHED if figure.model == RELEASED]
        lines.append(f"{RELEASED}: {min(found):.1f} to {max(found):.1f} %, by attack; one model, all test images")
    return "\n".join(lines)
