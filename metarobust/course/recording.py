"""Records as files: what a probe found, from the student's process to the grader's. JSON and safetensors, no pickle.

The reader trusts nothing: the files come from a process that a student's code ran in.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from metarobust.course.question import Record

MOST_BYTES = 8_000_000
MOST_ENTRIES = 200_000  # of a tensor; those of the questions have hundreds
_KEY = "tensor:"


def write(folder: Path, name: str, record: Record) -> None:
    """Write a record as `NAME.safetensors` and then `NAME.json`; what is far too large is named, not written."""
    tensors: dict[str, Tensor] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.numel() > MOST_ENTRIES or value.layout != torch.strided:
                return {"type": f"tensor of {value.numel():,} entries"}
            key = f"{_KEY}{len(tensors)}"
            tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return key
        if isinstance(value, dict):
            return {str(key): strip(part) for key, part in value.items()}
        if isinstance(value, list):
            return [strip(part) for part in value[:1000]]
        return value[:1000] if isinstance(value, str) else value

    tree = strip(dict(record))
    (folder / f"{name}.safetensors").write_bytes(save(tensors))
    (folder / f"{name}.json").write_text(json.dumps(tree))


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """What `write` wrote; None where it is missing, too large, damaged, or no plain file."""
    text, tensors = (content(folder / f"{name}.{kind}") for kind in ("json", "safetensors"))
    if text is None or tensors is None:
        return None
    try:
        tree, held = json.loads(text), load(tensors)
    except (ValueError, RecursionError, SafetensorError, KeyError, TypeError, AttributeError):
        return None

    def fill(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(_KEY):
            return held.get(value)
        if isinstance(value, dict):
            return {key: fill(part) for key, part in value.items()}
        return [fill(part) for part in value] if isinstance(value, list) else value

    try:
        return fill(tree) if isinstance(tree, dict) else None
    except RecursionError:
        return None


def content(path: Path) -> bytes | None:
    """A file's content, where it is a plain one: a link may lead anywhere, and a pipe would make the reader wait."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            return None
        return file.read(MOST_BYTES)
