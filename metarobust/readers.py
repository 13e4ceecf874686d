"""Readers of the data sets: files to tensors, with a download where something is missing.

`metarobust.data.load` is the way in. A reader returns the training and the test part, each as images `[n, C, H, W]`,
float32 in [0, 1], and labels `[n]`, int64; and the number of classes. The libraries that read are loaded when a data
set is, not with the package.
"""

import socket
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from metarobust.errors import InputError

Part = tuple[Tensor, Tensor]


def digits() -> tuple[Part, Part, int]:
    """scikit-learn's 1,797 handwritten digits `[1, 8, 8]`: 50 of each class to test on, 1,297 to train on.

    There is no official split. This one mixes the writers: both parts hold digits of each hand.
    """
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    # numpy promises that RandomState's numbers never change: the split is part of the data set's definition.
    rng = np.random.RandomState(0)
    order = torch.from_numpy(rng.permutation(len(classes)))
    images = torch.tensor(pixels, dtype=torch.float32).div_(16).reshape(-1, 1, 8, 8)[order]
    labels = torch.tensor(classes, dtype=torch.int64)[order]
    test = torch.zeros(len(labels), dtype=torch.bool)
    for k in range(10):
        test[(labels == k).nonzero()[:50, 0]] = True
    # Mixed again: with the first 50 of each class gone to the test part, the training part would begin without some.
    train = torch.from_numpy(rng.permutation(int((~test).sum())))
    return (images[~test][train], labels[~test][train]), (images[test], labels[test]), 10


def downloaded(name: str, root: Path) -> tuple[Part, Part, int]:
    """`mnist`, `fashion-mnist` or `cifar10`, read by torchvision; raises InputError where that fails."""
    from torchvision import datasets

    kind, folder = {
        "mnist": (datasets.MNIST, root / "MNIST" / "raw"),
        "fashion-mnist": (datasets.FashionMNIST, root / "FashionMNIST" / "raw"),
        "cifar10": (datasets.CIFAR10, root / "cifar-10-batches-py"),
    }[name]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: behind some firewalls a download would hang for minutes
    try:
        with warnings.catch_warnings():
            # CIFAR's files were pickled long ago; numpy 2.4 warns of how they spell a dtype.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            read = [kind(root, train=part, download=True) for part in (True, False)]
        train, test = (_of_ten(part.data, part.targets) for part in read)
    except Exception as error:  # whatever torchvision meets with, in files or on the way to them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"data set {name!r} cannot be read from {folder} ({reason}); connect to the network, and delete the folder "
            "if it is damaged; or name the one that holds MNIST/, ... with --data or METAROBUST_DATA; or use the "
            "embedded data set 'digits'"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return train, test, 10


def image_folder(path: Path) -> tuple[Part, Part, int]:
    """`path/train/CLASS/*` and `path/test/CLASS/*`, images of one size and one kind (grey or colour).

    They come mixed, in the same order each time: a folder's own order is one class after the other, and the first few
    thousand images would be of one class.
    """
    from torchvision.datasets import ImageFolder

    try:
        train, test = (ImageFolder(path / part) for part in ("train", "test"))
    except OSError as error:  # no folder, no class, or a class without an image
        raise InputError(
            f"data set 'folder:{path}': {' '.join(str(error).split())}: put the images of class CLASS in "
            f"{path / 'train' / 'CLASS'} and {path / 'test' / 'CLASS'}, and delete empty folders"
        ) from error
    if odd := sorted({*train.classes} ^ {*test.classes}):
        raise InputError(f"data set 'folder:{path}': class {odd[0]!r} is in only one of train/ and test/; give it both")
    first = _image(train.samples[0][0])
    return _read_mixed(train.samples, first), _read_mixed(test.samples, first), len(train.classes)


def _of_ten(data: Tensor | np.ndarray, targets: Tensor | list[int]) -> Part:
    """What torchvision has read, of ten classes."""
    images, labels = _pixels(torch.as_tensor(data)), torch.as_tensor(targets)
    if len(images) != len(labels) or not len(labels) or labels.max() > 9:
        raise ValueError(f"{len(labels)} labels up to {labels.max()} for {len(images)} images of 10 classes")
    return images, labels


def _read_mixed(samples: Sequence[tuple[str, int]], first: np.ndarray) -> Part:
    """The images of these files, in an order of their own, all like the first."""
    order, images = np.random.RandomState(0).permutation(len(samples)), []
    # One thread on purpose: for small images a pool was measured to take twice as long.
    for path, _ in tqdm([samples[at] for at in order], desc="read images", leave=False, delay=1):
        images.append(_image(path))
        if images[-1].shape != first.shape:
            raise InputError(
                f"{path} is {_words(images[-1])}, and the first image is {_words(first)}; make all images alike"
            )
    return _pixels(torch.from_numpy(np.stack(images))), torch.tensor([samples[at][1] for at in order])


def _image(path: str) -> np.ndarray:
    """The bytes of an image file: `[H, W]`, grey, or `[H, W, 3]`, colour."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8 bits")
            return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG as a SyntaxError
        raise InputError(f"{path} is damaged or cut short; delete it and run again") from error


def _words(image: np.ndarray) -> str:
    return f"{'grey' if image.ndim == 2 else 'colour'}, {image.shape[1]}x{image.shape[0]} pixels"


def _pixels(values: Tensor) -> Tensor:
    """Bytes `[n, H, W]` or `[n, H, W, C]` as float32 `[n, C, H, W]` in [0, 1]."""
    values = values.unsqueeze(-1) if values.ndim == 3 else values
    return values.permute(0, 3, 1, 2).contiguous().float().div_(255)
