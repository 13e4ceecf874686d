"""The comparisons with other libraries: they run, say what is missing, and can be stored. No test looks at a time."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab.bench import BENCHES, attacks, libraries, peers, record, tables, together
from metarobust.lab.bench.libraries import PACKAGES, PGD, installed, need
from metarobust.lab.bench.models import images, module, train
from metarobust.lab.bench.timing import interleaved, ratio

ROOT = Path(__file__).parents[2]
HERE = [name for name in PACKAGES if installed(name)]
RECORDED = sorted(folder.name for folder in record.FOLDER.iterdir())


@pytest.fixture(scope="module")
def usual():
    """A model that was trained as usual, and a few images."""
    return module("trained as usual", train("trained as usual")), images(20)


def gone(monkeypatch, *names):
    """As if these libraries were not installed."""
    real = libraries.find_spec
    modules = {PACKAGES[name][1] for name in names}
    monkeypatch.setattr(libraries, "find_spec", lambda module: None if module in modules else real(module))


# Timing


def test_ways_are_timed_in_turn_and_warm_up_does_not_count():
    done = []
    ways = {name: lambda name=name: done.append(name) or f"{name}{len(done)}" for name in "abc"}
    seconds, results = interleaved(ways, 3, warm_up=1)
    assert "".join(done) == "cab" + "abc" + "bca" + "cab"
    assert {name: len(took) for name, took in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert results == {"c": "c10", "a": "a11", "b": "b12"}


def test_ratio_is_taken_within_rounds():
    seconds = {"ours": [1.0, 10.0, 1.0], "theirs": [2.0, 20.0, 3.0]}
    assert ratio(seconds, "theirs", "ours") == 2
    assert ratio(seconds, "ours", "theirs") == 0.5


@pytest.mark.parametrize(("rounds", "warm_up"), [(0, 1), (1, -1)])
def test_timing_nothing_is_refused(rounds, warm_up):
    with pytest.raises(InputError, match=f"{rounds} rounds after {warm_up} of warm-up: give at least 1"):
        interleaved({"a": int}, rounds, warm_up)


# Libraries


def test_make_test_installs_every_library():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    assert {re.match(r"[\w-]+", one)[0] for one in extra} == {
        "lightning",
        *(package for package, _ in PACKAGES.values()),
    }
    assert (ROOT / ".ci/setup").read_text().count("'.[book,test,peers,course]'") == 2


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
    ours = attacks.pgd(model, data.images, data.labels, eps=0.1, steps=5, step_size=0.03, best=False)
    theirs = attacks.plain(model, data.images, data.labels, 0.1, 5, 0.03)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_speed_is_printed_beside_every_library_with_ratios(capsys):
    assert main(["bench", "attacks", "--quick"]) == 0
    out = capsys.readouterr().out
    for word in ("image-steps/s", "times ours", "plain loop", "robust", "1 thread", f"torch {torch.__version__}"):
        assert word.split("+")[0] in out
    for name in set(HERE) & set(attacks.LIBRARIES):
        assert re.search(rf"^[\w -]+? {name} .*\d\.\d\d$", out, re.M), out
        assert f"{name} {installed(name)}" in out
    assert re.search(r"^mlp-4-relu +metarobust +[\d,]+ +[\d,]+ to [\d,]+ +1\.00$", out, re.M)


def test_benches_run_without_the_libraries_and_say_so(monkeypatch):
    gone(monkeypatch, *PACKAGES)
    for bench in BENCHES.values():
        out = bench.run(quick=True)
        assert bench.OURS in out
        for name in bench.LIBRARIES:
            assert f"{name} is not installed: pip install" in out
            assert f"{name} missing" in out


def test_a_comparison_that_would_have_holes_is_not_stored(monkeypatch, tmp_path):
    gone(monkeypatch, "foolbox", "higher")
    for bench in BENCHES.values():
        with pytest.raises(InputError, match=r"(foolbox|higher) .* is not installed"):
            bench.run(out=tmp_path / "new", quick=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(len(HERE) < len(PACKAGES), reason=f"a library is not installed: {libraries.INSTALL}")
@pytest.mark.parametrize("name", BENCHES)
def test_a_stored_comparison_is_read_again_and_replaced(name, tmp_path, monkeypatch):
    out = tmp_path / name
    record.write(out, {"bench": "an older one"}, [{"a": 1}], {"a": int})
    text = BENCHES[name].run(out=out, quick=True)
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    manifest, rows = record.recorded(name)
    assert BENCHES[name].table(manifest, rows) == text
    assert manifest["command"] == f"metarobust bench {name}"
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    page = BENCHES[name].markdown(manifest, rows)
    assert page.count("| --- |") >= 1
    if name == "peers":
        assert list(peers.recorded_models(out)) == peers.QUICK
    with open(out / "results.csv", "a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="damaged"):
        record.recorded(name)


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_recorded_becomes_a_page(name):
    manifest, rows = record.recorded(name)
    page = BENCHES[name].markdown(manifest, rows)
    assert all(library in page for library in BENCHES[name].LIBRARIES)
    assert "not installed" not in page
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) <= 2


def test_recorded_evaluations_end_at_the_same_accuracy():
    """A quick evaluation that finds less is no gain."""
    rows = [row for row in record.recorded("attacks")[1] if row["part"] == "standard"]
    ours, theirs = ([row["robust"] for row in rows if row["way"] == who] for who in ("metarobust", "AutoAttack"))
    assert len(ours) == len(theirs) >= 6
    assert all(a <= b + 0.005 for a, b in zip(ours, theirs, strict=True))


def test_tables_are_of_equal_columns():
    lines = [["a", "long head"], ["wide word", "b"]]
    assert tables.columns(lines) == "a          long head\nwide word  b"
    assert tables.pipes(lines) == "| a | long head |\n| --- | --- |\n| wide word | b |"


def test_both_ways_of_predicting_find_the_same_gradient_and_are_told_side_by_side():
    found = together.measure("cnn-3-4-tanh", models=2, each=3, rounds=2)
    assert found["difference"] < 1e-5
    assert min(found["at_once"], found["in_turn"], found["ratio"]) > 0
    head, line = together.table([found | {"at_once": 0.003, "in_turn": 0.002, "ratio": 1.5}]).splitlines()
    assert head.split("  ")[0] == "network"
    assert line.split()[:6] == ["cnn-3-4-tanh", "2", "3", "3.0", "2.0", "1.50"]
