"""Variants of a learned optimizer, and methods over steps or over numbers of images: figures and their words.

Values are taken as in `figures.results`: a learned optimizer's value for a seed is its mean over meta-seeds.
Where two methods are compared, it is seed by seed, since both had the same networks, starts and images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.style import role, style
from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import LEARNED, by_seed, measured, names

Row = dict[str, Any]
KINDS = ("robust accuracy", "clean accuracy")


def wanted(
    rows: Iterable[Row], part: str, method: str, metric: str, models: Sequence[str] = (), split: str = "test"
) -> list[Row]:
    """A method's rows of one metric, its worst case over attacks, on these networks (all if none is named).

    Raises InputError where there is none.
    """
    mine = [row for row in rows if (row["part"], row["method"]) == (part, method)]
    found = [row for row in measured(mine, metric, split) if not models or row["model"] in models]
    if not found:
        raise InputError(
            f"the results hold no {metric} of {method!r} in part {part!r}: check method, part and networks"
        )
    return found


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """Mean of `one` minus `other` over the seeds that both have, and half the width of its 95 % interval."""
    return over_seeds([value - other[seed] for seed, value in one.items() if seed in other])


@dataclass(frozen=True)
class Difference:
    """A variant minus the base, paired over seeds, as shares. halves: of the 95 % intervals over seeds.

    by_meta_seed: the robust difference of each meta-seed alone, a mean over seeds.
    """

    method: str
    robust: float
    robust_half: float
    clean: float
    clean_half: float
    by_meta_seed: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the robust difference stands out: its interval leaves out 0, and all meta-seeds agree on the side."""
        one_side = len({value > 0 for value in self.by_meta_seed}) == 1
        return one_side and abs(self.robust) > self.robust_half


def difference(rows: Sequence[Row], part: str, method: str, base: str, models: Sequence[str] = ()) -> Difference:
    """Raises InputError where one of the two is not in the rows."""
    found = []
    for kind in KINDS:
        ours, theirs = (wanted(rows, part, name, kind, models) for name in (method, base))
        found += paired(by_seed(ours), by_seed(theirs))
    ours, theirs = (wanted(rows, part, name, KINDS[0], models) for name in (method, base))
    each = []
    for meta_seed in sorted({row["meta_seed"] for row in ours} & {row["meta_seed"] for row in theirs}):
        mine, base_only = ([row for row in side if row["meta_seed"] == meta_seed] for side in (ours, theirs))
        each.append(paired(by_seed(mine), by_seed(base_only))[0])
    return Difference(method, *found, tuple(each))


def differences(rows: Sequence[Row], part: str = "patch", models: Sequence[str] = ()) -> list[Difference]:
    """Every variant of the learned optimizer against the learned optimizer itself, in the order of the table.

    Raises InputError for an unknown part or network.
    """
    choose(part, names(rows, "part"), "part of these results")
    for model in models:
        choose(model, names(rows, "model"), "network in these results")
    there = [name for name in names((row for row in rows if row["part"] == part), "method") if name.startswith(LEARNED)]
    return [difference(rows, part, name, LEARNED, models) for name in there if name != LEARNED]


def short(method: str) -> str:
    """A variant's name without the words that all have."""
    return method.removeprefix(f"{LEARNED}, ")


def variants(
    rows: Sequence[Row], groups: Mapping[str, Sequence[str]], *, part: str = "patch", models: Sequence[str] = ()
) -> Figure:
    """How far each variant is from the learned optimizer, in points: a line each, under the heading of its group.

    groups: heading to names of variants, without `learned, `. A filled diamond is the difference under attack with its
    95 % interval over seeds, dark where it is clear and grey where it is not; the small ticks under it are the single
    meta-seeds; the hollow circle is the difference on images as they are. Raises InputError for an unknown variant.
    """
    found = {short(one.method): one for one in differences(rows, part, models)}
    lines: list[tuple[str, Difference | None]] = []
    for heading, members in groups.items():
        lines += [(heading, None), *((name, found[choose(name, found, "variant")]) for name in members)]
    with style():
        figure, axes = plt.subplots(figsize=(5.4, 0.285 * len(lines) + 0.9))
        axes.axvline(0, color=role("control").colour, lw=1.2)
        for y, (_, one) in enumerate(lines):
            if one is not None:
                _variant(axes, y, one)
        axes.set(ylim=(len(lines) - 0.4, -0.7), xlabel="points of accuracy against the learned optimizer")
        axes.set_yticks(range(len(lines)), [text for text, _ in lines], fontsize=10)
        for tick, (_, one) in zip(axes.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if one is None else "normal")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    return figure


def _variant(axes: Axes, y: int, one: Difference) -> None:
    how = role("learned" if one.clear else "control")
    finite = [100 * half if half < float("inf") else 0.0 for half in (one.robust_half, one.clean_half)]
    clean = {"color": role("clean").colour, "marker": "o", "mfc": "white", "ms": 5, "lw": 0, "elinewidth": 1}
    axes.errorbar(100 * one.clean, y - 0.18, xerr=finite[1], zorder=2, **clean)
    robust = {"color": how.colour, "marker": "D", "ms": 6.5, "lw": 0, "elinewidth": 2, "capsize": 2.5}
    axes.errorbar(100 * one.robust, y + 0.12, xerr=finite[0], zorder=3, **robust)
    ticks = [100 * value for value in one.by_meta_seed]
    axes.plot(ticks, [y + 0.36] * len(ticks), lw=0, marker="|", ms=5, mew=1.2, color=how.colour)


def points(value: float, half: float) -> str:
    """`+1.2 ± 0.4` in points, with a minus that is as wide as the plus."""
    spread = f" ± {100 * half:.1f}" if half < float("inf") else ""
    return f"{100 * value:+.1f}{spread}".replace("-", "−")


def verdicts(rows: Sequence[Row], names_: Sequence[str], *, part: str = "patch", models: Sequence[str] = ()) -> str:
    """What the figure of variants shows, in words, as a Markdown list. names_: variants, without `learned, `."""
    found = {short(one.method): one for one in differences(rows, part, models)}
    lines = []
    for name in names_:
        one = found[choose(name, found, "variant")]
        said = ("better" if one.robust > 0 else "worse") if one.clear else "within the noise"
        lines.append(
            f"- {name}: {points(one.robust, one.robust_half)} points under attack, "
            f"{points(one.clean, one.clean_half)} as they are; **{said}** under attack"
        )
    return "\n".join(lines)
