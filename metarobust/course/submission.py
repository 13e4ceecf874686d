"""A submission as a file: whether it is a notebook, of which assignment, and what it imports. Nothing is executed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metarobust.course.question import Assignment
from metarobust.errors import InputError

MOST_BYTES = 20_000_000


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook as JSON. Raises InputError for what is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path.name} has more than {MOST_BYTES // 10**6} MB; clear its outputs")
        found = json.loads(path.read_bytes())
        cells = found["cells"]
        if not cells or found["nbformat"] != 4 or not all(isinstance(source_of(cell), str) for cell in cells):
            raise ValueError
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path.name} is not a notebook, or a damaged one; hand in the .ipynb file itself") from error
    return found


def number_of(notebook: dict[str, Any]) -> int | None:
    """Which assignment it says that it is: in its metadata, or in its title."""
    about = notebook.get("metadata")
    said = about.get("metarobust") if isinstance(about, dict) else None
    if isinstance(said, dict) and said.get("assignment") in (1, 2, 3, 4):
        return int(said["assignment"])
    for cell in notebook["cells"]:
        title = re.match(r"# Assignment ([1-4])\b", source_of(cell))
        if title:
            return int(title[1])
    return None


def source_of(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return "".join(source) if isinstance(source, list) else source


def forbidden(notebook: dict[str, Any], assignment: Assignment) -> list[str]:
    """The imports that the assignment does without, and calls that would hide one."""
    found = set()
    for cell in notebook["cells"]:
        if cell.get("cell_type") != "code":
            continue
        lines = [line for line in source_of(cell).splitlines() if not line.lstrip().startswith(("%", "!"))]
        try:
            tree = ast.parse("\n".join(lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # it will not run either
        for name in _imports(tree):
            if (
                name.startswith(("metarobust.course.", *(f"{one}." for one in assignment.forbidden)))
                or name in assignment.forbidden
            ):
                found.add(name)
    return sorted(found)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module in ("metarobust", "metarobust.course"):  # `from metarobust import attacks`
                plain = ("check", "earn", "suspects")
                yield from (f"{node.module}.{one.name}" for one in node.names if one.name not in plain)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if called in ("__import__", "import_module", "importlib.import_module") and words:
                yield words[0]
