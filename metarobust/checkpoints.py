"""Where an unfinished meta-training stands: one file of tensors, the old one or the new one at any moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metarobust.errors import InputError
from metarobust.storage import load_tensors, save_tensors


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object], spec_sha256: str) -> None:
    """Stores tensors and a JSON object about them, of the run with this specification, in place of those before."""
    save_tensors(path, tensors, {**about, "spec_sha256": spec_sha256})


def load(path: Path, spec_sha256: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save` stored, None where there is nothing. Raises InputError where it is damaged or of another run."""
    if not path.exists():
        return None
    tensors, about = load_tensors(path)
    if about.pop("spec_sha256", None) != spec_sha256:
        raise InputError(f"{path} is of another run; delete it and give --resume")
    return tensors, about
