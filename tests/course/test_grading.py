"""Submissions of every kind get a clear result, and none does harm to the grader or to the others."""

import csv
import io
import json
import math
import multiprocessing
import os
import socket
import subprocess
import time

import masters
import nbformat
import pytest
import torch

from metarobust import cli
from metarobust.course import NUMBERS, assignment, calls, child, classroom, sandbox
from metarobust.course.classroom import class_table
from metarobust.course.grade import grade_file
from metarobust.course.sandbox import Channel, Sandbox
from metarobust.errors import InputError
from metarobust.storage import read_json

TRUST = bool(sandbox.missing())  # where there are no walls, as in many containers, all but the walls is tried
PATIENT = Sandbox(seconds=500, trust=TRUST)  # the machine may be busy
RIGHT = masters.functions(masters.of(1)[1])


def hand_in(path, *cells, number=1):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    if number:
        notebook.metadata["metarobust"] = {"assignment": number}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        nbformat.write(notebook, file)
    return path


def graded(folder, **given):
    """The table of a folder by student, its text, and what was graded anew."""
    text = class_table(folder / "class", folder / "out", sandbox=PATIENT, **given)
    return {row["student"]: row for row in csv.DictReader(io.StringIO(text))}, text


ODD = {b"caf\xe9", b"\xff\x1b[31m", b"a\nb\tc", b"=HYPERLINK(1)", b"x" * 242, "Ω ü".encode()}


def test_a_class_in_which_much_goes_wrong(tmp_path, monkeypatch, capsys, request):
    there = tmp_path / "class"
    wrong = RIGHT.replace("(x + eps * gradient.sign())", "(x - eps * gradient.sign())")
    assert wrong != RIGHT
    hand_in(there / "anna" / "hw.ipynb", "print('x' * 1_000_000)", wrong, "1 / 0", "x = bytearray(10**11)")
    (there / "anna" / "essay.txt").write_text("not this one")
    hand_in(there / "ben.ipynb", RIGHT, "import os\nos._exit(3)")
    hand_in(there / "cleo.ipynb", "from metarobust import attacks\nfgsm = attacks.fgsm")
    hand_in(there / "dora.ipynb", RIGHT, number=None)
    hand_in(there / "emil.ipynb", "print('x'*1_000_000)", f"{wrong}\n# mine", "1/0", "x = bytearray(10 ** 11)")
    for name in ODD:
        (there / os.fsdecode(name)).write_bytes(b"[" * 100_000)
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", there / "d"], check=True))  # too deep for pytest
    deep = os.open(there, os.O_RDONLY)
    for _ in range(1150):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    (there / ".hidden").write_text("no submission")
    found, text = graded(tmp_path, seed=98765, workers=2)
    fates = [f"{name} {found[name]['status']} {found[name]['points']}" for name in ("anna", "ben", "cleo", "dora")]
    assert fates == ["anna graded 28", "ben crashed 0", "cleo forbidden import 0", "dora not graded 0"]
    assert len(found) == 5 + len(ODD)
    assert sum(row["status"] == "not a notebook" for row in found.values()) == len(ODD)
    assert "'=HYPERLINK(1)" in text
    assert not set(text) & {"\x1b", "\t", "\r"}
    shown = [found["anna"][name] for name in ("file", "q1", "q2", "q5", "out of")]
    assert shown == ["anna/hw.ipynb", "6", "6", "", "30"]
    for student, words in [
        ("anna", "cell 3 stops with ZeroDivisionError"),
        ("anna", "cell 4 stops with Memory"), ("anna", "not graded: anna/essay.txt"), ("ben", "ended early"),
        ("cleo", "imports metarobust.attacks"), ("dora", "--assignment 1, 2, 3 or 4"),
    ]:  # fmt: skip
        assert words in found[student]["notes"]
    (said,) = (path.read_text() for path in (tmp_path / "out" / "feedback").glob("anna-*.md"))
    assert "**28 of 30 points**" in said
    assert "  --  0/2  ascent" in said
    assert "9876" not in said  # of the seed
    assert "grade" in capsys.readouterr().err  # the bar
    assert [found[name]["same as"] for name in ("anna", "emil", "ben")] == ["emil", "anna", ""]

    # Once more, and stopped once: nothing is graded again but what has changed or is asked for; the seed stays.
    (there / "dora.ipynb").write_bytes(b"")
    again, stop = [], [KeyboardInterrupt]

    def stopped_once(path, *given):
        if stop:
            raise stop.pop()
        again.append(path.name)
        return grade_file(path, *given)

    monkeypatch.setattr(classroom, "grade_file", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        graded(tmp_path, workers=1)
    assert "stopping: those that run are graded first" in capsys.readouterr().err
    more, _ = graded(tmp_path, workers=1, retry=[there / "cleo.ipynb"])
    assert sorted(again) == ["cleo.ipynb", "dora.ipynb"]
    assert more["anna"] == found["anna"]
    (stored,) = (tmp_path / "out" / "results").glob("anna-*.json")
    assert read_json(stored)["seed"] == 98765
    stored.write_text("cut sho")  # as a kill at a bad moment would, were it not for atomic writes
    monkeypatch.setattr(classroom, "grade_file", lambda *given: 1 / 0)
    assert "ZeroDivisionError" in graded(tmp_path)[0]["anna"]["notes"]  # even where the grader itself fails
    with pytest.raises(InputError, match=r"no submission is .*zoe"):
        graded(tmp_path, retry=[there / "zoe.ipynb"])


SPY = """
import os, socket, sys
def attempt(f):
    try:
        f()
    except BaseException:
        return False
    return True
library = os.path.dirname(sys.modules["metarobust"].__file__)
walls = {{
    "connect": lambda: socket.create_connection(("127.0.0.1", {port}), 2),
    "reach out": lambda: socket.create_connection(("192.0.2.1", 80), 2),
    "unix socket": lambda: socket.socket(socket.AF_UNIX).connect("{folder}/socket"),
    "read": lambda: open("{other}").read(), "change": lambda: os.utime("{other}"), "root": lambda: open("/usr/x", "w"),
    "list": lambda: os.listdir("{folder}"), "solutions": lambda: os.listdir("{masters}"),
    "signal": lambda: os.kill({grader}, 0), "terminal": lambda: os.listdir("/dev/pts").index("0"),
    "library": lambda: open(library + "/__init__.py", "a"), "judge": lambda: open(library + "/course/question.py"),
    "processes": lambda: [p for p in os.listdir("/proc") if p.isdigit()][9],
}}
always = {{
    "banned": lambda: __import__("metarobust." + "attacks"), "secrets": lambda: os.environ["SECRET_OF_THE_GRADER"],
    "judging": lambda: __import__("metarobust.course." + "question"),
}}
done = [name for name, one in (always if {trust} else walls | always).items() if attempt(one)]
frame, seen = sys._getframe(), ""
while frame:
    frame, seen = frame.f_back, seen + repr(frame.f_locals)
if done or str(2 * {half} + 1) in seen:  # the seed, which is not written out here
    raise RuntimeError(f"got through: {{done}}")
"""
TAMPER = """
from metarobust.course import check
check(1, "q2", fgsm)
for frame in sys._current_frames().values():
    while frame:
        if "perform" in frame.f_globals:
            frame.f_globals["perform"] = lambda *given: b'{"value": 1.0, "graph": false}'
        frame = frame.f_back
"""


def test_a_submission_that_spies_and_tampers_gets_nowhere(tmp_path, monkeypatch):
    other = hand_in(tmp_path / "class" / "other.ipynb", RIGHT)
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "1")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as file:
        file.bind(str(other.parent / "socket"))
        file.listen()
        places = {"other": other, "folder": other.parent, "masters": masters.MASTERS, "grader": os.getpid()}
        spy = SPY.format(port=server.getsockname()[1], trust=TRUST, half=98765 // 2, **places)
        path = hand_in(tmp_path / "class" / "spy.ipynb", spy, RIGHT, TAMPER)
        result = grade_file(path, seed=98765, sandbox=PATIENT)
    assert (result.status, result.points, result.notes) == ("graded", 0, [])  # forged, and the right answer to nothing
    assert all("not a tensor" in finding.said for mark in result.questions for finding in mark.findings)


def test_cells_and_functions_that_never_end(tmp_path):
    loop = "import time\nwhile True:\n    time.sleep(0.1)"
    loud = "while True:\n    print('x' * 10_000)"
    late = "def project(moved, x, eps):\n    raise ValueError('\x1b[31m')"
    endless = "def margin(logits, y):\n    while True:\n        pass"
    path = hand_in(tmp_path / "hw.ipynb", RIGHT, loop, loud, late, endless)
    result = grade_file(path, seed=3, sandbox=Sandbox(100, trust=TRUST))
    assert result.status == "graded"
    notes = [f"cell {number} was interrupted: it took longer than a cell may" for number in (2, 3)]
    assert [note for note in result.notes if "interrupted" in note] == notes
    assert {mark.answer: mark.points for mark in result.questions} == {"project": 0, "fgsm": 8, "pgd": 0, "margin": 0}
    assert ("does not end" in result.text(), "\x1b" in result.text()) == (True, False)


def test_a_submission_that_cannot_be_interrupted_keeps_the_grader_waiting_no_longer(tmp_path):
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException:\n        pass"
    began = time.monotonic()
    result = grade_file(hand_in(tmp_path / "hw.ipynb", stubborn), sandbox=Sandbox(15, trust=TRUST))
    assert time.monotonic() - began < 60
    assert (result.status, result.points) == ("out of time", 0)
    assert "it was not reached" in result.text()


def test_a_crash_is_tried_again_once(tmp_path, monkeypatch):
    crash, ask = [calls.Ended("crashed", "its process ended early")], Channel.ask

    def crashes_first(*given):
        if crash:
            raise crash.pop()
        return ask(*given)

    monkeypatch.setattr(Channel, "ask", crashes_first)
    result = grade_file(hand_in(tmp_path / "hw.ipynb", "import foolbox"), sandbox=PATIENT)
    assert (crash, result.status) == ([], "forbidden import")


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_the_published_notebook_runs_as_it_is(number):
    result = grade_file(masters.published(number)[0], seed=3, sandbox=PATIENT)
    assert (result.status, result.points, result.notes) == ("graded", 0, [])
    assert result.text().count("it returns nothing yet") == len(assignment(number).questions)


def test_what_is_a_notebook_and_of_which_assignment():
    for content in (
        b"{}",
        b"[" * 200_000,
        b'{"cells": [{"source": 3}], "nbformat": 4}',
        b"\xff",
        b"[1]",
    ):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError, RecursionError)):
            child.read(content)
    notebook = {"cells": [{"cell_type": "markdown", "source": ["# Assignment 2: by", " its title"]}], "nbformat": 4}
    assert child.read(json.dumps(notebook).encode()) == (2, [])
    notebook["metadata"] = {"metarobust": {"assignment": 3}}
    assert child.read(json.dumps(notebook).encode()) == (3, [])


IMPORTS = {
    "import metarobust.attacks as a": ["metarobust.attacks"], "from metarobust import attacks": ["metarobust.attacks"],
    "from metarobust.attacks.pgd import pgd": ["metarobust.attacks"], "no Python, import foolbox": [],
    "%matplotlib inline\n!ls\ndef f():\n    import torchattacks": ["torchattacks"],
    "from metarobust.course import check, suspects, earn\nimport artful": [],
}  # fmt: skip


@pytest.mark.parametrize(("source", "found"), IMPORTS.items())
def test_imports_that_an_assignment_does_without(source, found):
    assert child.imported([source], assignment(1).forbidden) == found


def test_replies_come_back_as_they_were_and_hostile_ones_do_not():
    kinds = [torch.arange(3.0), torch.ones(2, 1).bfloat16(), torch.tensor([True]), torch.tensor([2**60, -1])]
    answer = calls.perform(lambda *given: [*given, None, "text", {1: math.inf}], calls.request(*kinds))
    value = calls.read(answer)["value"]
    assert all(torch.equal(one, back) and one.dtype == back.dtype for one, back in zip(kinds, value, strict=False))
    assert value[4:] == [None, "text", {"1": math.inf}]
    large, loop = torch.zeros(10**6), []
    loop.append(loop)
    for result, words in ((large, "tensor of 1,000,000"), (loop, "Error: "), ("x" * 10**7, "more than a message")):
        assert words in str(calls.read(calls.perform(lambda result=result: result, calls.request())))
    one, two = multiprocessing.Pipe()
    channel = Channel(one)
    forged = {"#": [1], "shape": [10**9], "dtype": "float32"}
    odd = [forged, {**forged, "shape": 1e9}, {**forged, "dtype": "nn"}, {**forged, "#": [{}]}, {"#": 3}]
    for text in (b"[" * 100_000, b"[1]", b"\xff", b"", *(json.dumps({"value": one}).encode() for one in odd)):
        two.send_bytes(text)
        with pytest.raises(calls.Ended, match="no message"):
            channel.ask("begin")
    os.write(two.fileno(), (10**9).to_bytes(4, "big"))  # the length of a frame that never comes
    with pytest.raises(calls.Ended, match="ended early"):
        channel.ask("begin")


BAD = {
    "absent.ipynb": "give a notebook, or a folder together with --csv", ".": "together with --csv",
    ". --csv --out inside": "would lie among the submissions", ". --csv --json": "--json is for one notebook",
    ". --csv --workers 0 --out ../elsewhere": "0 submissions at a time", "x.ipynb --time-limit 1": "give 5 to 86400 s",
    "x.ipynb --assignment 9": "no assignment 9", "x.ipynb --retry x.ipynb": "--workers and --retry are for a folder",
}  # fmt: skip


@pytest.mark.parametrize(("given", "says"), BAD.items())
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, capsys, given, says):
    hand_in(tmp_path / "work" / "x.ipynb", "1")
    monkeypatch.chdir(tmp_path / "work")
    assert cli.main(["grade", "--trust", *given.split()]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_one_notebook_from_the_command_line_and_a_machine_without_walls(tmp_path, capsys, monkeypatch):
    path = str(hand_in(tmp_path / "hw.ipynb", "import foolbox"))
    assert cli.main(["grade", path, "--json", "--seed", "5", "--trust"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["points"], found["out_of"], found["seed"]) == ("forbidden import", 0, 30, 5)
    monkeypatch.setattr(sandbox, "missing", lambda: "bubblewrap is not installed")
    assert cli.main(["grade", path]) == 2
    assert "installed; install the package bubblewrap, 0.7 or newer, or give --trust" in capsys.readouterr().err
