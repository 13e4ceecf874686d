"""`metarobust run all`: what is complete is left, what is not goes on, what fails stops no other."""

import re
from pathlib import Path
from types import SimpleNamespace

import fake_experiment
import pytest

from metarobust import lab as experiments
from metarobust import storage
from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab import results, running, suite

CODE = results.code()


def other(name, execute=fake_experiment.execute):
    """The fake experiment under another name."""
    wanted = {key: getattr(fake_experiment, key) for key in ("SUMMARY", "SCALES", "table", "brief")}

    def make_spec(scale, dataset, seeds):
        return fake_experiment.make_spec(scale, dataset, seeds) | {"experiment": name}

    return SimpleNamespace(NAME=name, make_spec=make_spec, execute=execute, **wanted)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "code", lambda: CODE)
    return tmp_path


@pytest.fixture
def install(monkeypatch):
    def install(*those):
        known = {one.NAME: one for one in those}
        for module in (experiments, running, suite):
            monkeypatch.setattr(module, "EXPERIMENTS", known)

    return install


def refuse(spec, run, dataset, device, share):
    raise InputError("digits: not for this one; give another data set")


def crash(spec, run, dataset, device, share):
    raise RuntimeError("CUDA out\nof memory")


def test_all_are_run_and_failures_are_told_at_the_end(install, capsys):
    install(other("first"), other("no-digits", refuse), other("broken", crash), other("last"))
    assert main(["run", "all", "--scale", "smoke", "--out", "there"]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "[1/4] first on digits, smoke; then no-digits, broken, last"
    assert lines[3] == "[4/4] last on digits, smoke"
    assert re.fullmatch(r"first      done in \d+\.\d min: there/first-digits-smoke", lines[4])
    assert lines[5] == "no-digits  not done: digits: not for this one; give another data set"
    assert lines[6] == "broken     failed: RuntimeError: CUDA out of memory"
    assert lines[7].startswith("last       done in")
    assert "Traceback" in err, "an error that is nobody's input must not be hidden"
    assert err.splitlines()[-1] == (
        "metarobust: error: 2 of 4 experiments are not complete: no-digits, broken; see above"
    )
    for name in ("first", "last"):
        assert storage.read_json(Path(f"there/{name}-digits-smoke/manifest.json"))["status"] == "complete"


def test_complete_runs_are_left_and_unfinished_ones_go_on(install, capsys, monkeypatch):
    done = []

    def counted(spec, run, dataset, device, share):
        done.append(spec["experiment"])
        fake_experiment.execute(spec, run, dataset, device)

    def interrupted(spec, run, dataset, device, share):
        run.unit("patch-seed0", lambda: fake_experiment.count(spec, run, 0, "patch"))
        raise KeyboardInterrupt

    install(other("first", counted), other("second", interrupted))
    assert main(["run", "all", "--scale", "smoke"]) == 130
    assert "go on with: metarobust run all --scale smoke --resume" in capsys.readouterr().err
    install(other("first", counted), other("second", counted))
    monkeypatch.setattr(results, "code", lambda: CODE)
    assert main(["run", "all", "--scale", "smoke", "--resume"]) == 0
    assert done == ["first", "second"], "the first was complete and is not done again"
    assert "first   was complete: runs/first-digits-smoke" in capsys.readouterr().out
    # A complete run stays so, whatever code made it.
    monkeypatch.setattr(results, "code", lambda: CODE | {"sha256": "0" * 64})
    assert main(["run", "all", "--scale", "smoke"]) == 0
    assert done == ["first", "second"]


def test_another_run_or_a_damaged_one_in_the_folder_is_told(install, capsys):
    install(other("first"), other("second"))
    assert main(["run", "all", "--scale", "smoke"]) == 0
    Path("runs/second-digits-smoke/results.csv").write_text("")
    assert main(["run", "all", "--scale", "smoke", "--seed", "5"]) == 2
    out = capsys.readouterr().out
    assert "first   not done: runs/first-digits-smoke holds a run with another specification" in out
    assert "second  not done: runs/second-digits-smoke/results.csv is damaged" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--dataset", "digit"], "did you mean 'digits'"), (["--device", "gpu"], "auto, cpu, cuda")],
)
def test_what_no_experiment_can_do_is_refused_at_once(install, capsys, arguments, says):
    install(other("first"))
    assert main(["run", "all", "--scale", "smoke", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert not Path("runs").exists()


def test_a_scale_that_an_experiment_lacks_is_told(install, capsys):
    install(other("first"))
    assert main(["run", "all", "--scale", "huge"]) == 2
    assert "first  not done: there is no scale 'huge'; first has smoke, small" in capsys.readouterr().out


def test_several_processes_are_refused(install, monkeypatch, capsys):
    install(other("first"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "all"]) == 2
    assert "one experiment at a time" in capsys.readouterr().err
