"""Files are whole or absent: any changed byte is refused, and a failed write leaves what was there before."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import subprocess

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarobust import storage
from metarobust.errors import InputError
from metarobust.storage import (
    has_tensors,
    load_tensors,
    read_json,
    save_tensors,
    sha256,
    write_atomic,
    write_json,
)

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSORS = {"theta": torch.tensor([[1.0, 2.0], [3.0, 4.5]]), "step": torch.tensor(7)}
ABOUT = {"trained on": "digits", "loss": 0.1}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Thousands of small files are written here: no waiting for the disk."""
    monkeypatch.setattr(storage.os, "fsync", lambda file: None)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def flipped(content, position, change):
    position %= len(content)
    return content[:position] + bytes([content[position] ^ change]) + content[position + 1 :]


# --- reading back


@pytest.mark.parametrize("content", [b"", b"\0\xff", "text é"])
def test_an_atomic_write_holds_the_content_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "new folder" / "file"
    write_atomic(path, "before")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["file", "new folder"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@QUICK
@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), json_values))
def test_json_round_trip(tmp_path, value):
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_json_keeps_nan_and_its_own_key(tmp_path):
    write_json(tmp_path / "a.json", {"loss": math.nan, "top": math.inf})
    loss, top = read_json(tmp_path / "a.json").values()
    assert math.isnan(loss)
    assert top == math.inf
    with pytest.raises(InputError, match="'sha256'"):
        write_json(tmp_path / "b.json", {"sha256": "mine"})


def test_tensors_round_trip_with_slices_of_one_vector(tmp_path):
    vector = torch.arange(6.0, dtype=torch.float64)
    tensors = {"a": vector[:2], "b": vector[1:5], "c": vector[2:].reshape(2, 2).t(), **TENSORS}
    save_tensors(tmp_path / "theta.safetensors", tensors, ABOUT)
    loaded, about = load_tensors(tmp_path / "theta.safetensors")
    assert about == ABOUT
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert all(loaded[name].dtype == tensors[name].dtype for name in tensors)
    assert names(tmp_path) == ["theta.json", "theta.safetensors"]
    assert read_json(tmp_path / "theta.json")["shapes"] == {k: list(v.shape) for k, v in tensors.items()}


def test_tensors_need_the_right_ending(tmp_path):
    with pytest.raises(InputError, match=r"theta\.pt.*theta\.safetensors"):
        save_tensors(tmp_path / "theta.pt", TENSORS, ABOUT)


# --- refusing what is damaged


def store(folder):
    """Write one file of each kind; how to read each back."""
    write_json(folder / "a.json", {"rows": [1, 0.5, "é"]})
    save_tensors(folder / "theta.safetensors", TENSORS, ABOUT)
    return {
        "a.json": lambda: read_json(folder / "a.json"),
        "theta.safetensors": lambda: load_tensors(folder / "theta.safetensors"),
        "theta.json": lambda: load_tensors(folder / "theta.safetensors"),
    }


FILES = ("a.json", "theta.safetensors", "theta.json")


@pytest.mark.parametrize("file", FILES)
@QUICK
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_is_refused(tmp_path, file, position, change):
    read = store(tmp_path)[file]
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(flipped(content, position, change))
    with pytest.raises(InputError) as error:
        read()
    assert str(tmp_path / file.partition(".")[0]) in str(error.value)
    assert "delete" in str(error.value)


@pytest.mark.parametrize("file", FILES)
def test_any_shorter_file_is_refused(tmp_path, file):
    read = store(tmp_path)[file]
    content = (tmp_path / file).read_bytes()
    for length in range(len(content)):
        (tmp_path / file).write_bytes(content[:length])
        with pytest.raises(InputError, match="damaged"):
            read()
    (tmp_path / file).write_bytes(content + b"\n")
    with pytest.raises(InputError):
        read()
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match="missing"):
        read()
    (tmp_path / file).mkdir()
    with pytest.raises(InputError, match="cannot read"):
        read()


def test_tensors_of_another_card_are_refused(tmp_path):
    path = tmp_path / "theta.safetensors"
    save_tensors(path, {"theta": torch.zeros(2)}, ABOUT)
    old = path.read_bytes()
    save_tensors(path, {"theta": torch.ones(2)}, ABOUT)
    path.write_bytes(old)
    with pytest.raises(InputError, match=r"does not belong to theta\.json"):
        load_tensors(path)


def test_a_json_file_is_no_card(tmp_path):
    save_tensors(tmp_path / "theta.safetensors", TENSORS, ABOUT)
    write_json(tmp_path / "theta.json", {"about": ABOUT})
    with pytest.raises(InputError, match="does not belong"):
        load_tensors(tmp_path / "theta.safetensors")


# --- failing writes


class Killed(BaseException):
    """Stands for a kill: the process does nothing more."""


def save_and_die(path, step, k, monkeypatch):
    """Save a checkpoint and be killed at the k-th moment: before and after each replacement, in turn."""
    moments, real = iter(range(100)), os.replace

    def replace(source, target):
        if next(moments) == k:
            raise Killed
        real(source, target)
        if next(moments) == k:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", replace)
        patch.setattr(storage.Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
        with pytest.raises(Killed):
            save_tensors(path, {"theta": torch.full((2,), float(step))}, {"step": step})


@pytest.mark.parametrize("second", [None, 0, 1, 2, 3])
@pytest.mark.parametrize(("first", "expected"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)])
def test_a_kill_while_tensors_are_saved_leaves_the_old_or_the_new_pair(tmp_path, monkeypatch, first, second, expected):
    path = tmp_path / "theta.safetensors"
    save_tensors(path, {"theta": torch.zeros(2)}, {"step": 0})
    save_and_die(path, 1, first, monkeypatch)
    if second is not None:  # and once more, without a look at what the first kill left
        save_and_die(path, 2, second, monkeypatch)
    for _ in range(2):
        tensors, about = load_tensors(path)
        assert tensors["theta"].tolist() == [about["step"]] * 2
        assert about["step"] in ({expected} if second is None else {expected, 2})
    save_tensors(path, {"theta": torch.full((2,), 3.0)}, {"step": 3})
    assert load_tensors(path)[1] == {"step": 3}


def test_the_first_save_counts_only_when_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "theta.safetensors"
    assert not has_tensors(path)
    save_and_die(path, 0, 1, monkeypatch)
    assert not has_tensors(path)
    save_and_die(path, 0, 3, monkeypatch)
    assert has_tensors(path)
    assert load_tensors(path)[1] == {"step": 0}


def test_tensors_whose_card_cannot_be_written_leave_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("no room")

    monkeypatch.setattr(storage, "write_json", fail)
    with pytest.raises(InputError, match="no room"):
        save_tensors(tmp_path / "theta.safetensors", TENSORS, ABOUT)
    assert names(tmp_path) == []


@contextlib.contextmanager
def failing_fsync(folder, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", fail)
        yield


@contextlib.contextmanager
def failing_replace(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", fail)
        yield


@contextlib.contextmanager
def file_size_limit(folder, monkeypatch):
    """The operating system refuses a file of more than 10 bytes, without any special right."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def no_write_permission(folder, monkeypatch):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("failure", [failing_fsync, failing_replace, file_size_limit, no_write_permission])
@pytest.mark.parametrize("kind", ["atomic", "json", "tensors"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, failure, kind):
    write = {
        "atomic": lambda old: write_atomic(tmp_path / "a", "old" if old else "new" * 100),
        "json": lambda old: write_json(tmp_path / "a", {"old": old}),
        "tensors": lambda old: save_tensors(tmp_path / "a.safetensors", TENSORS, {"old": old}),
    }[kind]
    for before in (False, True):
        if before:
            write(True)
        files = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with failure(tmp_path, monkeypatch), pytest.raises(InputError) as error:
            write(False)
        assert str(tmp_path / "a") in str(error.value) or str(tmp_path / ".a") in str(error.value)
        assert "\n" not in str(error.value)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_and_a_read_only_disk(tiny_disk):
    write_atomic(tiny_disk / "a", "old")
    with pytest.raises(InputError, match=f"cannot write {tiny_disk / 'a'}: No space left on device"):
        write_atomic(tiny_disk / "a", b"x" * 100_000)
    path = tiny_disk / "theta.safetensors"
    with pytest.raises(InputError, match="No space left"):
        save_tensors(path, {"theta": torch.zeros(30_000)}, ABOUT)
    save_tensors(path, TENSORS, ABOUT)
    assert names(tiny_disk) == ["a", "theta.json", "theta.safetensors"]
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(InputError, match=f"cannot write {tiny_disk / 'a'}: Read-only file system"):
        write_atomic(tiny_disk / "a", "new")
    assert load_tensors(path)[1] == ABOUT
    assert (tiny_disk / "a").read_text() == "old"
    assert names(tiny_disk) == ["a", "theta.json", "theta.safetensors"]


def test_sha256_of_text_and_bytes():
    assert sha256("abc") == sha256(b"abc")
    assert sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
