"""Files that are whole or absent: atomic writes, and digests that refuse a damaged file. No pickle.

A JSON file carries the SHA-256 of its own content, and tensors lie in `NAME.safetensors` with a sealed card
`NAME.json` beside them that holds their digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarobust.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".part"
"""The ending of a file being written; one that was left behind by a kill holds nothing of worth."""


def sha256(content: bytes | str) -> str:
    """The SHA-256 of the content, as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file, making its folder where needed, so that at any moment it is the old one or the new one.

    Raises InputError naming the path when the disk is full, read-only or otherwise refuses; nothing
    half-written stays then.
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
    """A file's content. Raises InputError when it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; check the path, or run what writes it") from error
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, its SHA-256 as the last entry. NaN and infinities are kept.

    Raises InputError as `write_atomic` does.
    """
    write_atomic(path, _render(value))


def read_json(path: str | Path) -> dict[str, Any]:
    """Read what `write_json` wrote. Raises InputError when a byte of it is missing or changed."""
    content = read_bytes(path)
    try:
        value = json.loads(content)
        sealed = value.pop("sha256", None) is not None and _render(value).encode() == content
    except (ValueError, AttributeError, TypeError, RecursionError):
        sealed = False
    if not sealed:
        raise damaged(path)
    return value


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors to `path`, a `.safetensors` file, and `about`, a JSON object, to its card `NAME.json`.

    The new tensors wait beside the old ones until the card is written, so a kill at any moment leaves either
    the old pair or the new one. Raises InputError as `write_atomic` does, and for another ending.
    """
    import torch
    from safetensors.torch import save

    path, card, waiting = _names(path)
    # Copies, because safetensors refuses tensors that share memory, as slices of one flat vector do.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = save(copies)
    _settle(path)
    write_atomic(waiting, content)
    shapes = {name: list(tensor.shape) for name, tensor in copies.items()}
    try:
        write_json(card, {"about": dict(about), "tensors_sha256": sha256(content), "shapes": shapes})
    except BaseException:
        waiting.unlink(missing_ok=True)
        raise
    os.replace(waiting, path)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors by name, on the CPU, and `about`.

    Raises InputError when either file is missing, cut short, changed, or does not belong to the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path, card, _ = _names(path)
    _settle(path)
    content, stored = read_bytes(path), read_json(card)
    if stored.get("tensors_sha256") != sha256(content):
        raise InputError(f"{path} does not belong to {card.name} or is damaged; delete both and make them again")
    try:
        return load(content), stored["about"]
    except (SafetensorError, KeyError) as error:
        raise damaged(path) from error


def has_tensors(path: str | Path) -> bool:
    """Whether `save_tensors` was completed for this path."""
    path, card, _ = _names(path)
    _settle(path)
    return path.exists() or card.exists()


def _names(path: str | Path) -> tuple[Path, Path, Path]:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path} does not end in .safetensors; name it {path.with_suffix('.safetensors').name}")
    return path, path.with_suffix(".json"), path.with_name(f".{path.name}.next")


def _settle(path: Path) -> None:
    """Finish a save that was cut off after its card was written."""
    path, card, waiting = _names(path)
    if waiting.exists() and card.exists() and read_json(card).get("tensors_sha256") == sha256(read_bytes(waiting)):
        os.replace(waiting, path)


def _render(value: Mapping[str, Any]) -> str:
    if "sha256" in value:
        raise InputError("the key 'sha256' of a JSON file is taken by its own digest; choose another name")
    body = json.dumps(value, indent=1)
    return json.dumps({**value, "sha256": sha256(body)}, indent=1) + "\n"


def damaged(path: str | Path) -> InputError:
    return InputError(f"{path} is damaged, cut short or was edited; delete it and make it again")
