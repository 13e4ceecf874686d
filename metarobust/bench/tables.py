"""Lines of words as a table: in columns for a terminal, with pipes for Markdown. The first line is the header."""

from collections.abc import Sequence

Lines = Sequence[Sequence[str]]


def columns(lines: Lines) -> str:
    """Columns as wide as their widest word."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(row.rstrip() for row in rows)


def pipes(lines: Lines) -> str:
    """A table of Markdown."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])
