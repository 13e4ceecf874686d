"""Lines of words as a table: in columns for a terminal, with pipes for Markdown. The first line is the header."""

from collections.abc import Sequence

from metarobust.lab.table import pipes

Lines = Sequence[Sequence[str]]


def columns(lines: Lines) -> str:
    """Columns as wide as their widest word."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(row.rstrip() for row in rows)


def in_columns(captions: Sequence[str], tables: Sequence[Lines], setting: str) -> str:
    """Tables under their captions, and the setting, as text for a terminal."""
    blocks = [f"{caption}\n{columns(lines)}\n" for caption, lines in zip(captions, tables, strict=True)]
    return "\n".join([*blocks, setting])


def in_pipes(captions: Sequence[str], tables: Sequence[Lines], setting: str) -> str:
    """The same as Markdown."""
    blocks = [f"{caption}.\n\n{pipes(lines)}" for caption, lines in zip(captions, tables, strict=True)]
    return "\n\n".join([*blocks, f"{setting}."])
