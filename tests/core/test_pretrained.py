"""The optimizers that come with the package: whole, trained, and refused when damaged."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from toy import scatter

from metarobust import pretrained
from metarobust.errors import InputError
from metarobust.learned import describe, make
from metarobust.learned.mlp import FeatureMLP
from metarobust.models import build
from metarobust.params import ParamSpec
from metarobust.storage import load_tensors, read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    *("patch", "patch-digits", "patch-digits-joint", "patch-digits-penalties", "patch-fashion-mnist"),
    *("patch-mnist", "patch-mnist-joint"),
    *("train", "train-digits", "train-digits-penalties", "train-digits-steering", "train-mnist"),
]


def test_names():
    assert pretrained.available() == NAMES
    assert {pretrained.TRAIN, pretrained.PATCH} <= set(NAMES)
    for wrong in ("patch-mnits", "../weights/patch-mnist", ""):
        with pytest.raises(InputError, match="choose one of patch, patch-digits"):
            pretrained.load(wrong)
    assert all(0 < len(summary) < 80 for summary in pretrained.summaries().values())


@pytest.mark.parametrize("name", NAMES)
def test_each_is_what_its_card_says_and_trained(name):
    chance = torch.get_rng_state()
    torch.set_default_dtype(torch.bfloat16)  # which no rule heeds
    try:
        optimizer, card = pretrained.load(name), pretrained.card(name)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(chance, torch.get_rng_state())
    assert describe(optimizer).items() <= card.items()
    stored = load_tensors(pretrained.FOLDER / f"{name}.safetensors")[0]
    assert all(torch.equal(p, stored[key]) and p.isfinite().all() for key, p in optimizer.named_parameters())
    untrained = make(card["kind"]).state_dict()
    assert any(not torch.equal(value, untrained[key]) for key, value in optimizer.state_dict().items())
    assert card["licence"] == "MIT"


@pytest.mark.parametrize(
    ("name", "network", "shape", "says"),
    [
        ("patch", "mlp-900-relu", (1, 8, 8), ""),
        ("patch", "mlp-32-relu", (1, 28, 28), ""),
        ("patch-digits-penalties", "mlp-32-relu", (1, 28, 28), "no network that reads images of 1 x 28 x 28:"),
        ("patch-mnist", "cnn-8-16-relu", (1, 28, 28), ""),
        ("train", "resnet-16-1-relu", (3, 8, 8), "train learned on no network that reads images of 3 x 8 x 8:"),
        ("train-digits-penalties", "gncnn-4-relu", (1, 8, 8), "on no network that normalises between its layers:"),
        ("train", "mlp-2000-relu", (1, 8, 8), "train learned on no network that has 150,010 parameters:"),
    ],
)
def test_it_says_whose_like_it_has_not_met(name, network, shape, says):
    found = pretrained.unfamiliar(name, ParamSpec.of(build(network, shape, 10)), shape)
    assert says in found
    assert bool(found) == bool(says)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the shipped files that may be damaged."""
    shutil.copytree(pretrained.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


def flip(folder):
    path = folder / "patch-mnist.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def change(folder, **entries):
    path = folder / "patch-mnist.json"
    write_json(path, read_json(path) | entries)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda folder: change(folder, hidden=8),
        lambda folder: change(folder, kind=None),
        lambda folder: change(folder, weights_sha256="0"),
        lambda folder: (folder / "patch-mnist.json").unlink(),
        lambda folder: (folder / "patch-mnist.json").write_text("{"),
    ],
)
def test_a_damaged_one_is_refused_and_the_others_are_not(copied, damage):
    damage(copied)
    with pytest.raises(InputError, match="'patch-mnist' is damaged; install metarobust anew"):
        pretrained.load("patch-mnist")
    pretrained.load("patch-digits")


def test_what_is_saved_is_loaded(tmp_path, monkeypatch):
    optimizer = scatter(FeatureMLP(hidden=4))
    pretrained.save(tmp_path / "mine.safetensors", optimizer.state_dict(), describe(optimizer) | {"summary": "mine"})
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    for p, q in zip(pretrained.load("mine").parameters(), optimizer.parameters(), strict=True):
        assert torch.equal(p, q)
    assert pretrained.summaries() == {"mine": "mine"}


def test_the_wheel_takes_them_along():
    """Both files of each are in the package's folder, which the wheel takes whole, and named besides."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["metarobust"]
    assert "metarobust/weights/**" in wheel["artifacts"]
    files = {path.name for path in pretrained.FOLDER.iterdir()}
    assert files == {f"{name}{ending}" for name in NAMES for ending in (".json", ".safetensors")}
