"""Files are whole or absent: what cannot be read is refused, and a failed write leaves what was there before."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarobust import storage
from metarobust.errors import InputError
from metarobust.storage import load_tensors, read_bytes, read_json, save_tensors, sha256, write_atomic, write_json

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENSORS = {"theta": torch.tensor([[1.0, 2.0], [3.0, 4.5]]), "step": torch.tensor(7)}
ABOUT = {"trained on": "digits", "loss": 0.1}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Many small files are written here: no waiting for the disk."""
    monkeypatch.setattr(storage.os, "fsync", lambda file: None)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"\0\xff", "text é"])
def test_an_atomic_write_holds_the_content_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "new folder" / "file"
    write_atomic(path, "before")
    write_atomic(path, content)
    assert read_bytes(path) == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["file", "new folder"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@QUICK
@given(st.dictionaries(st.text(), json_values))
def test_json_round_trip(tmp_path, value):
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_json_keeps_nan_and_infinities(tmp_path):
    write_json(tmp_path / "a.json", {"loss": math.nan, "top": math.inf})
    loss, top = read_json(tmp_path / "a.json").values()
    assert math.isnan(loss)
    assert top == math.inf


def test_tensors_round_trip_with_slices_of_one_vector(tmp_path):
    vector = torch.arange(6.0, dtype=torch.float64)
    tensors = {"a": vector[:2], "b": vector[1:5], "c": vector[2:].reshape(2, 2).t(), **TENSORS}
    for about in (ABOUT, None):
        save_tensors(tmp_path / "theta.safetensors", tensors, about)
        loaded, stored = load_tensors(tmp_path / "theta.safetensors")
        assert stored == (about or {})
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
        assert all(loaded[name].dtype == tensors[name].dtype for name in tensors)
    assert names(tmp_path) == ["theta.safetensors"]


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda path: write_json(path, {"rows": [1, 0.5, "é"]}), read_json),
        (lambda path: save_tensors(path, TENSORS, ABOUT), load_tensors),
    ],
    ids=["json", "tensors"],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, write, read):
    path = tmp_path / "file"
    write(path)
    content = path.read_bytes()
    for length in range(len(content) - 1):  # the last byte of a JSON file is a line feed
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"file is damaged.*delete it"):
            read(path)
    path.unlink()
    with pytest.raises(InputError, match="file is missing"):
        read(path)
    path.mkdir()
    with pytest.raises(InputError, match="cannot read"):
        read(path)


@pytest.mark.parametrize("text", ["[1]", "3", "{}x", "[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        read_json(tmp_path / "a.json")


@contextlib.contextmanager
def failing(call, number, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, call, fail)
        yield


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (lambda patch: failing("fsync", errno.ENOSPC, patch), "No space left on device"),
        (lambda patch: failing("replace", errno.EROFS, patch), "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
@pytest.mark.parametrize(
    "write",
    [
        lambda path, old: write_atomic(path, "old" if old else "new" * 100),
        lambda path, old: write_json(path, {"old": old}),
        lambda path, old: save_tensors(path, TENSORS, {"old": old}),
    ],
    ids=["bytes", "json", "tensors"],
)
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, failure, says, write):
    path = tmp_path / "a"
    for before in (False, True):
        if before:
            write(path, True)
        files = {each: each.read_bytes() for each in tmp_path.iterdir()}
        with failure(monkeypatch), pytest.raises(InputError, match=f"cannot write {path}: {says}"):
            write(path, False)
        assert {each: each.read_bytes() for each in tmp_path.iterdir()} == files


class Bomb:
    """Whoever unpickles it has its folder made."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "torch.save"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, packed):
    path, goes_off = tmp_path / "theta.safetensors", tmp_path / "boom"
    torch.save(Bomb(goes_off), path) if packed else path.write_bytes(pickle.dumps(Bomb(goes_off)))
    for read in (load_tensors, read_json):
        with pytest.raises(InputError, match="damaged"):
            read(path)
    assert not goes_off.exists()
    torch.load(path, weights_only=False) if packed else pickle.loads(path.read_bytes())
    assert goes_off.exists(), "the bomb is none"


def test_sha256_of_text_and_bytes():
    assert sha256("abc") == sha256(b"abc")
    assert sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
