"""CSV tables that are written atomically and read back to the digit, each column of one type."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

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


def read_csv(path: str | Path, columns: Mapping[str, str], digest: str) -> pd.DataFrame:
    """Reads what `write_csv` wrote.

    Args:
        path: of the file, or of the one that gzip packed where its name ends in .gz.
        columns: name to "str", "int" or "float".
        digest: the SHA-256 of the unpacked content.

    Returns:
        A row a line; whole numbers as Int64, text never missing.

    Raises:
        InputError: the file is missing, cut short, or was changed.
    """
    content = read_bytes(path)
    numbers = {name: [""] for name, kind in columns.items() if kind != "str"}
    try:
        content = gzip.decompress(content) if Path(path).suffix == ".gz" else content
        if sha256(content) != digest:
            raise ValueError
        text = pd.read_csv(io.BytesIO(content), dtype=object, na_values=numbers, keep_default_na=False)
        # By way of float, as Python reads it: what pandas reads by itself may be off in the last digit.
        frame = text.astype(dict.fromkeys(numbers, float))
        return frame.astype({name: "Int64" for name, kind in columns.items() if kind == "int"})
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(path) from error


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Where a file is read whose fields may be of any kind: what a wrong one leads to becomes an InputError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
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
