"""A matrix of transfer: where something was learned against where it was used, with a number in each cell.

    found = by_network(rows, {"learned on perceptrons": "perceptrons", ...})
    draw(found)                  # for a page
    grid(found)                  # the same for mouse, finger and keyboard: metarobust.book.figures.grid

Changes are of the same models before and after, paired over seeds; a learned optimizer's value for a seed is its mean
over meta-seeds. All accuracies are shares in [0, 1], and are shown in per cent and in points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from metarobust.book.figures.style import style
from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import BEFORE, LEARNED, names

Row = dict[str, Any]

CHANGE = LinearSegmentedColormap.from_list("change of accuracy", ["#6A3FA0", "#FFFFFF", "#009E73"])
"""Purple is worse than before, white the same, green better; safe for all colour vision, and the sign says it too."""
FULL = 0.25  # a change of so much, 25 points, has the full colour
UNSURE = float("inf")


@dataclass(frozen=True)
class Cell:
    """What one place of a matrix shows. value: the number itself, a share. half: half its 95 % interval over seeds.

    big, small: what is written in the cell. shade: from -1, full purple, over 0, white, to 1, full green. words: a
    sentence with all numbers.
    """

    value: float
    half: float
    big: str
    small: str
    shade: float
    words: str

    @property
    def colours(self) -> tuple[str, str]:
        """Of the ground and of the letters on it."""
        ground = CHANGE(0.5 + 0.5 * max(-1.0, min(1.0, self.shade)))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
        light = sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        return to_hex(ground), "#000000" if light > 0.1791 else "#FFFFFF"  # where both contrasts are equal


@dataclass(frozen=True)
class Matrix:
    """Cells in rows. rows, columns: their labels. gap: the number of rows above a gap; the rivals are below it.

    home: places (row, column) that get a frame. title: what the numbers are.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    gap: int
    home: frozenset[tuple[int, int]] = frozenset()

    def at(self, row: str, column: str) -> Cell:
        """A cell by its labels. Raises InputError for a label that is not there."""
        i = self.rows.index(choose(row, self.rows, "row of this matrix"))
        return self.cells[i][self.columns.index(choose(column, self.columns, "column of this matrix"))]


def by_network(
    rows: Sequence[Row], learned: Mapping[str, str], rivals: Mapping[str, str] | None = None, part: str = "patch"
) -> Matrix:
    """A column for each network of a part. learned, rivals: methods to labels, which are the rows.

    A frame marks a school of convolutions above a network of convolutions, and one of perceptrons above a perceptron.
    Raises InputError for a method or a part that is not in the rows.
    """
    choose(part, names(rows, "part"), "part of these results")
    models = names([row for row in rows if row["part"] == part], "model")
    return transfer(rows, learned, rivals or {}, {model: (part, (model,)) for model in models}, _same_kind)


def transfer(
    rows: Sequence[Row],
    learned: Mapping[str, str],
    rivals: Mapping[str, str],
    used: Mapping[str, tuple[str, Sequence[str]]],
    home: Any = lambda row, column: row == column,
) -> Matrix:
    """The change of robust and clean accuracy since before the first step.

    learned, rivals: methods to labels, a row each. used: labels of columns to (part, networks); of several networks a
    seed's value is their mean. home: (label of a row, label of a column) to whether the cell gets a frame.
    """
    methods = {**learned, **rivals}
    cells = tuple(
        tuple(_change(rows, method, label, column, *where) for column, where in used.items())
        for method, label in methods.items()
    )
    labels = tuple(methods.values())
    framed = frozenset(
        (i, j) for i, row in enumerate(labels[: len(learned)]) for j, column in enumerate(used) if home(row, column)
    )
    return Matrix("change under attack, in points", labels, tuple(used), cells, len(learned), framed)


def _same_kind(row: str, column: str) -> bool:
    if "perceptron" in row:
        return column.startswith("mlp")
    return "convolution" in row and column.startswith(("cnn", "resnet"))


def _change(rows: Sequence[Row], method: str, label: str, column: str, part: str, models: Sequence[str]) -> Cell:
    both = []
    for metric in ("robust accuracy", "clean accuracy"):
        before, after = (values(rows, part, models, name, metric) for name in (BEFORE, method))
        if before.keys() != after.keys():
            raise InputError(
                f"{method!r} and {BEFORE!r} have other seeds in part {part!r}: compare runs of equal seeds"
            )
        both.append((before, after, over_seeds([after[seed] - before[seed] for seed in before])))
    (start, end, (gain, half)), (clean_start, clean_end, (cost, cost_half)) = both
    spoken = " and ".join(models) if len(models) == 1 else column
    words = (
        f"{label}, used on {spoken}: under attack {percent_of(start)} → {percent_of(end)} % "
        f"({points(gain, half)} points), as they are {percent_of(clean_start)} → {percent_of(clean_end)} % "
        f"({points(cost, cost_half)})"
    )
    return Cell(gain, half, signed(gain), f"clean {signed(cost)}", gain / FULL, words)


def values(rows: Iterable[Row], part: str, models: Sequence[str], method: str, metric: str) -> dict[int, float]:
    """For each seed the mean over networks and meta-seeds, on test images after the last step.

    Robust accuracy is the worst case of the ensemble. Raises InputError where a network has no such row.
    """
    found: dict[int, list[float]] = {}
    for model in models:
        wanted = [
            row for row in rows
            if (row["part"], row["model"], row["method"], row["metric"]) == (part, model, method, metric)
            and row["split"] == "test" and row["attack"].startswith(("none", "worst"))
        ]  # fmt: skip
        if not wanted:
            raise InputError(f"no {metric} of {method!r} on {model!r} in part {part!r}: give what is in these results")
        last = max(row["step"] for row in wanted)
        by_seed: dict[int, list[float]] = {}
        for row in wanted:
            if row["step"] == last:
                by_seed.setdefault(row["seed"], []).append(row["value"])
        for seed, all_meta in by_seed.items():
            found.setdefault(seed, []).append(sum(all_meta) / len(all_meta))
    return {seed: sum(each) / len(each) for seed, each in found.items()}


def percent_of(by_seed: Mapping[int, float]) -> str:
    """The mean, in per cent with one decimal."""
    return f"{100 * sum(by_seed.values()) / len(by_seed):.1f}"


def signed(change: float) -> str:
    """A change in points, without decimals: `+21`, `−3`, `0`."""
    return "0" if round(100 * change) == 0 else f"{100 * change:+.0f}".replace("-", "−")


def points(change: float, half: float) -> str:
    """A change in points with its interval: `+21.3 ± 2.0`; a single seed has none."""
    return f"{100 * change:+.1f}".replace("-", "−") + (f" ± {100 * half:.1f}" if half < UNSURE else "")


def draw(matrix: Matrix) -> Figure:
    """The matrix as a picture: green is better than before, purple worse; a frame is home.

    The rivals stand below a gap. At most 6 inches wide.
    """
    count = len(matrix.rows)
    gap = 0.35 if 0 < matrix.gap < count else 0.0
    lines = max(label.count("\n") + 1 for label in map(_broken, matrix.columns))
    with style():
        size = (5.6, 0.48 * (count + gap) + 0.2 * lines + 0.4)
        figure, axes = plt.subplots(figsize=size)
        heights = [i + (gap if i >= matrix.gap else 0.0) for i in range(count)]
        for i, row in enumerate(matrix.cells):
            for j, cell in enumerate(row):
                ground, ink = cell.colours
                axes.add_patch(Rectangle((j - 0.5, heights[i] - 0.5), 1, 1, fc=ground, ec="white", lw=2))
                place = {"ha": "center", "va": "center", "color": ink}
                high = 0.13 if cell.small else 0.0
                axes.text(j, heights[i] - high, cell.big, fontsize=12, fontweight="bold", **place)
                axes.text(j, heights[i] + 0.26, cell.small, fontsize=8, **place)
        for i, j in matrix.home:
            frame = {"fill": False, "ec": "#1A1A1A", "lw": 2, "zorder": 3}
            axes.add_patch(Rectangle((j - 0.47, heights[i] - 0.47), 0.94, 0.94, **frame))
        axes.set(xlim=(-0.5, len(matrix.columns) - 0.5), ylim=(heights[-1] + 0.5, -0.5))
        axes.set_xticks(range(len(matrix.columns)), [_broken(label) for label in matrix.columns], fontsize=9)
        axes.set_yticks(heights, matrix.rows, fontsize=10)
        for tick, height in zip(axes.get_yticklabels(), range(count), strict=True):
            tick.set_fontweight("bold" if height < matrix.gap else "normal")
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(matrix.title)
    return figure


def _broken(label: str) -> str:
    """A network's name in lines short enough for a column: its kind, its widths two at a time, its activation."""
    kind, *numbers = label.split("-")
    if kind not in ("mlp", "cnn", "resnet") or len(numbers) < 2:
        return label.replace(" ", "\n")
    widths = ["-".join(numbers[:-1][i : i + 2]) for i in range(0, len(numbers) - 1, 2)]
    return "\n".join([kind, *widths, numbers[-1]])


def learned_methods(rows: Iterable[Row]) -> list[str]:
    """The learned optimizers of a table, in its order."""
    return [name for name in names(rows, "method") if name.startswith(LEARNED)]


def reading(matrix: Matrix, rivals: Sequence[str] = ()) -> str:
    """The matrix in words, as a Markdown list: for each column the best and worst row that learned, and the best rival.

    rivals: the rows below the gap that are compared; none if empty. Raises InputError for one that is not there.
    """
    lines = []
    for column in matrix.columns:
        ordered = sorted(matrix.rows[: matrix.gap], key=lambda row: matrix.at(row, column).value)
        said = [f"best *{ordered[-1]}*, {_points(matrix.at(ordered[-1], column))}"]
        if len(ordered) > 1:
            said.append(f"worst *{ordered[0]}*, {_points(matrix.at(ordered[0], column))}")
        if rivals:
            rival = max(rivals, key=lambda row: matrix.at(row, column).value)
            said.append(f"best rival *{rival}*, {_points(matrix.at(rival, column))}")
        name = f"`{column}`" if "-" in column else column
        lines.append(f"- {name}: {'; '.join(said)}.")
    return "\n".join(lines)


def _points(cell: Cell) -> str:
    return f"{points(cell.value, cell.half)} points under attack ({cell.small.replace('clean', 'clean:')})"
