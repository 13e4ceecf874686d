"""Readers of the data sets: files to tensors, each file checked, a download where something is missing.

`metarobust.data.load` is the way in. A reader returns the training and the test part, each as images
[n, C, H, W], float32 in [0, 1], and labels [n], int64; and the number of classes. torchvision knows where the
files come from; the pixels go straight into one tensor, without a transform for each image.
"""

from __future__ import annotations

import math
import socket
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarobust.errors import InputError

Source = tuple[list[tuple[Tensor, Tensor]], int]


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits [1, 8, 8]: 50 of each class to test on, 1,297 to train on.

    There is no official split. This one mixes the writers: both parts hold digits of each hand.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # numpy promises that RandomState's numbers never change: the split is part of the data set's definition.
    chance = np.random.RandomState(0)
    order = torch.from_numpy(chance.permutation(len(labels)))
    images = torch.tensor(pixels, dtype=torch.float32).div_(16).reshape(-1, 1, 8, 8)[order]
    labels = torch.tensor(labels, dtype=torch.int64)[order]
    test = torch.zeros(len(labels), dtype=torch.bool)
    for k in range(10):
        test[(labels == k).nonzero()[:50, 0]] = True
    # Mixed again: with the first 50 of each class gone to the test part, the training part would begin without some.
    train = torch.from_numpy(chance.permutation(int((~test).sum())))
    return [(images[~test][train], labels[~test][train]), (images[test], labels[test])], 10


def mnist(name: str, root: Path) -> Source:
    kind = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    raw = root / kind / "raw"
    parts = [(raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]

    def download() -> None:
        from torchvision import datasets

        getattr(datasets, kind)(root, download=True)

    _ensure(name, [path for pair in parts for path in pair], download)
    splits = []
    for image_path, label_path in parts:
        images, labels = _read_idx(image_path, 3), _read_idx(label_path, 1)
        if len(images) != len(labels) or len(labels) == 0 or labels.max() > 9:
            raise _damaged(label_path)
        splits.append((images.unsqueeze(1).float().div_(255), labels.long()))
    return splits, 10


def _read_idx(path: Path, ndim: int) -> Tensor:
    """An IDX file of unsigned bytes: 0 0 8 ndim, then ndim big-endian int32 sizes, then the values."""
    content = path.read_bytes()
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        raise _damaged(path)
    shape = np.frombuffer(content, ">u4", ndim, 4).astype(int).tolist()
    if len(content) - start != math.prod(shape):
        raise _damaged(path)
    return torch.tensor(np.frombuffer(content, np.uint8, offset=start)).reshape(shape)


def cifar10(root: Path) -> Source:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = root / CIFAR10.base_folder
    meta = [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]
    files = {folder / file: md5 for file, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]}
    with warnings.catch_warnings():
        # The files were pickled long ago; numpy 2.4.0 warns of how they spell a dtype.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        _ensure("cifar10", list(files), lambda: CIFAR10(root, download=True))
        for path, md5 in files.items():
            if not check_integrity(path, md5):
                raise _damaged(path)
        parts = [CIFAR10(root, train=train) for train in (True, False)]
    return [(_pixels(part.data), torch.tensor(part.targets)) for part in parts], 10


def folder(path: Path) -> Source:
    """`path/train/CLASS/*` and `path/test/CLASS/*`, images of one size and one kind (grey or colour).

    They come mixed, in the same order each time: a folder's own order is one class after the other, and the first few
    thousand images would be of one class.
    """
    from torchvision.datasets import ImageFolder

    sources = []
    for part in ("train", "test"):
        if not (path / part).is_dir():
            raise InputError(
                f"data set 'folder:{path}': {path / part} is not a folder; put the images of class CLASS in "
                f"{path / 'train' / 'CLASS'} and {path / 'test' / 'CLASS'}"
            )
        try:
            sources.append(ImageFolder(path / part))
        except FileNotFoundError as error:  # a class without an image, or no class at all
            line = " ".join(str(error).split())
            raise InputError(f"data set 'folder:{path}': {line} Add images or delete the empty folder") from error
    train, test = sources
    if train.classes != test.classes:
        odd = sorted({*train.classes} ^ {*test.classes})
        raise InputError(f"data set 'folder:{path}': class {odd[0]!r} is in only one of train/ and test/")
    mode, size = _read_image(Path(train.samples[0][0]))[1:]
    for source in sources:
        order = np.random.RandomState(0).permutation(len(source.samples))
        source.samples = [source.samples[at] for at in order]
        source.targets = [label for _, label in source.samples]
    return [_read_folder(source, mode, size) for source in sources], len(train.classes)


def _read_folder(source: object, mode: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    from tqdm.auto import tqdm

    channels = 1 if mode == "L" else 3
    pixels = np.empty((len(source.samples), size[1], size[0], channels), np.uint8)
    # One thread on purpose: for small images a pool was measured to take twice as long.
    for i, (path, _) in enumerate(tqdm(source.samples, desc=f"read {source.root}", leave=False, delay=1)):
        values, found, found_size = _read_image(Path(path))
        if (found, found_size) != (mode, size):
            words = {"L": "grey", "RGB": "colour"}
            raise InputError(
                f"{path} is {words[found]}, {found_size[0]}x{found_size[1]} pixels, and the first image is "
                f"{words[mode]}, {size[0]}x{size[1]}; make all images alike"
            )
        pixels[i] = values.reshape(pixels[i].shape)
    return _pixels(pixels), torch.tensor(source.targets)


def _read_image(path: Path) -> tuple[np.ndarray, str, tuple[int, int]]:
    """An image file's bytes [H, W] or [H, W, 3], its kind, `L` or `RGB`, and (width, height)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8 bits")
            mode = "L" if image.mode in ("L", "1") else "RGB"
            return np.asarray(image.convert(mode)), mode, image.size
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG as a SyntaxError
        raise _damaged(path) from error


def _pixels(values: np.ndarray) -> Tensor:
    """Bytes [n, H, W, C] as float32 [n, C, H, W] in [0, 1]."""
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous().float().div_(255)


def _ensure(name: str, files: list[Path], download: Callable[[], object]) -> None:
    """Call `download` when a file is missing; raises InputError when it then cannot be had."""
    missing = [path for path in files if not path.is_file()]
    if not missing:
        return
    try:
        with _network_timeout(30):
            download()
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"data set {name!r}: {missing[0].name} was looked for in {missing[0].parent} and is missing, "
            f"and the download failed ({reason}); connect to the network, or name the folder that holds the "
            "files with --data or METAROBUST_DATA, or use the embedded data set 'digits'"
        ) from error


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    # torchvision sets none: behind a firewall that drops packets a download would hang for minutes.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged or cut short; delete it and run again")
