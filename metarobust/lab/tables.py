"""CSV tables that are written atomically and read back to the digit, each column of one type."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarobust.errors import InputError
from metarobust.storage import damaged, read_bytes, sha256, write_atomic


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> str:
    """Write rows atomically and return the file's SHA-256; `columns` gives each column's type, in order.

    A float is written so that reading it gives the same float; None is an empty cell.

    Raises InputError when a row has other columns or a value that is not of its column's type.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(rows, 1):
        if set(row) != set(columns):
            odd = sorted(set(row) ^ set(columns))
            raise InputError(f"row {number} for {path}: column {odd[0]!r} is missing or unknown")
        writer.writerow([_cell(row[name], kind, name) for name, kind in columns.items()])
    write_atomic(path, text.getvalue())
    return sha256(text.getvalue())


def read_csv(path: str | Path, columns: Mapping[str, type], digest: str | None = None) -> list[dict[str, Any]]:
    """Read what `write_csv` wrote. An empty cell is None, or "" in a column of text.

    Where there is no such file, but one that gzip packed, `NAME.csv.gz`, that is read; the digest is of what is in it.
    Raises InputError when the file is missing, cut short, or not as `columns` and `digest`, its SHA-256, say.
    Without `digest` a file that ends after fewer whole rows is taken for a shorter one.
    """
    packed = Path(f"{path}.gz")
    path = packed if packed.exists() and not Path(path).exists() else path
    content = read_bytes(path)
    try:
        content = gzip.decompress(content) if path == packed else content
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path) from error
    if digest is not None and sha256(content) != digest:
        raise damaged(path)
    try:
        text = content.decode()
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        if header != list(columns) or not text.endswith("\n"):
            raise ValueError
        return [
            {
                name: kind(cell) if cell or kind is str else None
                for (name, kind), cell in zip(columns.items(), line, strict=True)
            }
            for line in lines
        ]
    except (ValueError, csv.Error) as error:
        raise damaged(path) from error


def _cell(value: Any, kind: type, name: str) -> str:
    if value is None and kind is not str:
        return ""
    try:
        if kind is str and (not isinstance(value, str) or "\r" in value):  # csv reads it as the end of a line
            raise TypeError
        converted = kind(value)
        if kind is int and converted != value:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name!r} holds {value!r}; give a value of type {kind.__name__}") from error
    return converted if kind is str else repr(converted)
