"""The command line: bad input is one line and exit code 2; a run survives Ctrl-C, kills and a full disk."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_experiment
import pytest
import torch

from metarobust import cli, storage
from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab import engine, run_folder, running

ROOT = Path(__file__).parents[2]
RUN = ["run", "fake", "--scale", "smoke", "--seed", "0"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder, no data folder, no CUDA device, and the fake experiment as the only one."""
    fake_experiment.install(monkeypatch)
    monkeypatch.delenv("METAROBUST_DATA", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_writes_the_default_folder_and_prints_the_table(place, capsys):
    assert main(["run", "fake"]) == 0
    out = capsys.readouterr().out
    folder = Path("runs/fake-digits-small")
    assert out == f"fake table of 12 rows\nresults: {folder / 'results.csv'}\n"
    manifest = storage.read_json(folder / "manifest.json")
    assert manifest["command"] == "metarobust run fake --scale small --dataset digits --device auto"
    assert manifest["device"]["type"] == "cpu"
    assert (manifest["threads"], manifest["workers"]) == (1, 1)
    assert len(manifest["data_sha256"]) == 64


def test_run_takes_its_options(place, capsys):
    arguments = ["--device", "cpu", "--seed", "3", "4", "--dataset", "digits", "--data", "x", "--out", "o p"]
    assert main(["run", "fake", "--scale", "smoke", *arguments]) == 0
    manifest = storage.read_json(place / "o p" / "manifest.json")
    assert (manifest["spec"]["scale"], manifest["spec"]["seeds"]) == ("smoke", [3, 4])
    # Folders of this machine are nobody else's business, and the manifest is published with the result.
    assert manifest["command"] == ("metarobust run fake --scale smoke --dataset digits --device cpu --seed 3 4")
    assert main(["show", "o p"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith("fake on digits, scale smoke, seeds 3 4; ")
    assert out[-1] == "fake table of 12 rows"


def test_a_folder_of_images_gets_a_short_name(place):
    from PIL import Image

    for part in ("train", "test"):
        for name in "ab":
            (place / "my pets" / part / name).mkdir(parents=True)
            Image.new("L", (2, 2)).save(place / "my pets" / part / name / "0.png")
    assert main([*RUN, "--dataset", "folder:./my pets/"]) == 0
    assert (place / "runs" / "fake-folder-my pets-smoke" / "results.csv").exists()


def test_a_finished_run_is_not_run_again(place, monkeypatch, capsys):
    assert main(RUN) == 0
    before = Path("runs/fake-digits-smoke/manifest.json").read_bytes()
    monkeypatch.setattr(engine, "_call", lambda *_: pytest.fail("ran again"))
    assert main([*RUN, "--resume"]) == 0
    assert "fake table of 6 rows" in capsys.readouterr().out
    assert Path("runs/fake-digits-smoke/manifest.json").read_bytes() == before


def test_list_names_experiments_and_data_sets(capsys, monkeypatch):
    monkeypatch.setenv("METAROBUST_DATA", "/some/where")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    words = "fake", "counts", "smoke, small", "metarobust bench NAME", "peers", "AutoAttack", "digits", "folder:PATH"
    assert [word for word in (*words, "/some/where") if word not in out] == []


def test_headline_prefers_the_books_run_and_says_which(place, monkeypatch, capsys):
    recorded = place / "package" / "recorded"
    monkeypatch.setattr(cli, "RECORDED_RUN", recorded)
    assert main(["headline"]) == 2
    assert "make book" in capsys.readouterr().err
    assert main([*RUN, "--out", str(recorded)]) == 0
    assert main(["headline"]) == 0
    assert "Headline, from the run recorded with the package:\nfake on digits" in capsys.readouterr().out
    assert main([*RUN, "--out", str(cli.BOOK_RUN)]) == 0
    assert main(["headline"]) == 0
    assert f"Headline, from the run in {cli.BOOK_RUN}:" in capsys.readouterr().out
    assert main(["headline", "--from", str(recorded)]) == 0
    assert "recorded with the package" in capsys.readouterr().out
    # A run of the book that is damaged is an error; the recorded one must not take its place unseen.
    (cli.BOOK_RUN / "results.csv").write_text("")
    assert main(["headline"]) == 2


BAD = {
    "no command": ([], ["COMMAND", "--help"]),
    "command": (["rnu"], ["'rnu'", "run", "list"]),
    "experiment": (["run", "transfre"], ["'transfre'", "choose one of fake"]),
    "near experiment": (["run", "fakee"], ["'fakee'", "did you mean 'fake'"]),
    "no experiment": (["run"], ["NAME", "--help"]),
    "scale": (["run", "fake", "--scale", "tiny"], ["'tiny'", "choose one of smoke, small"]),
    "device": ([*RUN, "--device", "tpu"], ["'tpu'", "choose one of auto, cpu, cuda"]),
    "cuda": ([*RUN, "--device", "cuda"], ["'cuda'", "finds no CUDA device", "--device cpu"]),
    "data set": ([*RUN, "--dataset", "minst"], ["'minst'", "did you mean 'mnist'"]),
    "missing data": ([*RUN, "--dataset", "folder:nowhere"], ["folder:nowhere", "nowhere/train/CLASS"]),
    "seed": (["run", "fake", "--seed", "-1"], ["'-1'", "whole numbers from 0"]),
    "seed text": (["run", "fake", "--seed", "1.5"], ["'1.5'", "whole numbers from 0"]),
    "seed twice": (["run", "fake", "--seed", "1", "1"], ["1 1", "give each once"]),
    "no seed": (["run", "fake", "--seed"], ["--seed", "--help"]),
    "radius": ([*RUN, "--eps", "eight"], ["'eight' is no radius", "8/255"]),
    "radius over 0": ([*RUN, "--eps", "8/0"], ["'8/0' is no radius", "8/255"]),
    "radius of an experiment that has its own": ([*RUN, "--eps", "8/255"], ["fake has a radius of its own", "0.0313"]),
    "radius of all": (["run", "all", "--eps", "0.1"], ["one experiment at a time"]),
    "workers": ([*RUN, "--workers", "0"], ["--workers 0", "1 or more"]),
    "option": ([*RUN, "--sede", "1"], ["--sede", "--help"]),
    "abbreviation": ([*RUN, "--res"], ["--res", "--help"]),
    "out is a file": ([*RUN, "--out", "file"], ["file is a file", "another --out"]),
    "out below a file": ([*RUN, "--out", "file/x"], ["file/x"]),
    "foreign out": ([*RUN, "--out", "foreign"], ["foreign holds 'thesis.tex'", "another --out"]),
    "other run": ([*RUN, "--out", "done", "--seed", "7"], ["seeds is [0] there and [7] here", "another --out"]),
    "same run": ([*RUN, "--out", "done"], ["already holds this run", "--resume"]),
    "damaged manifest": ([*RUN, "--out", "damaged", "--resume"], ["damaged/manifest.json is damaged", "delete"]),
    "damaged unit": ([*RUN, "--out", "unit", "--resume"], ["patch-seed0.json is missing, damaged", "delete it"]),
    "damaged checkpoint": ([*RUN, "--out", "checkpoint", "--resume"], ["patch0.safetensors is damaged", "delete it"]),
    "show nothing": (["show", "nowhere"], ["nowhere holds no run"]),
    "show foreign": (["show", "foreign"], ["foreign holds no run"]),
    "show damaged": (["show", "damaged"], ["damaged/manifest.json is damaged"]),
    "show cut table": (["show", "cut"], ["cut/results.csv is damaged"]),
    "show unfinished": (["show", "unit"], ["unit is not finished", "--resume"]),
    "comparison": (["bench", "peer"], ["'peer'", "choose one of attacks, peers", "did you mean 'peers'"]),
    "no comparison": (["bench"], ["NAME", "--help"]),
    "headline from nothing": (["headline", "--from", "nowhere"], ["nowhere holds no run"]),
    "line feed": (["run", "a\nb"], ["'a\\nb'", "choose one of"]),
}


@pytest.fixture(scope="module")
def bad_places(tmp_path_factory):
    """A folder in which each kind of damaged output lies, made once."""
    place = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        fake_experiment.install(patch)
        patch.chdir(place)
        for name in ("done", "damaged", "cut"):
            assert main([*RUN, "--out", name]) == 0
        for name in ("unit", "checkpoint"):
            patch.setattr(engine, "_call", interrupt(after=2))
            assert main([*RUN, "--out", name]) == 130
    for name in ("damaged/manifest.json", "cut/results.csv", "unit/units/patch-seed0.json"):
        (place / name).write_bytes((place / name).read_bytes()[:-20])
    (place / "checkpoint" / "units" / "patch-seed0.json").unlink()
    (place / "checkpoint" / "checkpoints" / "patch0.safetensors").write_bytes(b"x")
    (place / "file").write_text("")
    (place / "foreign").mkdir()
    (place / "foreign" / "thesis.tex").write_text("")
    return place


def interrupt(after, call=engine._call):
    """In place of `engine._call`: Ctrl-C is pressed after some units."""
    done = []

    def counted(unit, worker):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(unit.name)
        return call(unit, worker)

    return counted


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, bad_places, monkeypatch, capsys):
    monkeypatch.chdir(bad_places)
    arguments, words = BAD[case]
    before = sorted(bad_places.rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *bar, line = err.splitlines()
    assert not bar or case in ("damaged unit", "damaged checkpoint"), "found while the bar of progress is there"
    assert line.startswith("metarobust: error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in line
    assert sorted(bad_places.rglob("*")) == before, "bad input left something behind"


def test_bench_hands_its_options_on_and_prints_what_comes_back(monkeypatch, capsys):
    given = []
    bench = SimpleNamespace(run=lambda **options: given.append(options) or "a table")
    monkeypatch.setitem(cli.load(cli.BENCHES), "peers", bench)
    assert main(["bench", "peers"]) == main(["bench", "peers", "--quick", "--out", "there"]) == 0
    assert given == [{"out": None, "quick": False}, {"out": Path("there"), "quick": True}]
    assert capsys.readouterr().out == "a table\na table\n"


def test_only_the_users_mistakes_are_caught(monkeypatch):
    monkeypatch.setattr(fake_experiment, "count", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(RUN)


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "some file")

    monkeypatch.setattr(fake_experiment, "count", fail)
    assert main(RUN) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # below the bar of progress
    assert last == "metarobust: error: [Errno 13] Permission denied: 'some file'"


def test_ctrl_c_says_how_to_go_on_and_the_table_is_the_same(place, monkeypatch, capsys):
    assert main([*RUN, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_call", interrupt(after=1))
        assert main([*RUN, "--out", "with space"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "metarobust: interrupted; go on with: metarobust run fake --scale smoke --seed 0 --out 'with space' --resume"
    )
    assert main([*RUN, "--out", "with space", "--resume"]) == 0
    assert Path("with space/results.csv").read_bytes() == Path("whole/results.csv").read_bytes()


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "metarobust", "run", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--workers" in done.stdout


def test_a_closed_pipe_is_no_error(place):
    command = [sys.executable, ROOT / "tests" / "lab" / "fake_experiment.py", "list"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    assert running.pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [running.pick_device(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    with pytest.raises(InputError):
        running.pick_device("gpu")


def other(name, failure=None):
    """The fake experiment under another name; failure: what its units are refused with."""

    def make_spec(scale, dataset, seeds):
        return fake_experiment.make_spec(scale, dataset, seeds) | {"experiment": name}

    def units(spec, dataset):
        if failure is not None:
            raise failure
        return fake_experiment.units(spec, dataset)

    wanted = {key: getattr(fake_experiment, key) for key in ("SUMMARY", "SCALES", "table", "brief", "collect")}
    return SimpleNamespace(NAME=name, make_spec=make_spec, units=units, **wanted)


def install(monkeypatch, *those):
    fake_experiment.install(monkeypatch, **{each.NAME: each for each in those})


def test_all_are_run_and_failures_are_told_at_the_end(monkeypatch, capsys):
    refused, crashed = InputError("digits: not for this one; give another"), RuntimeError("CUDA out\nof memory")
    install(monkeypatch, other("first"), other("no_digits", refused), other("broken", crashed), other("last"))
    assert main(["run", "all", "--scale", "smoke", "--out", "there"]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "[1/4] first on digits, smoke; then no_digits, broken, last"
    assert re.fullmatch(r"first      done in \d+\.\d min: there/first-digits-smoke", lines[4])
    assert lines[5] == "no_digits  not done: digits: not for this one; give another"
    assert lines[6] == "broken     failed: RuntimeError: CUDA out of memory"
    assert lines[7].startswith("last       done in")
    assert "Traceback" in err, "an error that is nobody's input must not be hidden"
    assert err.splitlines()[-1].endswith("error: 2 of 4 experiments are not complete: no_digits, broken; see above")


def test_complete_runs_are_left_and_unfinished_ones_go_on(monkeypatch, capsys):
    install(monkeypatch, other("first"), other("second", KeyboardInterrupt()))
    assert main(["run", "all", "--scale", "smoke"]) == 130
    assert "go on with: metarobust run all --scale smoke --resume" in capsys.readouterr().err
    install(monkeypatch, other("first", AssertionError("it is done again")), other("second"))
    # A complete run stays so, whatever code made it.
    monkeypatch.setattr(run_folder, "code", lambda: {"sha256": "0" * 64})
    Path("runs/second-digits-smoke/manifest.json").unlink()
    assert main(["run", "all", "--scale", "smoke"]) == 0
    assert main(["run", "all", "--scale", "smoke", "--seed", "5"]) == 2
    out = capsys.readouterr().out
    assert "first   not done: runs/first-digits-smoke holds another run: seeds is [0, 1] there and [5] here" in out
    assert "second  not done: runs/second-digits-smoke holds another run" in out


def test_what_no_experiment_can_do_is_refused_at_once(monkeypatch, capsys):
    for option, value, words in ("--dataset", "digit", "did you mean 'digits'"), ("--device", "gpu", "auto, cpu, cuda"):
        assert main(["run", "all", option, value]) == 2
        out, err = capsys.readouterr()
        assert (out, words in err) == ("", True)
    assert not Path("runs").exists()
