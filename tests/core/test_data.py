"""The data sets: exact pixels, fixed splits, and one clear line for whatever is wrong with a file."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarobust import data
from metarobust.data import Dataset, Split
from metarobust.errors import InputError, choose

ROOT = Path(__file__).parents[2]


def split(n=6, kinds=3, **changes):
    images = torch.linspace(0, 1, n * 4).reshape(n, 1, 2, 2)
    return Split(**({"images": images, "labels": torch.arange(n) % kinds} | changes))


def idx(values):
    values = np.asarray(values, np.uint8)
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A root with a tiny MNIST: the folder of its files, the pixels and labels by part."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    parts = {}
    for part, n in (("train", 7), ("t10k", 3)):
        parts[part] = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        for kind, values in zip(("images-idx3", "labels-idx1"), parts[part], strict=True):
            (raw / f"{part}-{kind}-ubyte").write_bytes(idx(values))
    return raw, parts


@pytest.fixture
def no_network(monkeypatch):
    calls = []

    def refuse(*arguments, **options):
        calls.append(arguments)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return calls


@pytest.fixture
def pictures(tmp_path):
    """A tiny image folder: two classes, 3 images each to train on, 1 each to test on, 5 wide and 4 high."""
    rng = np.random.default_rng(1)
    for part, n in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(6, 4)}, ["[6, 4]", "[n, channels, height, width]"]),
        ({"images": torch.zeros(0, 1, 2, 2), "labels": torch.zeros(0).long()}, ["[0, 1, 2, 2]"]),
        ({"images": torch.zeros(6, 1, 2, 2, dtype=torch.uint8)}, ["uint8", "divide by 255"]),
        ({"images": torch.full((6, 1, 2, 2), 255.0)}, ["255", "[0, 1]"]),
        ({"images": torch.full((6, 1, 2, 2), -0.01)}, ["-0.01", "[0, 1]"]),
        ({"images": torch.full((6, 1, 2, 2), float("nan"))}, ["nan", "[0, 1]"]),
        ({"labels": torch.zeros(6)}, ["float32", "int64"]),
        ({"labels": torch.zeros(5).long()}, ["[5]", "[6]"]),
        ({"labels": torch.full((6,), -1)}, ["-1", "classes count from 0"]),
    ],
)
def test_a_split_refuses_bad_tensors(changes, words):
    with pytest.raises(InputError) as error:
        split(**changes)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_a_split_takes_the_ends_of_the_ranges():
    whole = split(images=torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), labels=torch.tensor([0, 2]))
    assert len(whole) == 2


def test_a_batch_is_an_index():
    whole = split()
    batch = whole[torch.tensor([4, 1])]
    assert isinstance(batch, Split)
    assert torch.equal(batch.images, torch.stack([whole.images[4], whole.images[1]]))
    assert batch.labels.tolist() == [1, 1]
    assert whole.to("meta").images.device.type == "meta"


def test_a_data_set_refuses_unequal_shapes_and_labels_out_of_range():
    with pytest.raises(InputError, match=r"\[1, 2, 2\].*\[1, 3, 3\]"):
        Dataset("d", split(), split(images=torch.zeros(6, 1, 3, 3)), 3, "")
    with pytest.raises(InputError, match="a label is 2; give 0 to 1"):
        Dataset("d", split(kinds=2), split(kinds=3), 2, "")


def test_digits_are_the_fixed_split_of_the_real_ones():
    digits = data.load("digits")
    assert (digits.shape, digits.classes, len(digits.train), len(digits.test)) == ((1, 8, 8), 10, 1297, 500)
    assert digits.test.labels.bincount().tolist() == [50] * 10
    # The split is part of what "digits" means: recorded results hold for these bytes only.
    assert digits.sha256 == "ef37b5bdccc412feb8dbdcff9b41eec65adc43800cd48c331b56825f56487664"
    from sklearn.datasets import load_digits

    pixels = torch.cat([digits.train.images, digits.test.images]).flatten(1).mul(16).int().tolist()
    labels = torch.cat([digits.train.labels, digits.test.labels]).tolist()
    expected = zip(load_digits().data.astype(int).tolist(), load_digits().target.tolist(), strict=True)
    assert sorted(zip(pixels, labels, strict=True)) == sorted(expected)


def test_mnist_files_are_read_as_they_are_and_left_alone(mnist, no_network):
    raw, parts = mnist
    before = {path: path.stat().st_mtime_ns for path in raw.parents[1].rglob("*")}
    os.chmod(raw, 0o555)
    loaded = data.load("mnist", raw.parents[1])
    os.chmod(raw, 0o755)
    for part, name in ((loaded.train, "train"), (loaded.test, "t10k")):
        images, labels = parts[name]
        assert torch.equal(part.images, torch.tensor(images).unsqueeze(1) / 255)
        assert torch.equal(part.labels, torch.tensor(labels).long())
        assert part.images.dtype == torch.float32
    assert {path: path.stat().st_mtime_ns for path in raw.parents[1].rglob("*")} == before
    assert not no_network


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: content[:4] + b"\xff" * 4 + content[8:],
        lambda content: idx([0, 1, 10]),
    ],
)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_mnist_file_is_refused(mnist, no_network, damage, file):
    path = mnist[0] / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"'mnist' cannot be read from .*delete the folder if it is damaged") as error:
        data.load("mnist", path.parents[2])
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_a_missing_data_set_without_a_network_says_what_to_do(tmp_path, no_network, name, folder):
    with pytest.raises(InputError) as error:
        data.load(name, tmp_path)
    line = str(error.value)
    assert no_network, "no download was tried"
    assert "\n" not in line
    for word in (name, str(tmp_path / folder), "--data", "METAROBUST_DATA", "'digits'", "resolution"):
        assert word in line
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A root with a tiny CIFAR-10, and its training pixels [2, 3, 32, 32]."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(2)

    def store(name, content):
        (folder / name).write_bytes(pickle.dumps(content, 2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    pixels = rng.integers(0, 256, (2, 3, 32, 32), np.uint8)
    batches = [
        store(name, {"data": pixels.reshape(2, -1) ^ flip, "labels": [3, 9]})
        for name, flip in (("data_batch_1", 0), ("test_batch", 255))
    ]
    meta = store("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", batches[:1])
    monkeypatch.setattr(CIFAR10, "test_list", batches[1:])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "md5": meta[1], "key": "label_names"})
    return tmp_path, pixels


def test_cifar10_pixels_and_labels(cifar, no_network):
    root, pixels = cifar
    loaded = data.load("cifar10", root)
    assert torch.equal(loaded.train.images, torch.tensor(pixels) / 255)
    assert torch.equal(loaded.test.images, torch.tensor(pixels ^ 255) / 255)
    assert loaded.test.labels.tolist() == [3, 9]
    assert not no_network


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch"])
def test_a_damaged_cifar10_file_is_never_unpickled(cifar, no_network, file, monkeypatch):
    path = cifar[0] / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled a damaged file"))
    with pytest.raises(InputError, match=r"'cifar10' cannot be read from .*cifar-10-batches-py"):
        data.load("cifar10", cifar[0])


def test_a_folder_of_images_gives_their_pixels(pictures):
    loaded = data.load(f"folder:{pictures}")
    assert (loaded.shape, loaded.classes, len(loaded.train), len(loaded.test)) == ((3, 4, 5), 2, 6, 2)
    # Mixed, since the first part of a folder's own order is of one class; and the same each time.
    assert sorted(loaded.train.labels.tolist()) == [0, 0, 0, 1, 1, 1] != loaded.train.labels.tolist()
    assert data.load(f"folder:{pictures}").sha256 == loaded.sha256
    for label, name in enumerate(("cat", "dog")):
        files = sorted((pictures / "train" / name).iterdir())
        expected = {torch.tensor(np.asarray(Image.open(file))).permute(2, 0, 1).numpy().tobytes() for file in files}
        found = loaded.train.images[loaded.train.labels == label].mul(255).round().byte()
        assert {image.numpy().tobytes() for image in found} == expected


def test_a_folder_of_grey_images_has_one_channel(pictures):
    for path in pictures.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    loaded = data.load(f"folder:{pictures}")
    expected = torch.tensor(np.asarray(Image.open(pictures / "test" / "cat" / "0.png"))) / 255
    assert torch.equal(loaded.test.images[loaded.test.labels == 0], expected[None, None])


def remove(path):
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "test").rename(path / "tset"), ["test", "No such file", "CLASS"]),
        (lambda path: remove(path / "test" / "dog"), ["'dog'", "only one of train/ and test/"]),
        (lambda path: (path / "train" / "dog" / "1.png").write_bytes(b"no"), ["1.png", "delete it"]),
        (lambda path: cut(path / "train" / "dog" / "1.png"), ["1.png", "delete it"]),
        (lambda path: (path / "test" / "emu").mkdir(), ["emu", "delete empty folders"]),
        (lambda path: picture(path, (6, 4), "RGB"), ["0.png", "6x4", "5x4", "make all images alike"]),
        (lambda path: picture(path, (5, 4), "L"), ["0.png", "grey", "make all images alike"]),
        (lambda path: picture(path, (5, 4), "I;16"), ["0.png", "more than 8 bits"]),
    ],
)
def test_a_bad_folder_of_images_is_refused(pictures, damage, words):
    damage(pictures)
    with pytest.raises(InputError) as error:
        data.load(f"folder:{pictures}")
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def picture(path, size, mode):
    Image.new(mode, size).save(path / "test" / "dog" / "0.png")


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("name", ["minst", "", "folder:", "MNIST"])
def test_an_unknown_data_set_lists_the_known_ones(name):
    with pytest.raises(InputError) as error:
        data.load(name)
    assert repr(name) in str(error.value)
    assert all(known in str(error.value) for known in ("digits", "mnist", "fashion-mnist", "cifar10", "folder:PATH"))


def test_choose_suggests_the_nearest():
    assert choose("mnist", data.SUMMARIES, "data set") == "mnist"
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        choose("minst", data.SUMMARIES, "data set")
    with pytest.raises(InputError, match=r"choose one of a, b$"):
        choose("zzz", ["a", "b"], "thing")


def test_where_data_is_looked_for(monkeypatch, tmp_path, mnist):
    monkeypatch.setenv("METAROBUST_DATA", str(mnist[0].parents[1]))
    assert len(data.load("mnist").train) == 7
    monkeypatch.setenv("METAROBUST_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data.default_root() == tmp_path / "cache" / "metarobust"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.default_root() == tmp_path / ".cache" / "metarobust"


def test_a_balanced_draw_is_seeded_and_nested():
    train = data.load("digits").train

    def draw(per_class, seed):
        return data.balanced(train.labels, per_class, torch.Generator().manual_seed(seed))

    large, small = draw(20, 0), draw(5, 0)
    assert train.labels[large].bincount().tolist() == [20] * 10
    assert len(set(large.tolist())) == 200
    assert set(small.tolist()) < set(large.tolist())
    assert torch.equal(draw(5, 0), small)
    assert not torch.equal(draw(5, 1), small)
    assert train.labels[small].tolist() != sorted(train.labels[small].tolist()), "mixed"


@pytest.mark.parametrize("per_class", [0, -1, 3])
def test_a_balanced_draw_says_how_many_there_are(per_class):
    few = split(labels=torch.tensor([0, 0, 0, 1, 1, 0]))
    with pytest.raises(InputError, match=rf"{per_class}; give 1 to 2.*rarest class, 1,"):
        data.balanced(few.labels, per_class, torch.Generator())


def test_importing_the_package_is_light():
    """It takes torch, numpy, safetensors and tqdm; what reads data sets is loaded with the first of them."""
    heavy = "{'torchvision', 'sklearn', 'pandas', 'matplotlib', 'scipy', 'joblib', 'IPython'}"
    code = f"import sys, metarobust, metarobust.meta; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "\n"
