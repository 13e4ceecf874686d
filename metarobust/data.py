"""Images and labels as tensors on the device: a batch is an index.

    data = load("digits")
    batch = data.train[torch.randperm(len(data.train), generator=rng)[:64]]

Images are float32 in [0, 1] (normalisation lives inside the model), so an attack's eps is in pixel units.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import InitVar, dataclass
from pathlib import Path

import torch
from torch import Tensor

from metarobust import sources
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
    """Images [n, C, H, W], floating point in [0, 1], and their labels [n], int64.

    Raises InputError on construction for any other shape, type or range. `classes`, where given, bounds the
    labels: 0 <= label < classes.
    """

    images: Tensor
    labels: Tensor
    classes: InitVar[int | None] = None

    def __post_init__(self, classes: int | None) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or 0 in images.shape:
            raise InputError(
                f"images have shape {list(images.shape)}; give [n, channels, height, width], none of them 0"
            )
        if not images.dtype.is_floating_point:
            raise InputError(f"images are {_plain(images.dtype)}; give float32 in [0, 1]: divide by 255")
        low, high = images.min().item(), images.max().item()
        if not (low >= 0 and high <= 1):  # this way round a NaN is refused too
            raise InputError(
                f"images lie in [{low:g}, {high:g}]; give [0, 1]: divide by the largest possible "
                "pixel value, and normalise inside the model"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InputError(
                f"labels are {_plain(labels.dtype)} of shape {list(labels.shape)}; "
                f"give int64 of shape [{len(images)}], one for each image"
            )
        _check_labels(labels, classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Split:
        """The images and labels at `index`, an int64 tensor [b] or a slice."""
        return self._unchecked(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Split:
        return self._unchecked(self.images.to(device), self.labels.to(device))

    @staticmethod
    def _unchecked(images: Tensor, labels: Tensor) -> Split:
        # A part of a checked split is sound, and checking it would make the device wait at every batch.
        split = object.__new__(Split)
        object.__setattr__(split, "images", images)
        object.__setattr__(split, "labels", labels)
        return split


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of equal image shape, and the SHA-256 of their tensors' bytes.

    root: as it was given to `load`, so that what needs another data set beside this one finds it in the same place.

    Raises InputError when the shapes differ or a label is not below `classes`.
    """

    name: str
    train: Split
    test: Split
    classes: int
    sha256: str
    root: Path | None = None

    def __post_init__(self) -> None:
        train, test = list(self.train.images.shape[1:]), list(self.test.images.shape[1:])
        if train != test:
            raise InputError(
                f"data set {self.name!r}: training images are {train} and test images {test}; make them equal"
            )
        _check_labels(self.train.labels, self.classes)
        _check_labels(self.test.labels, self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return tuple(self.train.images.shape[1:])

    def to(self, device: torch.device | str) -> Dataset:
        return Dataset(self.name, self.train.to(device), self.test.to(device), self.classes, self.sha256, self.root)


def load(name: str, root: str | Path | None = None, device: torch.device | str = "cpu") -> Dataset:
    """Load `digits`, `mnist`, `fashion-mnist`, `cifar10` or `folder:PATH`.

    root: the folder torchvision's files are in or go to; by default `default_root()`. A missing data set is
    downloaded; one that is complete is only read. `digits` needs no files.

    Raises InputError for an unknown name, and for a missing or damaged file, naming it and the remedy.
    """
    check_name(name)
    root = default_root() if root is None else Path(root).expanduser()
    if name.startswith("folder:"):
        tensors, classes = sources.folder(Path(name.removeprefix("folder:")).expanduser())
    elif name == "digits":
        tensors, classes = sources.digits()
    elif name == "cifar10":
        tensors, classes = sources.cifar10(root)
    else:
        tensors, classes = sources.mnist(name, root)
    train, test = (Split(images, labels, classes) for images, labels in tensors)
    return Dataset(name, train, test, classes, _sha256(train, test), root).to(device)


def check_name(name: str) -> str:
    """Return `name` if `load` knows it; raises InputError otherwise."""
    if name.startswith("folder:") and name != "folder:":
        return name
    return choose(name, SUMMARIES, "data set")


def default_root() -> Path:
    """METAROBUST_DATA, else `metarobust` in the user's cache folder."""
    if given := os.environ.get("METAROBUST_DATA"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarobust"


def balanced(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """The indices [per_class * classes] of `per_class` images of each class 0, 1, ..., max(labels), mixed.

    Drawn without replacement. The same generator seed with a smaller `per_class` gives a subset of the larger
    draw.

    Raises InputError when a class has fewer images than that.
    """
    here = labels.cpu()
    counts = here.bincount()
    if per_class < 1 or per_class > counts.min():
        raise InputError(
            f"per_class is {per_class}; give 1 to {counts.min()}, "
            f"as many images as the rarest class, {counts.argmin()}, has"
        )
    order = torch.randperm(len(here), generator=generator, device=generator.device).cpu()
    drawn = [(here[order] == k).nonzero()[:per_class, 0] for k in range(len(counts))]
    return order[torch.cat(drawn).sort().values].to(labels.device)


def low_data(split: Split, per_class: int, generator: torch.Generator) -> Split:
    """The `balanced` subset of a split. Raises InputError as `balanced` does."""
    return split[balanced(split.labels, per_class, generator)]


def _check_labels(labels: Tensor, classes: int | None) -> None:
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or (classes is not None and high >= classes):
        limit = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise InputError(f"labels lie in {low} to {high}; give {limit}, one number for each class")


def _sha256(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.images, split.labels):
            digest.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
            digest.update(tensor.numpy())
    return digest.hexdigest()


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
