"""The command line: bad input is one line and exit code 2; a run survives Ctrl-C, kills and a full disk."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_experiment
import pytest
import torch

from metarobust import cli, storage
from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab import results, running

ROOT = Path(__file__).parents[2]
CODE = results.code()  # once: asking git at every start would take long
RUN = ["run", "fake", "--scale", "smoke", "--seed", "0"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder, no data folder, no CUDA device, and the fake experiment as the only one."""
    fake_experiment.install(monkeypatch)
    monkeypatch.setattr(results, "code", lambda: CODE)
    monkeypatch.delenv("METAROBUST_DATA", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_writes_the_default_folder_and_prints_the_table(place, capsys):
    assert main(["run", "fake"]) == 0
    out = capsys.readouterr().out
    folder = Path("runs/fake-digits-small")
    assert out == f"fake table of 16 rows\nresults: {folder / 'results.csv'}\n"
    manifest = storage.read_json(folder / "manifest.json")
    assert manifest["command"] == "metarobust run fake --scale small --dataset digits --device auto"
    assert manifest["device"]["type"] == "cpu"
    assert manifest["threads"] == torch.get_num_threads()
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
    assert out[-1] == "fake table of 16 rows"


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
    monkeypatch.setattr(fake_experiment, "execute", lambda *_: pytest.fail("ran again"))
    assert main([*RUN, "--resume"]) == 0
    assert "fake table of 8 rows" in capsys.readouterr().out
    assert Path("runs/fake-digits-smoke/manifest.json").read_bytes() == before


def test_list_names_experiments_and_data_sets(capsys, monkeypatch):
    monkeypatch.setenv("METAROBUST_DATA", "/some/where")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for word in (
        "fake",
        "counts",
        "smoke, small",
        "metarobust bench NAME",
        "peers",
        "AutoAttack",
        "digits",
        "mnist",
        "cifar10",
        "folder:PATH",
        "/some/where",
    ):
        assert word in out


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
    "missing data": ([*RUN, "--dataset", "folder:nowhere"], ["nowhere/train", "is not a folder", "CLASS"]),
    "seed": (["run", "fake", "--seed", "-1"], ["'-1'", "whole numbers from 0"]),
    "seed text": (["run", "fake", "--seed", "1.5"], ["'1.5'", "whole numbers from 0"]),
    "seed twice": (["run", "fake", "--seed", "1", "1"], ["1 1", "give each once"]),
    "no seed": (["run", "fake", "--seed"], ["--seed", "--help"]),
    "radius": ([*RUN, "--eps", "eight"], ["'eight' is no radius", "8/255"]),
    "radius over 0": ([*RUN, "--eps", "8/0"], ["'8/0' is no radius", "8/255"]),
    "radius of an experiment that has its own": ([*RUN, "--eps", "8/255"], ["fake has a radius of its own", "0.0313"]),
    "radius of all": (["run", "all", "--eps", "0.1"], ["one experiment at a time"]),
    "option": ([*RUN, "--sede", "1"], ["--sede", "--help"]),
    "abbreviation": ([*RUN, "--res"], ["--res", "--help"]),
    "out is a file": ([*RUN, "--out", "file"], ["file is a file", "another --out"]),
    "out below a file": ([*RUN, "--out", "file/x"], ["file/x"]),
    "foreign out": ([*RUN, "--out", "foreign"], ["foreign holds 'thesis.tex'", "another --out"]),
    "other run": (
        [*RUN, "--out", "done", "--seed", "7"],
        ["seeds is [0] there and [7] here", "another --out"],
    ),
    "same run": ([*RUN, "--out", "done"], ["already holds this run", "--resume"]),
    "damaged manifest": (
        [*RUN, "--out", "damaged", "--resume"],
        ["damaged/manifest.json is damaged", "delete"],
    ),
    "damaged unit": ([*RUN, "--out", "unit", "--resume"], ["patch-seed0.json is damaged", "delete it"]),
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
        patch.setattr(results, "code", lambda: CODE)
        patch.chdir(place)
        for name in ("done", "damaged", "cut"):
            assert main([*RUN, "--out", name]) == 0
        patch.setattr(fake_experiment, "execute", interrupt(after=2))
        for name in ("unit", "checkpoint"):
            assert main([*RUN, "--out", name]) == 130
    for name in ("damaged/manifest.json", "cut/results.csv", "unit/units/patch-seed0.json"):
        (place / name).write_bytes((place / name).read_bytes()[:-20])
    (place / "checkpoint" / "units" / "patch-seed0.json").unlink()
    (place / "checkpoint" / "checkpoints" / "patch0.safetensors").write_bytes(b"x")
    (place / "file").write_text("")
    (place / "foreign").mkdir()
    (place / "foreign" / "thesis.tex").write_text("")
    return place


def interrupt(after, real=fake_experiment.execute):
    """An `execute` in which Ctrl-C is pressed after some units."""

    def execute(spec, run, dataset, device, share):
        unit, done = run.unit, []

        def counted(name, compute):
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(name)
            return unit(name, compute)

        run.unit = counted
        try:
            real(spec | {"seeds": [0, 1, 2]}, run, dataset, device)
        finally:
            run.unit = unit

    return execute


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, bad_places, monkeypatch, capsys):
    monkeypatch.chdir(bad_places)
    arguments, words = BAD[case]
    before = sorted(bad_places.rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("metarobust: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert sorted(bad_places.rglob("*")) == before, "bad input left something behind"


def test_bench_hands_its_options_on_and_prints_what_comes_back(monkeypatch, capsys):
    from metarobust.lab.bench import peers

    given = []
    monkeypatch.setattr(peers, "run", lambda **options: given.append(options) or "a table")
    assert main(["bench", "peers"]) == main(["bench", "peers", "--quick", "--out", "there"]) == 0
    assert given == [{"out": None, "quick": False}, {"out": Path("there"), "quick": True}]
    assert capsys.readouterr().out == "a table\na table\n"


def test_only_the_users_mistakes_are_caught(monkeypatch):
    monkeypatch.setattr(fake_experiment, "execute", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(RUN)


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "some file")

    monkeypatch.setattr(fake_experiment, "execute", fail)
    assert main(RUN) == 2
    assert capsys.readouterr().err == "metarobust: error: [Errno 13] Permission denied: 'some file'\n"


def test_a_disk_that_fills_up_leaves_a_run_that_can_be_resumed(place, monkeypatch, capsys):
    assert main([*RUN, "--out", "whole"]) == 0
    real, calls = os.fsync, []

    def fill_up(file):
        calls.append(file)
        if len(calls) > 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", fill_up)
        assert main([*RUN, "--out", "full"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [path for path in Path("full").rglob("*") if path.name.startswith(".")]
    assert main([*RUN, "--out", "full", "--resume"]) == 0
    assert Path("full/results.csv").read_bytes() == Path("whole/results.csv").read_bytes()


def test_ctrl_c_says_how_to_go_on_and_the_table_is_the_same(place, monkeypatch, capsys):
    assert main([*RUN, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(fake_experiment, "execute", interrupt(after=1))
        assert main([*RUN, "--out", "with space"]) == 130
    err = capsys.readouterr().err
    assert err.strip() == (
        "metarobust: interrupted; go on with: metarobust run fake --scale smoke --seed 0 --out 'with space' --resume"
    )
    assert main([*RUN, "--out", "with space", "--resume"]) == 0
    assert Path("with space/results.csv").read_bytes() == Path("whole/results.csv").read_bytes()


def test_a_run_killed_at_random_moments_and_resumed_gives_the_same_table(place):
    assert main([*RUN, "--out", "whole"]) == 0
    moments = random.Random()  # really random: whatever the moment, the table must come out the same
    command = [sys.executable, ROOT / "tests" / "fake_experiment.py", *RUN, "--out", "killed", "--resume"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for began in ("manifest.json", "checkpoints/train0.safetensors"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not Path("killed", began).exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was over before the kill"
    last = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (last.returncode, last.stderr) == (0, "")
    assert Path("killed/results.csv").read_bytes() == Path("whole/results.csv").read_bytes()


@pytest.mark.parametrize(("command", "option"), [("run", "--resume"), ("bench", "--quick")])
def test_help_needs_no_torch_and_module_call_works(command, option):
    check = [sys.executable, "-X", "importtime", "-m", "metarobust", command, "--help"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert option in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith(" torch")]


def test_a_closed_pipe_is_no_error(place):
    command = [sys.executable, ROOT / "tests" / "fake_experiment.py", "list"]
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
