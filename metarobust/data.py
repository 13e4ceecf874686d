"""Images and labels as tensors on the device: a batch is an index.

    data = load("digits")
    batch = data.train[torch.randperm(len(data.train), generator=rng)[:64]]

Images are float32 in [0, 1] (normalisation lives inside the model), so an attack's eps is in pixel units.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from metarobust import readers
from metarobust.attacks.inputs import check_inputs
from metarobust.errors import InputError, choose

SUMMARIES = {
    "digits": "1,797 handwritten digits, 8x8, grey, 10 classes; embedded, no download",
    "mnist": "70,000 handwritten digits, 28x28, grey, 10 classes; downloaded",
    "fashion-mnist": "70,000 pieces of clothing, 28x28, grey, 10 classes; downloaded",
    "cifar10": "60,000 photographs, 32x32, colour, 10 classes; downloaded",
    "folder:PATH": "your own images of one size, in PATH/train/CLASS and PATH/test/CLASS",
}
"""What `load` knows, in a line each."""


@dataclass(frozen=True)
class Split:
    """Images `[n, C, H, W]`, floating point in [0, 1], and their labels `[n]`, int64, from 0.

    Raises InputError on construction for any other shape, type or range.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape:
            shape = list(self.images.shape)
            raise InputError(f"images have shape {shape}; give [n, channels, height, width], none of them 0")
        check_inputs(self.images, self.labels, eps=0, norm="linf")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        """The images and labels at `index`, an int64 tensor `[b]` or a slice."""
        return self._unchecked(self.images[index], self.labels[index])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> "Split":
        return self._unchecked(self.images.to(device), self.labels.to(device))

    @staticmethod
    def _unchecked(images: Tensor, labels: Tensor) -> "Split":
        # A part of a checked split is sound, and checking it would make the device wait at every batch.
        split = object.__new__(Split)
        object.__setattr__(split, "images", images)
        object.__setattr__(split, "labels", labels)
        return split


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of equal image shape, and the SHA-256 of their tensors' bytes.

    root: as given to `load`, so that what needs another data set beside this one finds it in the same place. Raises
    InputError on construction where the shapes differ or a label is not below `classes`.
    """

    name: str
    train: Split
    test: Split
    classes: int
    sha256: str
    root: Path | None = None

    def __post_init__(self) -> None:
        train, test = list(self.train.shape), list(self.test.shape)
        if train != test:
            raise InputError(
                f"data set {self.name!r}: training images are {train}, test images {test}: make them equal"
            )
        high = max(int(split.labels.max()) for split in (self.train, self.test))
        if high >= self.classes:
            raise InputError(f"data set {self.name!r}: a label is {high}; give 0 to {self.classes - 1}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return self.train.shape

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(name: str, root: str | Path | None = None, device: torch.device | str = "cpu") -> Dataset:
    """Loads a data set.

    Args:
        name: `digits`, `mnist`, `fashion-mnist`, `cifar10` or `folder:PATH`.
        root: the folder torchvision's files are in or go to; `default_root()` if None. A missing data set is
            downloaded; one that is complete is only read. `digits` needs no files.
        device: where its tensors go.

    Raises:
        InputError: the name is unknown, or a file is missing or damaged; says which, and the remedy.
    """
    check_name(name)
    root = default_root() if root is None else Path(root).expanduser()
    if name == "digits":
        train, test, classes = readers.digits()
    elif ":" not in name:
        train, test, classes = readers.downloaded(name, root)
    else:
        train, test, classes = readers.image_folder(Path(name.removeprefix("folder:")).expanduser())
    return Dataset(name, Split(*train), Split(*test), classes, _sha256(*train, *test), root).to(device)


def check_name(name: str) -> str:
    """Returns `name` if `load` knows it; raises InputError otherwise."""
    kind, _, path = name.partition(":")
    return name if kind == "folder" and path else choose(name, SUMMARIES, "data set")


def default_root() -> Path:
    """METAROBUST_DATA, else `metarobust` in the user's cache folder."""
    if given := os.environ.get("METAROBUST_DATA"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarobust"


def balanced(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """The indices `[per_class * classes]` of `per_class` images of each class 0, 1, ..., max(labels), mixed.

    Drawn without replacement. The same seed with a smaller `per_class` gives a subset of the larger draw.

    Raises:
        InputError: a class has fewer images than that.
    """
    known = labels.cpu()
    counts = known.bincount()
    if per_class < 1 or per_class > counts.min():
        raise InputError(
            f"per_class is {per_class}; give 1 to {counts.min()}, "
            f"as many images as the rarest class, {counts.argmin()}, has"
        )
    order = torch.randperm(len(known), generator=generator, device=generator.device).cpu()
    drawn = [(known[order] == k).nonzero()[:per_class, 0] for k in range(len(counts))]
    return order[torch.cat(drawn).sort().values].to(labels.device)


def _sha256(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
