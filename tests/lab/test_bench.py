"""The comparisons with other libraries: they run, say what is missing, and can be stored. No test looks at a time."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab.bench import BENCHES, attacks, libraries, optimizers, peers, record
from metarobust.lab.bench.libraries import PACKAGES, PGD, installed, need
from metarobust.lab.bench.models import images, module, train
from metarobust.lab.bench.record import interleaved

ROOT = Path(__file__).parents[2]
HERE = [name for name in PACKAGES if installed(name)]
RECORDED = sorted(folder.name for folder in record.FOLDER.iterdir())


@pytest.fixture(scope="module")
def usual():
    """A model that was trained as usual, and a few images."""
    return module("trained as usual", train("trained as usual")), images(20)


def gone(monkeypatch, *names):
    """As if these libraries were not installed."""

    def version(package):
        if package in {PACKAGES[name] for name in names}:
            raise PackageNotFoundError
        return metadata_version(package)

    monkeypatch.setattr(libraries, "version", version)


# Timing


def test_ways_are_timed_in_turn_and_warm_up_does_not_count():
    done = []
    ways = {name: lambda name=name: done.append(name) or f"{name}{len(done)}" for name in "abc"}
    seconds, results = interleaved(ways, 3, warm_up=1)
    assert "".join(done) == "cab" + "abc" + "bca" + "cab"
    assert {name: len(took) for name, took in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert results == {"c": "c10", "a": "a11", "b": "b12"}


# Libraries


def test_make_test_installs_every_library():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    names = {re.match(r"[\w-]+", one)[0] for one in extra}
    assert names >= set(PACKAGES.values())


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    gone(monkeypatch, "ART")
    with pytest.raises(InputError, match=r"^ART \(adversarial-robustness-toolbox\) is not installed; .*pip install"):
        need("ART")
    with pytest.raises(InputError, match="did you mean 'foolbox'"):
        need("fooolbox")


@pytest.mark.parametrize("name", PGD)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_library_leaves_chance_and_the_model_alone(name, norm, usual):
    if installed(name) is None:
        pytest.skip(f"{name} is not installed: {libraries.INSTALL}")
    model, data = usual
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), data.images.clone()
    attack = PGD[name](model, norm, eps=0.1, step_size=0.05, steps=3, seed=7)
    moved = attack(data.images, data.labels)
    assert moved.shape == data.images.shape
    assert not moved.requires_grad
    assert 0 < float((moved - data.images).abs().max()) <= 0.1 + 1e-6
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(data.images, before[2])
    assert not model.training
    assert torch.equal(attack(data.images, data.labels), moved), "the seed does not settle it"


# The benches


def test_plain_loop_does_what_pgd_does(usual):
    model, data = usual
    ours = attacks.pgd(model, data.images, data.labels, eps=0.1, steps=5, step_size=0.03, keep="last")
    theirs = attacks.plain(model, data.images, data.labels, 0.1, 5, 0.03)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_speed_is_printed_beside_every_library_with_ratios(capsys):
    assert main(["bench", "attacks", "--quick"]) == 0
    out = capsys.readouterr().out
    for word in ("image-steps/s", "times ours", "plain loop", "robust", "1 thread", f"torch {torch.__version__}"):
        assert word.split("+")[0] in out
    for name in set(HERE) & set(attacks.SPEED.libraries):
        assert re.search(rf"^[\w -]+? {name} .*\d\.\d\d$", out, re.M), out
        assert f"{name} {installed(name)}" in out
    assert re.search(r"^mlp-4-relu +metarobust +[\d,]+ +[\d,]+ to [\d,]+ +1\.00$", out, re.M)


def test_benches_run_without_the_libraries_and_say_so(monkeypatch):
    gone(monkeypatch, *PACKAGES)
    for bench in BENCHES.values():
        out = bench.run(quick=True)
        for name in bench.libraries:
            assert f"{name} is not installed: pip install" in out
            assert f"{name} missing" in out


def test_a_comparison_that_would_have_holes_is_not_stored(monkeypatch, tmp_path):
    gone(monkeypatch, "foolbox")
    for bench in (attacks.SPEED, peers.STRENGTH):
        with pytest.raises(InputError, match=r"foolbox .* is not installed"):
            bench.run(out=tmp_path / "new", quick=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(len(HERE) < len(PACKAGES), reason=f"a library is not installed: {libraries.INSTALL}")
@pytest.mark.parametrize("name", BENCHES)
def test_a_stored_comparison_is_read_again_and_replaced(name, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "MODELS", {"trained as usual": peers.MODELS["trained as usual"]})
    bench, out = BENCHES[name], tmp_path / name
    for _ in range(2):
        text = bench.run(out=out, quick=True)
        manifest, rows = bench.recorded(tmp_path)
        assert bench.table(manifest, rows) == text
    assert manifest["command"] == f"metarobust bench {name}"
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert bench.markdown(manifest, rows).count("| --- |") >= 1
    if name == "peers":
        assert list(peers.recorded_models(out)) == peers.QUICK


@pytest.mark.parametrize("name", BENCHES)
def test_what_is_recorded_becomes_a_page(name):
    bench = BENCHES[name]
    page = bench.markdown(*bench.recorded())
    assert all(library in page for library in bench.libraries)
    assert "not installed" not in page
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) <= 2


def test_recorded_evaluations_end_at_the_same_accuracy():
    """A quick evaluation that finds less is no gain."""
    rows = [row for row in attacks.SPEED.recorded()[1] if row["part"] == "standard"]
    ours, theirs = ([row["robust"] for row in rows if row["way"] == who] for who in ("metarobust", "AutoAttack"))
    assert len(ours) == len(theirs) >= 6
    assert all(a <= b + 0.005 for a, b in zip(ours, theirs, strict=True))


def test_a_way_is_told_by_its_median_and_its_ratio_within_rounds():
    times = {"a": [1.0, 2.0, 4.0], "b": [3.0, 4.0, 20.0]}
    rows = record.timed(times, "a")
    assert [row["ratio"] for row in rows.values()] == [1.0, 3.0]
    assert [row["seconds"] for row in rows.values()] == [median(seconds) for seconds in times.values()]
    assert record.pace(rows["b"], 60) == ["15", "3 to 20", "3.00"]


def test_a_step_is_compared_with_adam_on_11_million_parameters():
    params = optimizers.resnet_parameters(64, "cpu")
    assert sum(p.numel() for p in params) == 11_689_512
    assert all(p.grad.shape == p.shape for p in params)
    rows = {row["way"]: row for row in optimizers.measure(quick=True)}
    assert set(rows) == set(optimizers.MOVED)
    assert rows[optimizers.ADAM]["ratio"] == 1
    assert rows[optimizers.SCALE]["share"] == pytest.approx(1)
