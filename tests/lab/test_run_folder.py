"""A run's folder: killed at any moment and resumed it gives the same table; another folder is refused."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import fake_experiment
import pytest

from metarobust import storage
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.lab import engine, provenance, run_folder
from metarobust.lab.provenance import code
from metarobust.lab.results import as_rows
from metarobust.lab.results import load as load_run
from metarobust.lab.run_folder import COLUMNS, LOCK, Run
from metarobust.lab.running import only_writer, pick_device

SPEC = fake_experiment.make_spec("smoke", "digits", [0, 1])
ABOUT = {"data_sha256": "abc", "device": {"type": "cpu", "name": "test"}}


def start(out, resume=False, spec=SPEC, about=ABOUT):
    return Run(out, spec, resume=resume, about=about)


def execute(out, resume=False, seeds=(0, 1)):
    run = start(out, resume, SPEC | {"seeds": seeds})
    engine.complete(fake_experiment, run, load("digits"), pick_device("cpu"))
    return run


def test_a_finished_run_reads_back(tmp_path):
    run = execute(tmp_path / "a" / "b")
    manifest, frame = load_run(run.out)
    stored = as_rows(frame)
    assert manifest["status"] == "complete"
    assert manifest["spec"] == SPEC | {"steps": [2, 4]}
    assert manifest["data_sha256"] == "abc"
    assert {"python", "torch", "numpy"} <= manifest["versions"].keys()
    assert manifest["code"].keys() == {"version", "sha256", "commit", "changed"}
    assert datetime.fromisoformat(manifest["started"]).utcoffset().total_seconds() == 0
    assert manifest["wall_seconds"] > 0
    assert 50 < manifest["peak_memory_mb"] < 100_000  # torch alone takes more than fifty
    assert manifest["files_sha256"] == {"results.csv": storage.sha256((run.out / "results.csv").read_bytes())}
    assert len(stored) == 12
    assert list(stored[0]) == list(COLUMNS)
    row = {"experiment": "fake", "dataset": "digits", "part": "patch", "model": 'a, "b"\nc', "method": "count"}
    row |= {"tier": "", "seed": 0, "step": 4, "split": "test", "attack": "none", "eps": 0.1, "metric": "x", "n": 500}
    missing = {name: "" if kind is str else None for name, kind in COLUMNS.items()}
    assert stored[0] | {"value": 0} == missing | row | {"value": 0}
    expected = 0.1
    for _ in range(4):
        expected = expected * 1.1 + 1 / 3
    assert stored[0]["value"] == pytest.approx(expected, rel=1e-12)


def test_the_manifest_is_there_at_once(tmp_path):
    run = start(tmp_path)
    assert (storage.read_json(tmp_path / "manifest.json")["status"], run.complete) == ("running", False)
    with pytest.raises(InputError, match=r"not finished.*--resume"):
        load_run(tmp_path)


def test_rows_are_read_as_they_are_stored(tmp_path):
    rows = start(tmp_path).keep("u", [{"pair": (1, 2), "value": 0.1}])
    assert rows == [{"pair": [1, 2], "value": 0.1}]
    assert start(tmp_path, resume=True).rows("u") == rows


def test_what_is_damaged_or_of_another_run_is_named_with_the_remedy(tmp_path):
    run = execute(tmp_path / "a")
    unit = tmp_path / "a" / "units" / "train-seed0.json"
    unit.write_bytes(unit.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"train-seed0\.json is .*damaged.*delete it and give --resume"):
        run.rows("train-seed0")
    assert run.restore("none") is None
    with pytest.raises(InputError, match=r"checkpoint none is missing .* delete .*none\.json too"):
        run.stored("none")
    assert run.restore("train1")[1] == {"step": 4}
    other = start(tmp_path / "b", spec=SPEC | {"scale": "small"})
    for folder in ("units", "checkpoints"):
        shutil.copytree(tmp_path / "a" / folder, tmp_path / "b" / folder)
    with pytest.raises(InputError, match=r"train-seed1\.json is of another run"):
        other.rows("train-seed1")
    with pytest.raises(InputError, match=r"train0\.safetensors is of another run"):
        other.restore("train0")


@pytest.mark.parametrize(
    ("spec", "about", "words"),
    [
        ({"scale": "small"}, {}, "scale is 'smoke' there and 'small' here"),
        ({"steps": [2, 5]}, {}, r"steps is \[2, 4\] there and \[2, 5\] here"),
        ({"more": 1}, {}, "more is None there and 1 here"),
        ({}, {"data_sha256": "abd"}, "data_sha256 is 'abc' there and 'abd' here"),
        ({}, {"device": {"type": "cuda", "name": "test"}}, r"device\.type is 'cpu' there"),
    ],
)
def test_another_runs_folder_is_refused_and_what_differs_is_named(tmp_path, spec, about, words):
    start(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    for resume in (True, False):
        with pytest.raises(InputError, match=f"holds another run: .*{words}.*another --out"):
            start(tmp_path, resume, SPEC | spec, ABOUT | about)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_other_code_or_versions_are_refused(tmp_path, monkeypatch):
    start(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "code", lambda: {"sha256": "other"})
        with pytest.raises(InputError, match="other code"):
            start(tmp_path, resume=True)
    monkeypatch.setattr(provenance, "version", lambda name: "0")
    with pytest.raises(InputError, match=r"versions\.torch is .* there and '0' here"):
        start(tmp_path, resume=True)


def test_what_a_kill_leaves_behind_is_cleaned_up(tmp_path):
    (tmp_path / f".manifest.json.1{storage.TEMPORARY}").write_text("{")  # killed in its very first write
    for name in "uv":
        with only_writer(tmp_path):
            start(tmp_path, resume=True).keep("u", [])
        (tmp_path / "units" / f".{name}.json.1{storage.TEMPORARY}").write_text("{")
    with only_writer(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "u.json", "units"]


def test_a_damaged_table_is_refused_and_a_packed_one_read(tmp_path):
    execute(tmp_path)
    plain, packed = tmp_path / "results.csv", tmp_path / "results.csv.gz"
    rows, content = as_rows(load_run(tmp_path).frame), plain.read_bytes()
    for damaged in (content[: len(content) // 2], content.replace(b"digits", b"digitS", 1)):
        plain.write_bytes(damaged)
        with pytest.raises(InputError, match=r"results\.csv is damaged"):
            load_run(tmp_path)
    plain.unlink()
    for damaged in (gzip.compress(content)[:-9], b"no gzip", gzip.compress(content.replace(b"digits", b"digitS", 1))):
        packed.write_bytes(damaged)
        with pytest.raises(InputError, match=r"results\.csv\.gz is damaged"):
            load_run(tmp_path)
    packed.write_bytes(gzip.compress(content))
    assert as_rows(load_run(tmp_path).frame) == rows


def test_wall_time_adds_up_over_sessions(tmp_path, monkeypatch):
    clock = iter([100.0, 101.0, 103.0, 200.0, 200.5, 205.0])
    monkeypatch.setattr(run_folder.time, "perf_counter", lambda: next(clock))
    start(tmp_path).keep("u", [])  # made at 100, manifest at 101, unit done at 103, then killed
    start(tmp_path, resume=True).finish([], {})  # 200, 200.5 and 205
    assert storage.read_json(tmp_path / "manifest.json")["wall_seconds"] == 8.0


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "new" / "run"
    other = (
        "import sys; from pathlib import Path; from metarobust.lab.running import only_writer\n"
        "with only_writer(Path(sys.argv[1])): pass"
    )
    with only_writer(folder):
        done = subprocess.run([sys.executable, "-c", other, folder], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"another process writes to {folder}; wait until it ends, or choose another --out" in done.stderr
    with pytest.raises(ZeroDivisionError), only_writer(folder):
        raise ZeroDivisionError
    (folder / LOCK).touch()  # as a killed process leaves it
    with only_writer(folder):
        assert [path.name for path in folder.iterdir()] == [LOCK]
    assert not list(folder.iterdir())


def test_the_code_is_identified(tmp_path, monkeypatch):
    package = tmp_path / "repository" / "metarobust"
    (package / "lab").mkdir(parents=True)
    for name in ("__init__.py", "lab/results.py"):
        (package / name).write_text("a = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(package / "lab" / "provenance.py"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=package, check=True, capture_output=True, text=True).stdout.strip()

    outside = code()
    assert (outside["commit"], outside["changed"]) == (None, None)
    git("init", "-q")
    assert code()["commit"] is None  # below a checkout that does not hold the package
    git("add", ".")
    git("commit", "-q", "-m", "one", "--no-verify")
    clean = code()
    assert (clean["commit"], clean["changed"]) == (git("rev-parse", "HEAD"), False)
    assert clean["sha256"] == outside["sha256"]
    Path(package / "lab" / "results.py").write_text("a = 2\n")
    changed = code()
    assert (changed["commit"], changed["changed"]) == (clean["commit"], True)
    assert changed["sha256"] != clean["sha256"]
