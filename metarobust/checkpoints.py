"""The last two checkpoints of something unfinished, so that a damaged one costs a few steps and not the run.

NAME.0.safetensors, NAME.1.safetensors    tensors, each with its sealed card beside it, see `metarobust.storage`

They are written in turn, each a whole pair of files or none, so that a kill at any moment leaves a checkpoint to go on
from. One that is damaged, cut short or of another specification is refused with a line, and the one before it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from metarobust.errors import InputError
from metarobust.storage import has_tensors, load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    Stored = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """Checkpoints called `name` in a folder, of one specification. spec: its SHA-256; any text that tells it apart."""

    def __init__(self, folder: Path | str, name: str, spec: str):
        self.paths = [Path(folder) / f"{name}.{slot}.safetensors" for slot in (0, 1)]
        self._spec = spec
        self._last: tuple[int, int] | None = None  # slot and number of the one read or written last

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Stores one in place of the one before the last, or of one that is refused.

        about: a JSON object. Raises InputError where the disk refuses, as `storage.write_atomic` does.
        """
        if self._last is None:
            usable, _ = self._read()
            self._last = max(usable, key=lambda at: at[1], default=(1, 0))
        slot, number = 1 - self._last[0], self._last[1] + 1
        try:
            has_tensors(self.paths[slot])
        except InputError:  # a damaged card would be in the way
            for path in (self.paths[slot], self.paths[slot].with_suffix(".json")):
                path.unlink(missing_ok=True)
        save_tensors(self.paths[slot], tensors, {**about, "spec_sha256": self._spec, "number": number})
        self._last = slot, number

    def load(self) -> Stored | None:
        """The tensors and `about` of the last one that can be used, or None where there is none at all.

        Raises InputError where there are some, and none can be used.
        """
        usable, refused = self._read()
        if not usable:
            if refused:
                raise InputError(refused[0])
            return None
        self._last = max(usable, key=lambda at: at[1])
        for reason in refused:  # without what to do about it: it is done
            tqdm.write(f"{reason.partition(';')[0]}: going on from {self.paths[self._last[0]].name}", sys.stderr)
        return usable[self._last]

    def _read(self) -> tuple[dict[tuple[int, int], Stored], list[str]]:
        """Those that can be used, by slot and number, and for each of the others a line that says why not."""
        usable, refused = {}, []
        for slot, path in enumerate(self.paths):
            try:
                if not has_tensors(path):
                    continue
                tensors, about = load_tensors(path)
                if about.pop("spec_sha256", None) != self._spec:
                    raise InputError(f"{path} is of another run; delete it and give --resume")
                usable[slot, about.pop("number")] = tensors, about
            except InputError as error:
                refused.append(str(error))
        return usable, refused
