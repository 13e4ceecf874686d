"""CSV tables that are written atomically and read back to the digit, each column of one type."""

from __future__ import annotations

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


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> dict[str, Any]:
    """Writes rows atomically.

    Args:
        path: of the file.
        rows: by column; what is missing, None or NaN is an empty cell. A float reads back as the same float.
        columns: name to str, int or float, in order.

    Returns:
        What a manifest says of the file, for `read_csv`: `columns` with the names of their types, and `files_sha256`.

    Raises:
        ValueError or TypeError: a row has another column, or a value that is not of its column's type.
    """
    if unknown := set().union(*rows) - set(columns):
        raise ValueError(f"rows for {path} have a column {min(unknown)!r} that the table lacks")
    numbers = {name: "Int64" if kind is int else kind for name, kind in columns.items() if kind is not str}
    frame = pd.DataFrame(list(rows), columns=[*columns]).astype(numbers)
    text = frame.to_csv(index=False, lineterminator="\n")
    write_atomic(path, text)
    types = {name: kind.__name__ for name, kind in columns.items()}
    return {"columns": types, "files_sha256": {Path(path).name: sha256(text)}}


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
