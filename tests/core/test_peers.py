"""Our attacks find as much as those of other libraries, on trained and on patched models, at the same budget.

The models are the recorded ones, so that every machine attacks the same. What takes a library minutes is recorded; the
tests then measure ours against the record, and the library itself on a part of it.
"""

from __future__ import annotations

from functools import cache
from statistics import fmean

import pytest

from metarobust.lab.bench import peers
from metarobust.lab.bench.libraries import INSTALL, installed
from metarobust.lab.bench.models import MODELS, RADIUS, images

POINTS = 0.005  # half a percentage point, as a share
USUAL, AGAINST, PRUNED, LEARNED, CNN = MODELS
ANEW = "the record no longer says what the attacks find; renew it with `metarobust bench peers --out FOLDER`"

every_model = pytest.mark.parametrize("name", MODELS)
every_norm = pytest.mark.parametrize("norm", RADIUS)


def needs(name):
    return pytest.mark.skipif(installed(name) is None, reason=f"{name} is not installed: {INSTALL}")


@cache
def models():
    return peers.recorded_models()


@cache
def data():
    return images(500)


def by_library(rows):
    return {row["library"]: row for row in rows}


def recorded_rows(**wanted):
    return [row for row in peers.STRENGTH.recorded()[1] if wanted.items() <= row.items()]


@pytest.fixture(params=["foolbox", "ART"])
def library(request):
    if installed(request.param) is None:
        pytest.skip(f"{request.param} is not installed: {INSTALL}")
    return request.param


@every_model
@every_norm
def test_pgd_step_for_step_is_that_of_a_peer(name, norm, library):
    found = by_library(peers.compare_pgd(name, models()[name], data(), norm))
    ours, theirs = found["metarobust"], found[library]
    assert ours["robust"] == pytest.approx(theirs["robust"], abs=POINTS)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.005)
    assert ours["robust"] < ours["clean"] - 0.1


@every_model
@every_norm
def test_pgd_as_it_is_by_default_is_as_strong_as_a_peer(name, norm, library):
    """It returns the best point on the way, where theirs return the last."""
    found = by_library(peers.compare_pgd(name, models()[name], data(), norm, keep="best"))
    ours, theirs = found["metarobust"], found[library]
    assert ours["robust"] <= theirs["robust"] + POINTS
    assert ours["loss"] >= theirs["loss"] * 0.998


@every_norm
def test_pgd_from_random_starts_is_as_strong_as_a_peer(norm, library):
    """Where each begins is chance, so it is the mean of ten starts that is compared."""
    found = [by_library(peers.compare_pgd(PRUNED, models()[PRUNED], data(), norm, seed=seed)) for seed in range(10)]
    ours, theirs = (fmean(rows[who]["robust"] for rows in found) for who in ("metarobust", library))
    assert ours <= theirs + POINTS
    ours, theirs = (fmean(rows[who]["loss"] for rows in found) for who in ("metarobust", library))
    assert ours >= theirs * 0.99


@needs("AutoAttack")
@pytest.mark.slow
@pytest.mark.parametrize("name", [USUAL, AGAINST, LEARNED])
def test_standard_is_as_strong_as_autoattack(name):
    """On a part of the images; on all of them, both norms and all models it is recorded."""
    found = by_library(peers.compare_standard(name, models()[name], images(100), "linf"))
    assert found["metarobust"]["robust"] <= found["AutoAttack"]["robust"] + POINTS


# The record


def test_record_is_whole():
    manifest, rows = peers.STRENGTH.recorded()
    assert set(rows[0]) == set(peers.COLUMNS)
    wanted = {
        (name, norm, "standard", who) for name in MODELS for norm in RADIUS for who in ("metarobust", "AutoAttack")
    }
    wanted |= {
        (name, norm, "pgd-40", who) for name in MODELS for norm in RADIUS for who in ("metarobust", "foolbox", "ART")
    }
    assert {tuple(row[key] for key in ("model", "norm", "attack", "library")) for row in rows} == wanted
    assert len(rows) == len(wanted)
    assert {row["n"] for row in rows} == {500}
    assert all(manifest["versions"][library] for library in peers.LIBRARIES)
    assert set(models()) == set(MODELS)


@every_model
@every_norm
def test_recorded_standard_is_as_strong_as_autoattack(name, norm):
    found = by_library(recorded_rows(model=name, norm=norm, attack="standard"))
    assert found["metarobust"]["robust"] <= found["AutoAttack"]["robust"] + POINTS
    pgd = by_library(recorded_rows(model=name, norm=norm, attack="pgd-40"))
    assert found["metarobust"]["robust"] <= pgd["metarobust"]["robust"]


@every_model
@every_norm
def test_record_of_pgd_is_fresh(name, norm):
    stored = by_library(recorded_rows(model=name, norm=norm, attack="pgd-40"))
    for library, row in by_library(peers.compare_pgd(name, models()[name], data(), norm)).items():
        for key in ("clean", "robust"):
            assert row[key] == pytest.approx(stored[library][key], abs=POINTS), ANEW


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), [(USUAL, "linf"), (LEARNED, "linf"), (PRUNED, "l2")])
def test_record_of_standard_is_fresh(name, norm):
    (stored,) = recorded_rows(model=name, norm=norm, attack="standard", library="metarobust")
    assert peers.our_standard(models()[name], data(), norm) == pytest.approx(stored["robust"], abs=POINTS), ANEW
