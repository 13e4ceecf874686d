"""A transfer matrix: what an optimizer was meta-trained on against what it was used on, a number in each cell.

`draw` is for a page, `grid.Grid` for mouse, finger and keyboard. Changes are of the same models before and after,
paired over seeds. All accuracies are shares in [0, 1], and are shown in per cent and in points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from metarobust.book.figures.results import by_method
from metarobust.book.figures.style import points, style
from metarobust.errors import choose
from metarobust.lab.results import BEFORE, interval, select

CHANGE = LinearSegmentedColormap.from_list("change of accuracy", ["#6A3FA0", "#FFFFFF", "#009E73"])
"""Purple is worse than before, white the same, green better; safe for all colour vision, and the sign says it too."""
FULL = 0.25  # a change of so much, 25 points, has the full colour


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

    home: places (row, column) of one kind, which get a frame. title: what the numbers are.
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
    frame: pd.DataFrame, learned: Mapping[str, str], rivals: Mapping[str, str] | None = None, part: str = "patch",
    home: Mapping[str, str] | None = None,
) -> Matrix:  # fmt: skip
    """A column for each network of a part.

    Args:
        frame: Rows of results.
        learned: Methods to labels, which are the rows above the gap.
        rivals: The same of those below it.
        part: The part.
        home: Labels of rows to the kind of network, dense or convolutional, where their cells get a frame.
    """
    kinds = select(frame, part=part).drop_duplicates("model").set_index("model")["network"]
    used = {model: (part, [model]) for model in kinds.index}
    return transfer(frame, learned, rivals or {}, used, lambda row, column: (home or {}).get(row) == kinds[column])


def transfer(
    frame: pd.DataFrame,
    learned: Mapping[str, str],
    rivals: Mapping[str, str],
    used: Mapping[str, tuple[str, Sequence[str]]],
    home: Callable[[str, str], bool] = lambda row, column: row == column,
) -> Matrix:
    """The change of robust and clean accuracy since before the first step.

    Args:
        frame: Rows of results.
        learned: Methods to labels, which are the rows above the gap.
        rivals: The same of those below it.
        used: Labels of columns to (part, networks); of several networks a seed's value is their mean.
        home: (label of a row, label of a column) to whether the cell gets a frame.
    """
    rows = {**learned, **rivals}
    columns = []
    for column, (part, models) in used.items():
        mine = select(select(frame, part=part), model=list(models))
        tables = {metric: by_method(mine, metric) for metric in ("robust", "clean")}
        spoken = models[0] if len(models) == 1 else column
        columns.append([_change(tables, method, f"{row}, used on {spoken}") for method, row in rows.items()])
    labels, cells = tuple(rows.values()), tuple(zip(*columns, strict=True))
    framed = ((i, j) for i, row in enumerate(labels[: len(learned)]) for j, c in enumerate(used) if home(row, c))
    return Matrix("change under attack, in points", labels, tuple(used), cells, len(learned), frozenset(framed))


def _change(tables: Mapping[str, pd.DataFrame], method: str, what: str) -> Cell:
    changes, words = [], []
    for metric, kind in (("robust", "under attack"), ("clean", "on clean images")):
        table = tables[metric]
        before, after = (table.loc[choose(name, table.index, "method here")] for name in (BEFORE, method))
        changes.append(interval((after - before).dropna()))
        spread = points(*changes[-1]) + (" points" if metric == "robust" else "")
        words.append(f"{kind} {100 * before.mean():.1f} → {100 * after.mean():.1f} % ({spread})")
    (gain, half), (cost, _) = changes
    return Cell(gain, half, signed(gain), f"clean {signed(cost)}", gain / FULL, f"{what}: {', '.join(words)}")


def signed(change: float) -> str:
    """A change in points, without decimals: `+21`, `−3`, `0`."""
    return "0" if round(100 * change) == 0 else f"{100 * change:+.0f}".replace("-", "−")


def draw(matrix: Matrix) -> Figure:
    """The matrix as a picture: green is better than before, purple worse; a frame marks what is of one kind.

    The rivals stand below a gap. At most 6 inches wide.
    """
    count, columns = len(matrix.rows), [_broken(column) for column in matrix.columns]
    gap = 0.35 if 0 < matrix.gap < count else 0.0
    heights = [i + (gap if i >= matrix.gap else 0.0) for i in range(count)]
    with style():
        lines = max(column.count("\n") + 1 for column in columns)
        figure, axes = plt.subplots(figsize=(5.6, 0.48 * (count + gap) + 0.2 * lines + 0.4))
        for y, row in zip(heights, matrix.cells, strict=True):
            for x, cell in enumerate(row):
                ground, ink = cell.colours
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=ground, ec="white", lw=2))
                place = {"ha": "center", "va": "center", "color": ink}
                axes.text(x, y - (0.13 if cell.small else 0.0), cell.big, fontsize=12, fontweight="bold", **place)
                axes.text(x, y + 0.26, cell.small, fontsize=8, **place)
        for i, j in matrix.home:
            edge = {"fill": False, "ec": "#1A1A1A", "lw": 2, "zorder": 3}
            axes.add_patch(Rectangle((j - 0.47, heights[i] - 0.47), 0.94, 0.94, **edge))
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(heights[-1] + 0.5, -0.5))
        axes.set_xticks(range(len(columns)), columns, fontsize=9)
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


def reading(matrix: Matrix, rivals: Sequence[str] = ()) -> str:
    """The matrix in words, as a Markdown list: for each column the best and worst row above the gap, the best rival.

    rivals: the rows below the gap that are compared; none if empty. Raises InputError for one that is not there.
    """

    def told(row: str, column: str) -> tuple[float, str]:
        cell = matrix.at(row, column)
        gain, clean = points(cell.value, cell.half), cell.small.replace("clean", "clean:")
        return cell.value, f"*{row}*, {gain} points under attack ({clean})"

    lines = []
    for column in matrix.columns:
        ordered = sorted(told(row, column) for row in matrix.rows[: matrix.gap])
        parts = [f"best {ordered[-1][1]}"] + [f"worst {ordered[0][1]}"] * (len(ordered) > 1)
        parts += [f"best rival {max(told(row, column) for row in rivals)[1]}"] if rivals else []
        lines.append(f"- {f'`{column}`' if '-' in column else column}: {'; '.join(parts)}.")
    return "\n".join(lines)
