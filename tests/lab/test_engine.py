"""The engine: one process, several and a Dask cluster write the same table, also where a worker is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import fake_experiment
import pytest

from metarobust.data import load
from metarobust.errors import InputError
from metarobust.lab import engine
from metarobust.lab.engine import Unit
from metarobust.lab.run_folder import Run
from metarobust.lab.running import pick_device

ABOUT = {"data_sha256": load("digits").sha256, "device": "cpu"}
SPEC = fake_experiment.make_spec("smoke", "digits", [0, 1, 2])


def execute(out, **how):
    """Runs the fake experiment into a folder, or goes on with it, and returns the bytes of its table."""
    run = Run(out, SPEC, resume=Path(out).exists(), about=ABOUT)
    dataset = load("digits")
    rows = engine.execute(fake_experiment.units(run.spec, dataset), run, dataset, pick_device("cpu"), **how)
    table, summary = fake_experiment.collect(run.spec, rows)
    run.finish(table, summary)
    return (out / "results.csv").read_bytes(), summary


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A folder where a test says which units are to kill their process, once each."""
    monkeypatch.setenv(fake_experiment.DIE, str(tmp_path / "die"))
    (tmp_path / "die").mkdir()
    return tmp_path / "die"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return execute(tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture
def cluster(tmp_path):
    """The address of a Dask scheduler with two workers, each a process of its own."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path) as made:
        yield made.scheduler_address


def test_two_workers_find_what_one_process_finds_to_the_byte(alone, tmp_path):
    assert execute(tmp_path / "run", workers=2) == alone


def test_a_killed_worker_is_replaced_and_its_unit_computed_again(alone, tmp_path, environment):
    for name in ("patch-1", "train-2"):
        (environment / name).touch()
    assert execute(tmp_path / "run", workers=2) == alone
    assert not list(environment.iterdir())


def test_workers_that_die_again_and_again_end_the_run_which_can_go_on(alone, tmp_path, environment, monkeypatch):
    monkeypatch.setattr(engine, "DEATHS", 0)
    (environment / "train-2").touch()
    with pytest.raises(
        InputError, match=r"workers died 1 times, the last time at .*train-seed2.*--workers, and --resume"
    ):
        execute(tmp_path / "run", workers=2)
    assert not (tmp_path / "run" / "results.csv").exists()
    assert execute(tmp_path / "run", workers=2) == alone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_finds_what_one_process_finds_to_the_byte(alone, tmp_path, cluster, environment):
    assert execute(tmp_path / "run", cluster=cluster) == alone
    (environment / "patch-0").touch()
    assert execute(tmp_path / "killed", cluster=cluster) == alone
    assert not list(environment.iterdir())


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 .*start one, or leave"):
        execute(tmp_path / "run", cluster="tcp://127.0.0.1:1")


def test_an_error_of_a_unit_is_raised_and_what_was_finished_is_kept(tmp_path):
    run = Run(tmp_path / "run", SPEC, resume=False, about=ABOUT)
    units = [Unit("right", right), Unit("wrong", wrong, needs=("right",))]
    for workers in (1, 2):
        with pytest.raises(InputError, match="nothing to measure"):
            engine.execute(units, run, load("digits"), pick_device("cpu"), workers=workers)
        assert run.finished("right")
        assert not run.finished("wrong")


def test_a_unit_that_needs_another_waits_for_it_and_one_that_is_finished_is_not_computed_again(tmp_path):
    run = Run(tmp_path / "run", SPEC, resume=False, about=ABOUT)
    units = [Unit("first", right), Unit("second", after, needs=("first",))]
    rows = engine.execute(units, run, load("digits"), pick_device("cpu"), workers=2)
    assert rows == {"first": [{"pair": [1, 2]}], "second": [{"sum": 3}]}
    again = [Unit("first", wrong), Unit("second", wrong, needs=("first",))]
    assert engine.execute(again, run, load("digits"), pick_device("cpu")) == rows


def test_a_worker_of_other_code_or_other_images_is_refused(tmp_path, monkeypatch):
    for about, message in ((ABOUT | {"data_sha256": "0"}, "other images"), (ABOUT, "other code")):
        out = tmp_path / message.replace(" ", "-")
        Run(out, SPEC, resume=False, about=about)
        if message == "other code":
            monkeypatch.setattr(engine, "code", lambda: {"sha256": "0"})
        with pytest.raises(InputError, match=message):
            engine._worker(out, "digits", None, "cpu")


def test_workers_end_when_their_parent_is_killed(tmp_path):
    """Otherwise they would go on for hours, and write beside the run that goes on."""
    command = [sys.executable, fake_experiment.__file__, "run", "fake", "--out", tmp_path / "run", "--workers", "2"]
    paths = {"PYTHONPATH": str(Path(__file__).parents[2]), fake_experiment.PAUSE: "30"}
    with subprocess.Popen(command, env=os.environ | paths, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while not (children := children_of(process.pid)) and time.monotonic() < until:
            time.sleep(0.2)
        process.kill()
    assert children
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def children_of(parent):
    """The processes that another has started, but for loky's own tracker of resources."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(parent).children() if "popen_loky" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def right(worker):
    return [{"pair": (1, 2)}]


def after(worker):
    return [{"sum": sum(worker.rows("first")[0]["pair"])}]


def wrong(worker):
    raise InputError("nothing to measure: give more images")
