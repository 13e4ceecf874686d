"""Checkpoints read back, and what cannot be used is refused. Kills at random moments: `tests/lab/test_faults.py`."""

from __future__ import annotations

import pytest
import torch

from metarobust import checkpoints
from metarobust.errors import InputError

ABOUT = {"episode": 3, "log": [{"meta_loss": 0.5}]}


def content(number=1.0):
    return {"x": torch.full((3,), number, dtype=torch.float64), "count": torch.tensor(7)}


def test_a_checkpoint_reads_back_and_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "checkpoints" / "it.0.safetensors"
    assert checkpoints.load(path, "spec") is None
    for number in (1.0, 2.0):
        checkpoints.save(path, content(number), ABOUT, "spec")
        tensors, about = checkpoints.load(path, "spec")
        assert about == ABOUT
        assert all(torch.equal(tensors[name], value) for name, value in content(number).items())
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_one_that_cannot_be_used_is_refused(tmp_path):
    path = tmp_path / "it.safetensors"
    checkpoints.save(path, content(), ABOUT, "another")
    with pytest.raises(InputError, match=r"it\.safetensors is of another run; delete it"):
        checkpoints.load(path, "spec")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"it\.safetensors is damaged"):
        checkpoints.load(path, "another")
