"""Files that are whole or absent: JSON objects and tensors, written atomically. No pickle.

Tensors lie in a `.safetensors` file; what has to be known about them, a JSON object, is in its header.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from metarobust.errors import InputError

TEMPORARY = ".part"
"""The ending of a file being written; one that was left behind by a kill holds nothing of worth."""


def sha256(content: bytes | str) -> str:
    """The SHA-256 of the content, as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Writes a file, and its folder where needed, so that at any moment it is the old one or the new one.

    Raises InputError where the disk is full, read-only or otherwise refuses; nothing half-written stays then.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another place"
        ) from error


def read_bytes(path: str | Path) -> bytes:
    """A file's content. Raises InputError where it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; check the path, or run what writes it") from error
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error


def write_json(path: str | Path, value: Mapping[str, object]) -> None:
    """Writes a JSON object as `write_atomic` does. NaN and infinities are kept."""
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError where there is none."""
    content = read_bytes(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise damaged(path)
    return value


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, object] | None = None) -> None:
    """Writes tensors to a `.safetensors` file as `write_atomic` does.

    Args:
        path: of the file.
        tensors: by name, on any device; they may be views of one vector.
        about: a JSON object that is stored with them; None for nothing.
    """
    # Copies, because safetensors refuses tensors that share memory, as slices of one flat vector do.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    write_atomic(path, save(copies, None if about is None else {"about": json.dumps(dict(about))}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, on the CPU, and `about`, empty where there is none. Raises InputError for a bad file."""
    content = read_bytes(path)
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, json.loads(header.get("__metadata__", {}).get("about", "{}"))
    except (SafetensorError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: str | Path) -> InputError:
    """The error for a file that cannot be used."""
    return InputError(f"{path} is damaged, cut short or was edited; delete it and make it again")
