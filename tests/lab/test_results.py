"""A run's folder: killed at any moment and resumed it gives the same table; another folder is refused."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import subprocess
import warnings
from datetime import datetime

import fake_experiment
import pytest

from metarobust import storage
from metarobust.errors import InputError
from metarobust.lab import environment as made_by
from metarobust.lab import results
from metarobust.lab.results import code, load_results
from metarobust.lab.run_folder import COLUMNS, Run

SPEC = {"experiment": "fake", "scale": "smoke", "dataset": "digits", "seeds": [0, 1], "steps": (2, 4)}
ABOUT = {"data_sha256": "abc", "device": {"type": "cpu", "name": "test"}, "threads": 2}

CODE = code()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Thousands of small files are written here: no waiting for the disk, and git is asked once."""
    monkeypatch.setattr(storage.os, "fsync", lambda file: None)
    monkeypatch.setattr(results, "code", lambda: CODE)


def start(out, resume=False, spec=SPEC, about=ABOUT):
    return Run(out, spec, resume=resume, about=about)


def execute(out, resume=False, seeds=(0, 1)):
    run = start(out, resume, SPEC | {"seeds": seeds})
    fake_experiment.execute(run.spec, run, None, None)
    return run


def rows(n=3):
    return [{name: kind(i) for name, kind in COLUMNS.items()} for i in range(n)]


def test_a_finished_run_reads_back(tmp_path):
    run = execute(tmp_path / "a" / "b")
    manifest, stored = load_results(run.out)
    assert manifest["status"] == "complete"
    assert manifest["spec"] == json.loads(json.dumps(SPEC))
    assert manifest["data_sha256"] == "abc"
    assert manifest["versions"].keys() == {"python", "torch", "torchvision", "numpy"}
    assert manifest["code"].keys() == {"version", "sha256", "commit", "changed"}
    assert datetime.fromisoformat(manifest["started"]).utcoffset().total_seconds() == 0
    assert manifest["wall_seconds"] > 0
    assert 50 < manifest["peak_memory_mb"] < 100_000  # torch alone takes more than fifty
    assert manifest["files_sha256"] == {"results.csv": storage.sha256((run.out / "results.csv").read_bytes())}
    assert len(stored) == 16
    assert list(stored[0]) == list(COLUMNS)
    assert stored[0] | {"value": 0} == dict.fromkeys(COLUMNS) | {
        "experiment": "fake",
        "dataset": "digits",
        "part": "patch",
        "model": 'a, "b"\nc',
        "method": "count",
        "tier": "",
        "seed": 0,
        "step": 4,
        "split": "test",
        "attack": "none",
        "eps": 0.1,
        "metric": "x",
        "value": 0,
        "n": 500,
    }
    expected = 0.1
    for _ in range(4):
        expected = expected * 1.1 + 1 / 3
    assert stored[0]["value"] == pytest.approx(expected, rel=1e-12)
    assert math.isnan(stored[3]["value"])


def test_the_manifest_is_there_at_once(tmp_path):
    run = start(tmp_path)
    manifest = storage.read_json(tmp_path / "manifest.json")
    assert (manifest["status"], run.complete) == ("running", False)
    with pytest.raises(InputError, match=r"not finished.*--resume"):
        load_results(tmp_path)


def test_a_unit_is_computed_once(tmp_path):
    run, calls = start(tmp_path), []

    def compute():
        calls.append(1)
        return [{"pair": (1, 2), "value": 0.1}]

    first = run.unit("u", compute)
    assert first == [{"pair": [1, 2], "value": 0.1}]  # as it is stored, not as it was computed
    again = start(tmp_path, resume=True)
    assert again.unit("u", compute) == first
    assert len(calls) == 1
    with pytest.raises(ValueError, match="used before"):
        again.unit("u", compute)
    for name in ("", "../u", "a/b", ".u", "a b"):
        with pytest.raises(ValueError, match="unit name"):
            again.unit(name, compute)


def test_a_unit_that_fails_is_not_stored(tmp_path):
    run = start(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run.unit("u", lambda: 1 / 0)
    assert start(tmp_path, resume=True).unit("u", lambda: [{"a": 1}]) == [{"a": 1}]


def test_a_damaged_unit_is_named_with_the_remedy(tmp_path):
    execute(tmp_path)
    path = tmp_path / "units" / "train-seed0.json"
    path.write_bytes(path.read_bytes().replace(b"500", b"501", 1))
    with pytest.raises(InputError, match=r"train-seed0\.json is damaged.*delete it and give --resume"):
        execute(tmp_path, resume=True)
    path.unlink()
    execute(tmp_path, resume=True)


def test_a_unit_or_a_checkpoint_of_another_run_is_refused(tmp_path):
    execute(tmp_path / "a")
    other = start(tmp_path / "b", spec=SPEC | {"scale": "small"})
    shutil.copytree(tmp_path / "a" / "units", tmp_path / "b" / "units")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(InputError, match=r"train-seed0\.json is of another run"):
        other.unit("train-seed0", list)
    with pytest.raises(InputError, match=r"train0\.safetensors is of another run"):
        other.restore("train0")
    shutil.copy(tmp_path / "a" / "units" / "train-seed0.json", tmp_path / "a" / "units" / "u.json")
    with pytest.raises(InputError, match="another run"):
        start(tmp_path / "a", resume=True).unit("u", list)


def test_a_checkpoint_reads_back_and_a_damaged_one_is_refused(tmp_path):
    run = execute(tmp_path)
    assert run.restore("none") is None
    assert run.restore("train1")[1] == {"step": 4}
    path = run.checkpoint("train1")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train1\.safetensors is damaged"):
        run.restore("train1")


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
@pytest.mark.parametrize("resume", [True, False])
def test_another_runs_folder_is_refused_and_what_differs_is_named(tmp_path, spec, about, words, resume):
    execute(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=f"holds another run: .*{words}.*another --out"):
        start(tmp_path, resume, SPEC | spec, ABOUT | about)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_other_code_or_versions_are_refused(tmp_path, monkeypatch):
    start(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(results, "code", lambda: {"sha256": "other"})
        with pytest.raises(InputError, match="other code"):
            start(tmp_path, resume=True)
    monkeypatch.setattr(made_by, "version", lambda name: "0")
    with pytest.raises(InputError, match=r"versions\.torch is .* there and '0' here"):
        start(tmp_path, resume=True)


def test_a_folder_that_holds_a_run_needs_resume(tmp_path):
    start(tmp_path)
    with pytest.raises(InputError, match="already holds this run; give --resume"):
        start(tmp_path)
    start(tmp_path, resume=True)


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    for resume in (True, False):
        with pytest.raises(InputError, match=r"thesis\.tex.*another --out"):
            start(tmp_path, resume)
    with pytest.raises(InputError, match="is a file"):
        start(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_leaves_behind_is_cleaned_up(tmp_path):
    (tmp_path / f".manifest.json.1{storage.TEMPORARY}").write_text("{")  # killed in its very first write
    start(tmp_path, resume=True).unit("u", list)
    (tmp_path / "units" / f".v.json.1{storage.TEMPORARY}").write_text("{")
    start(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "u.json", "units"]


def test_a_damaged_manifest_or_table_is_refused(tmp_path):
    execute(tmp_path)
    for name in ("manifest.json", "results.csv"):
        path = tmp_path / name
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], content.replace(b"digits", b"digitS", 1)):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name} is damaged"):
                load_results(tmp_path)
        if name == "manifest.json":
            with pytest.raises(InputError, match=f"{name} is damaged"):
                start(tmp_path, resume=True)
        path.unlink()
        with pytest.raises(InputError, match=name):
            load_results(tmp_path)
        path.write_bytes(content)
    load_results(tmp_path)


def test_a_packed_table_is_read_and_a_damaged_one_refused(tmp_path):
    execute(tmp_path)
    plain, packed = tmp_path / "results.csv", tmp_path / "results.csv.gz"
    rows, content = repr(load_results(tmp_path)[1]), plain.read_bytes()  # nan is not nan
    packed.write_bytes(b"not looked at while the plain one is there")
    assert repr(load_results(tmp_path)[1]) == rows
    plain.unlink()
    whole, other = gzip.compress(content), gzip.compress(content.replace(b"digits", b"digitS", 1))
    for damaged in (whole[: len(whole) // 2], b"no gzip", other, b""):
        packed.write_bytes(damaged)
        with pytest.raises(InputError, match=r"results\.csv\.gz is damaged"):
            load_results(tmp_path)
    packed.write_bytes(whole)
    assert repr(load_results(tmp_path)[1]) == rows


def test_wall_time_adds_up_over_sessions(tmp_path, monkeypatch):
    clock = iter([100.0, 101.0, 103.0, 200.0, 200.5, 205.0])
    monkeypatch.setattr(results.time, "perf_counter", lambda: next(clock))
    start(tmp_path).unit("u", list)  # made at 100, manifest at 101, unit done at 103, then killed
    run = start(tmp_path, resume=True)  # 200, 200.5
    run.finish(rows(), COLUMNS, {})  # 205
    assert storage.read_json(tmp_path / "manifest.json")["wall_seconds"] == 8.0


def test_finishing_twice_changes_nothing_in_the_table(tmp_path):
    run = execute(tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    assert start(tmp_path, resume=True).complete
    run.finish([*load_results(tmp_path)[1]], COLUMNS, {})
    assert (tmp_path / "results.csv").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_and_resumed_it_gives_the_same_table(tmp_path):
    # One folder, so that kills follow one another; the later sessions have less left to do.
    execute(tmp_path / "whole", seeds=[0])
    expected = (tmp_path / "whole" / "results.csv").read_bytes()
    out, kills, k = tmp_path / "killed", 0, 0
    while True:
        status = run_and_die(out, k)
        if status == 0:
            break
        assert status == 9
        kills += 1
        k = (5 * k + 3) % 31
    assert kills >= 8
    assert (out / "results.csv").read_bytes() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_once_at_any_write_and_resumed_it_gives_the_same_table(tmp_path):
    execute(tmp_path / "whole", seeds=[0])
    expected = (tmp_path / "whole" / "results.csv").read_bytes()
    k = 0
    while run_and_die(tmp_path / str(k), k) == 9:
        execute(tmp_path / str(k), resume=True, seeds=[0])
        assert (tmp_path / str(k) / "results.csv").read_bytes() == expected
        shutil.rmtree(tmp_path / str(k))
        k += 1
    assert k > 20


def run_and_die(out, k):
    """Run or resume in a child that dies, with no clean-up, before its k-th sync, replacement or removal.

    Returns its exit status: 9, or 0 when the run was finished before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: the child starts none
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        count = iter(range(10**6))

        def deadly(real):
            def call(*arguments, **options):
                if next(count) == k:
                    os._exit(9)
                return real(*arguments, **options)

            return call

        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
        execute(out, resume=True, seeds=[0])
        os._exit(0)
    except BaseException as error:
        print(repr(error))
    os._exit(1)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with a small package in it, taken for ours; a function that calls git there."""
    package = tmp_path / "repository" / "metarobust"
    package.mkdir(parents=True)
    (package / "results.py").write_text("a = 1\n")
    monkeypatch.setattr(made_by, "__file__", str(package / "made_by.py"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=package, check=True, capture_output=True, text=True).stdout.strip()

    if shutil.which("git") is None:
        pytest.skip("needs git")
    return package, git


def test_the_code_is_identified(checkout):
    package, git = checkout
    outside = code()
    assert (outside["commit"], outside["changed"]) == (None, None)
    git("init", "-q")
    assert code()["commit"] is None  # below a checkout that does not hold the package
    git("add", ".")
    git("commit", "-q", "-m", "one", "--no-verify")
    clean = code()
    assert (clean["commit"], clean["changed"]) == (git("rev-parse", "HEAD"), False)
    assert clean["sha256"] == outside["sha256"]
    (package / "results.py").write_text("a = 2\n")
    dirty = code()
    assert (dirty["commit"], dirty["changed"]) == (clean["commit"], True)
    assert dirty["sha256"] != clean["sha256"]
    (package / "results.py").write_text("a = 1\n")
    (package / "new.py").write_text("")
    assert code()["sha256"] not in (clean["sha256"], dirty["sha256"])
