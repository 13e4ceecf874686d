"""Where an unfinished meta-training stands, in one file that is the old one or the new one at any moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metarobust.errors import InputError
from metarobust.storage import load_tensors, save_tensors


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object], spec_sha256: str) -> None:
    """Stores a checkpoint in place of the one before.

    Args:
        path: `NAME.safetensors`.
        tensors: What to go on with, by name.
        about: A JSON object that goes with them.
        spec_sha256: Tells the run apart, so that no other goes on from here.
    """
    save_tensors(path, tensors, {**about, "spec_sha256": spec_sha256})


def load(path: Path, spec_sha256: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save` stored of this run, or None where there is nothing.

    Raises:
        InputError: The file is damaged, of another run, or in the layout before version 0.2.
    """
    if not path.exists():
        before = path.with_name(f"{path.stem}.0.json")  # version 0.1 wrote two in turn, each with a card beside it
        if before.exists():
            raise InputError(f"{before} is of metarobust 0.1; go on with that version, or begin in another folder")
        return None
    tensors, about = load_tensors(path)
    if about.pop("spec_sha256", None) != spec_sha256:
        raise InputError(f"{path} is of another run; delete it and give --resume")
    return tensors, about
