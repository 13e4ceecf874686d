"""`metarobust results`: what is recorded, how old, and whether the code that made it is still the same."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from metarobust import storage
from metarobust.cli import main
from metarobust.lab.provenance import code, facts, listing
from metarobust.lab.results import RECORDED

RUN = "patch-digits-small"


@pytest.fixture
def folder(tmp_path):
    """A copy of the manifests of one recorded run and of one comparison with other libraries."""
    for name in (RUN, "bench/peers"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(RECORDED / name / "manifest.json", tmp_path / name)
    return tmp_path


def rewrite(path, **changes):
    storage.write_json(path, storage.read_json(path) | changes)


def test_every_recorded_run_is_listed_once(capsys):
    assert main(["results"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 115
    folders = {path.parent.relative_to(RECORDED).as_posix() for path in RECORDED.glob("**/manifest.json")}
    assert lines.index("") - 1 == len(folders)
    assert main(["results", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert {run["name"] for run in runs} == folders
    assert all(run["commit"] and run["command"] for run in runs)


def test_facts_are_those_of_the_manifest(folder):
    manifest = storage.read_json(folder / RUN / "manifest.json")
    began = datetime.fromisoformat(manifest["started"])
    run, bench = facts(folder, now=began.replace(year=began.year + 1))
    assert (run["name"], run["dataset"], run["scale"], run["age_days"]) == (RUN, "digits", "small", 365)
    assert run["wall_seconds"] == manifest["wall_seconds"]
    assert (bench["experiment"], bench["seeds"]) == ("bench/peers", None)
    assert bench["age_days"] >= 0


def test_code_is_the_same_where_the_digest_is(folder):
    path = folder / RUN / "manifest.json"
    rewrite(path, code=storage.read_json(path)["code"] | {"sha256": code()["sha256"]})
    run, bench = facts(folder)
    assert (run["code"], bench["code"]) == ("same", "changed")
    assert [line.split()[-1] for line in listing([run, bench]).splitlines()[1:3]] == ["same", "changed"]


def test_an_experiment_that_is_gone_and_a_long_name_do_no_harm(folder):
    path = folder / RUN / "manifest.json"
    spec = storage.read_json(path)["spec"] | {"experiment": "transfer-architectures", "dataset": "fashion-mnist"}
    rewrite(path, spec=spec, device={"type": "cuda", "name": "NVIDIA H200 NVL with 141 GB"})
    run, _ = facts(folder, now=datetime(2027, 1, 1, tzinfo=UTC))
    line = listing([run]).splitlines()[1]
    assert "H200 NVL" in line
    assert len(line) <= 100
    assert listing([]) == "no run is recorded here"
