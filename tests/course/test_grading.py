"""Submissions of every kind get a clear result, and none does harm to the grader or to the others."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import masters
import nbformat
import pytest
import torch

from metarobust import cli
from metarobust.course import NUMBERS, assignment, classroom, confine, recording
from metarobust.course.classroom import class_table
from metarobust.course.grade import grade_file
from metarobust.course.run import Limits
from metarobust.course.submission import forbidden, number_of, read_notebook
from metarobust.errors import InputError
from metarobust.storage import read_json

PATIENT = Limits(seconds=500, cell=400)  # the machine may be busy
RIGHT = masters.functions(masters.of(1)[1])


def hand_in(path, *cells, number=1):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    if number:
        notebook.metadata["metarobust"] = {"assignment": number}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def table(text):
    return {row["submission"]: row for row in csv.DictReader(io.StringIO(text))}


def test_a_class_in_which_much_goes_wrong(tmp_path, monkeypatch, capsys):
    there, out = tmp_path / "class", tmp_path / "results"
    wrong = RIGHT.replace("return (x + eps * gradient.sign()).clamp(0, 1).detach()",
                          "return (x - eps * gradient.sign()).clamp(0, 1).detach()")  # fmt: skip
    assert wrong != RIGHT
    hand_in(there / "anna" / "hw.ipynb", "print('x' * 1_000_000)", wrong, "1 / 0", "x = bytearray(10**11)")
    hand_in(there / "ben" / "hw.ipynb", RIGHT, "import os\nos._exit(3)")
    hand_in(there / "cleo.ipynb", "from metarobust import attacks\nfgsm = attacks.fgsm")
    hand_in(there / "dora.ipynb", RIGHT, number=None)
    (there / "essay.docx").write_bytes(b"PK\0\1" * 1000)
    (there / ".hidden").write_text("no submission")
    found = table(class_table(there, out, seed=9, workers=2, limits=PATIENT))
    assert {name: (row["status"], row["points"]) for name, row in found.items()} == {
        "anna/hw.ipynb": ("graded", "28"),
        "ben/hw.ipynb": ("crashed", "0"),
        "cleo.ipynb": ("forbidden import", "0"),
        "dora.ipynb": ("not graded", "0"),
        "essay.docx": ("not a notebook", "0"),
    }
    assert found["anna/hw.ipynb"]["lost"] == "q2 ascent"
    for words in (
        "cell 1 prints 1,000,001 characters",
        "cell 3 stops with ZeroDivisionError",
        "cell 4 stops with Memory",
    ):
        assert words in found["anna/hw.ipynb"]["notes"]
    assert "Kernel died" in found["ben/hw.ipynb"]["notes"]
    assert "imports metarobust.attacks" in found["cleo.ipynb"]["notes"]
    assert "--assignment 1, 2, 3 or 4" in found["dora.ipynb"]["notes"]
    assert "grade" in capsys.readouterr().err  # the bar
    assert (out / "anna__hw.ipynb.executed.ipynb").stat().st_size < 100_000

    # Once more: nothing is graded again but what has changed, and the class keeps its seed.
    (there / "essay.docx").write_bytes(b"")
    again = []
    monkeypatch.setattr(
        classroom,
        "grade_file",
        lambda path, *given, **kept: again.append(path.name) or grade_file(path, *given, **kept),
    )
    more = table(class_table(there, out, workers=1, limits=PATIENT))
    assert sorted(again) == ["dora.ipynb", "essay.docx"]
    assert {row["points"] for row in more.values()} == {"28", "0"}
    assert read_json(out / "anna__hw.ipynb.json")["seed"] == 9
    (out / "cleo.ipynb.json").write_text("cut sho")  # as a kill at a bad moment would, were it not for atomic writes
    class_table(there, out, workers=1, limits=PATIENT)
    assert read_json(out / "cleo.ipynb.json")["status"] == "forbidden import"


def test_a_class_that_is_stopped_goes_on_and_grades_nothing_twice(tmp_path, monkeypatch, capsys):
    (tmp_path / "class").mkdir()
    for name in "abc":
        (tmp_path / "class" / f"{name}.txt").write_text(name)
    seen, graded = [], []

    def stopped_once(path, *given, **kept):
        seen.append(path.name)
        if path.name == "b.txt" and seen.count("b.txt") == 1:
            raise KeyboardInterrupt
        graded.append(path.name)
        return grade_file(path, *given, **kept)

    monkeypatch.setattr(classroom, "grade_file", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        class_table(tmp_path / "class", tmp_path / "results", workers=1)
    assert "b.txt" not in graded
    assert "stopping: those that run are graded first" in capsys.readouterr().err
    seed = read_json(tmp_path / "results" / "grading.json")["seed"]
    assert set(table(class_table(tmp_path / "class", tmp_path / "results", workers=1))) == {"a.txt", "b.txt", "c.txt"}
    assert sorted(graded) == ["a.txt", "b.txt", "c.txt"]
    assert {read_json(tmp_path / "results" / f"{name}.json")["seed"] for name in graded} == {seed}


def test_the_process_that_starts_a_submission_does_without_torch():
    # The kernel that it starts imports it once more: seconds, and memory, for each of a class.
    look = "import sys, child, papermill, nbformat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], cwd=Path(confine.__file__).parent).returncode == 0


SPY = """
import os, socket, subprocess, sys
said = []
def attempt(what, f):
    try:
        said.append((what, "done", str(f())))
    except BaseException as error:
        said.append((what, "refused", type(error).__name__))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
attempt("reach out", lambda: socket.create_connection(("192.0.2.1", 80), 2))
attempt("look up", lambda: socket.getaddrinfo("example.org", 80))
attempt("read another", lambda: open("{other}").read())
attempt("write another", lambda: open("{other}", "a"))
attempt("list", lambda: os.listdir("{folder}"))
attempt("solutions", lambda: os.listdir("{masters}"))
attempt("signal", lambda: os.kill({grader}, 0))
attempt("library", lambda: open(sys.modules["metarobust"].__file__, "a"))
attempt("banned", lambda: __import__("metarobust." + "attacks"))
attempt("secrets", lambda: os.environ["SECRET_OF_THE_GRADER"])
attempt("stay", lambda: subprocess.Popen(["sh", "-c", "setsid sleep {nap} &"]))
print(said)
"""
TAMPER = """
import importlib
serving, marks = (importlib.import_module("metarobust.course." + name) for name in ("serving", "marks"))
marks.judge = lambda *given: 1 / 0
serving._probe = lambda question, answer, seed: {"out": 1.0, "same": True, "graph": False, "bare": True, "mode": True}
"""


def test_a_submission_that_spies_and_tampers_gets_nowhere(tmp_path, monkeypatch):
    other = hand_in(tmp_path / "class" / "other.ipynb", RIGHT)
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "1")
    nap = 987_000 + os.getpid() % 1000
    with socket.create_server(("127.0.0.1", 0)) as server:
        spy = SPY.format(
            port=server.getsockname()[1], other=other, folder=other.parent, masters=masters.MASTERS,
            grader=os.getpid(), nap=nap,
        )  # fmt: skip
        path = hand_in(tmp_path / "class" / "spy.ipynb", spy, RIGHT, TAMPER)
        result = grade_file(path, seed=3, limits=PATIENT, keep=tmp_path / "executed.ipynb")
    assert (result.status, result.points) == ("graded", 0)  # what it forged is not the right answer to anything
    assert all("not a tensor" in finding.said for mark in result.marks for finding in mark.findings)
    (printed,) = [o["text"] for c in nbformat.read(tmp_path / "executed.ipynb", 4).cells for o in c.get("outputs", [])]
    fate = {what: how for what, how, _ in eval(printed)}
    always = {"reach out", "look up", "banned", "secrets"}
    walls = {
        "namespace": {"connect", "signal"},
        "landlock": {"read another", "write another", "list", "solutions", "library"},
    }
    for name in always.union(*(walls[wall] for wall in walls if wall in result.confined)):
        assert fate[name] == "refused", name
    if "namespace" in result.confined:
        time.sleep(0.5)
        processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert f"sleep {nap}" not in processes
    assert nbformat.read(other, 4).cells[0].source == RIGHT


def test_a_cell_that_never_ends_and_a_function_that_never_ends(tmp_path):
    loop = "import time\nwhile True:\n    time.sleep(0.1)"
    late = "def project(moved, x, eps):\n    return None"
    path = hand_in(tmp_path / "hw.ipynb", RIGHT, loop, late)
    result = grade_file(path, seed=3, limits=Limits(seconds=500, cell=20))
    assert result.status == "graded"
    assert "cell 2 was interrupted: it took longer than a cell may" in result.notes
    assert {mark.answer: mark.points for mark in result.marks} == {"project": 0, "fgsm": 8, "pgd": 0, "margin": 7}


@pytest.mark.slow
def test_a_submission_that_is_out_of_time_keeps_the_grader_waiting_no_longer(tmp_path):
    path = hand_in(
        tmp_path / "hw.ipynb",
        "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException:\n        pass",
    )
    began = time.monotonic()
    result = grade_file(path, seed=3, limits=Limits(seconds=15, cell=5))
    assert time.monotonic() - began < 60
    assert (result.status, result.points) == ("out of time", 0)
    assert "it was not reached" in result.text()


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_the_published_notebook_runs_as_it_is(tmp_path, number):
    path, _ = masters.published(number)
    result = grade_file(path, seed=3, limits=PATIENT)
    assert (result.status, result.points, result.notes) == ("graded", 0, ())
    assert result.text().count("it returns nothing yet") == len(assignment(number).questions)


def test_what_is_no_notebook(tmp_path):
    for content in (
        b"",
        b"{}",
        b"[" * 200_000,
        b'{"cells": []}',
        b'{"cells": [{"source": 3}], "nbformat": 4}',
        b"\xff",
    ):
        path = tmp_path / "hw.ipynb"
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a notebook"):
            read_notebook(path)
        result = grade_file(path, seed=1)
        assert (result.status, result.points, len(result.notes)) == ("not a notebook", 0, 1)


def test_which_assignment_it_is(tmp_path):
    assert number_of(read_notebook(hand_in(tmp_path / "a.ipynb", "1", number=3))) == 3
    path = hand_in(tmp_path / "b.ipynb", "1", number=None)
    assert number_of(read_notebook(path)) is None
    path.write_text(path.read_text().replace('"1"', '"# Assignment 2: by its title"'))
    assert number_of(read_notebook(path)) == 2
    with pytest.raises(InputError, match="no assignment 7"):
        grade_file(path, number=7)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import metarobust.attacks as a", ["metarobust.attacks"]),
        ("from metarobust.attacks.pgd import pgd", ["metarobust.attacks.pgd"]),
        ("from metarobust import attacks", ["metarobust.attacks"]),
        ("def f():\n    import torchattacks", ["torchattacks"]),
        ("import importlib\nimportlib.import_module('foolbox')", ["foolbox"]),
        ("__import__('metarobust.evaluation')", ["metarobust.evaluation"]),
        ("from metarobust.course.attacks import FGSM", ["metarobust.course.attacks"]),
        ("from metarobust.course import check, suspects, earn", []),
        ("from metarobust.data import load\nimport artful", []),
        ("%matplotlib inline\n!ls\nimport foolbox", ["foolbox"]),
        ("this is no Python, import foolbox", []),
    ],
)
def test_imports_that_an_assignment_does_without(tmp_path, source, found):
    notebook = read_notebook(hand_in(tmp_path / "hw.ipynb", source))
    assert forbidden(notebook, assignment(1)) == found


def test_records_come_back_as_they_were_and_hostile_files_do_not(tmp_path):
    record = {"out": torch.arange(3.0), "parts": [[1, torch.ones(2, 2)], None, "text"], "same": True}
    recording.write(tmp_path, "q1-0", record)
    back = recording.read(tmp_path, "q1-0")
    assert torch.equal(back["out"], record["out"])
    assert torch.equal(back["parts"][0][1], torch.ones(2, 2))
    assert (back["parts"][1:], back["same"]) == ([None, "text"], True)
    recording.write(tmp_path, "large", {"out": torch.zeros(10**6), "text": "x" * 10**6})
    assert recording.read(tmp_path, "large")["out"] == {"type": "tensor of 1,000,000 entries"}
    assert recording.read(tmp_path, "absent") is None
    (tmp_path / "secret").write_text(json.dumps({"out": 1}))
    good = (tmp_path / "q1-0.safetensors").read_bytes()
    for name, make in {
        "link": lambda path: path.symlink_to(tmp_path / "secret"),
        "pipe": os.mkfifo,
        "deep": lambda path: path.write_text("[" * 100_000),
        "list": lambda path: path.write_text("[1]"),
        "huge": lambda path: path.write_bytes(b" " * (recording.MOST_BYTES + 1)),
    }.items():
        make(tmp_path / f"{name}.json")
        (tmp_path / f"{name}.safetensors").write_bytes(good)
        assert recording.read(tmp_path, name) is None, name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["absent.ipynb"], "give a notebook, or a folder together with --csv"),
        (["."], "together with --csv"),
        ([".", "--csv", "--out", "inside"], "would lie among the submissions"),
        ([".", "--csv", "--workers", "0", "--out", "../elsewhere"], "0 submissions at a time"),
        (["x.ipynb", "--time-limit", "1"], "give 5 to 86400 s"),
        (["x.ipynb", "--assignment", "9"], "no assignment 9"),
        (["x.ipynb", "--out", "results"], "--out and --workers are for a folder"),
        ([".", "--csv", "--json"], "--json is for one notebook"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, capsys, given, says):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    hand_in(tmp_path / "work" / "x.ipynb", "1")
    assert cli.main(["grade", *given]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_one_notebook_from_the_command_line(tmp_path, capsys):
    path = hand_in(tmp_path / "hw.ipynb", "import foolbox")
    assert cli.main(["grade", str(path), "--json", "--seed", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["points"], found["out_of"], found["seed"]) == ("forbidden import", 0, 30, 5)
    assert cli.main(["grade", str(path)]) == 0
    assert "hw.ipynb: 0 of 30 points (forbidden import; Attacks from scratch, seed " in capsys.readouterr().out


def test_a_machine_without_walls_says_so(monkeypatch):
    monkeypatch.setattr(confine, "namespace", lambda: ())
    monkeypatch.setattr(confine, "landlock", lambda: 0)
    assert confine.available() == ["limits"]
    confine.restrict([], [])  # does nothing, and does not stop
