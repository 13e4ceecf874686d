"""The masters of the assignments: their solutions pass, their stubs run, and they are cut the same way each time."""

import re
import runpy
import subprocess
import sys
import zipfile

import masters
import nbformat
import pytest

from metarobust import course

ROOT = masters.ROOT
CALL = "from metarobust.course import earn\n"
numbers = pytest.mark.parametrize("number", course.NUMBERS)
cutter = runpy.run_path(str(ROOT / ".ci/assignment.py"))


def cells(notebook, kind):
    return [masters.source(cell) for cell in notebook["cells"] if cell["cell_type"] == kind]


@numbers
def test_the_solution_passes_with_full_points(number):
    names = masters.solve(number)
    for question in course.assignment(number).questions:
        found = question.mark(names[question.answer], range(12))
        assert found, str(found)


@numbers
def test_a_master_is_named_and_titled_as_the_library_says(number):
    path, notebook = masters.of(number)
    asked = course.assignment(number)
    assert path.stem == asked.slug
    first = cells(notebook, "markdown")[0]
    assert first.startswith(f"# Assignment {number}: {asked.title}\n")
    assert f"{asked.out_of} points" in first
    for question in asked.questions:
        heading = f"## Question {question.name[1:]}: `{question.answer}` ({question.out_of} points)"
        assert any(text.startswith(heading) for text in cells(notebook, "markdown"))


@numbers
def test_test_files_only_call_the_library_and_cover_every_property(number):
    wanted = []
    for q in course.assignment(number).questions:
        calls = {p: f'earn({number}, "{q.name}", "{p.name}", {q.answer}' for p in q.properties}
        wanted.append(("visible", 0, "", [f"{call})" for call in calls.values()]))
        wanted += [(p.name, p.points, "hidden: true\n", [f"{call}, hidden=True)"]) for p, call in calls.items()]
    head = '""" # BEGIN TEST CONFIG\nname: {}\npoints: {}\n{}""" # END TEST CONFIG\n' + CALL
    found = [text.strip() for text in cells(masters.of(number)[1], "code") if "BEGIN TEST CONFIG" in text]
    assert found == [head.format(*one[:3]) + "\n".join(one[3]) for one in wanted]


@numbers
def test_the_students_notebook_holds_no_solution_and_reads_well(number):
    path, notebook = masters.published(number)
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text
    assert "BEGIN" not in text
    assert "earn(" not in text
    assert len(text.encode()) < 30_000
    link = rf"https://colab\.research\.google\.com/github/[^)]+/{path.relative_to(ROOT)}\)"
    assert re.search(link, cells(notebook, "markdown")[0])


@numbers
def test_what_is_shown_below_a_function_is_what_the_check_says_of_it(number):
    for _, notebook in (masters.of(number), masters.published(number)):
        shown = {masters.source(cell): cell for cell in notebook["cells"] if cell["cell_type"] == "code"}
        exec(masters.functions(notebook), names := {})
        for question in course.assignment(number).questions:
            cell = shown[f'check({number}, "{question.name}", {question.answer})']
            assert cell["metadata"] == {"tags": ["nbval-check-output"]}
            (output,) = cell["outputs"]
            assert "".join(output["data"]["text/plain"]) == str(question.mark(names[question.answer]))


@numbers
def test_links_to_other_notebooks_lead_somewhere(number):
    path, notebook = masters.published(number)
    for text in cells(notebook, "markdown"):
        for link in re.findall(r"\]\((\.\./[^)#]+)", text):
            assert (path.parent / link).exists(), link


def test_a_cut_is_the_same_each_time_and_the_published_one(tmp_path):
    pytest.importorskip("otter", reason="otter-grader, of the group `course`, cuts the assignments")
    for number in course.NUMBERS:
        files = cutter["cut"](number, target=tmp_path / "one")
        stale = "run make assignment N=" + str(number)
        kept = nbformat.read(masters.published(number)[0], as_version=4)
        nbformat.write(cutter["bare"](kept), tmp_path / "bare.ipynb")
        assert files["student"].read_bytes() == (tmp_path / "bare.ipynb").read_bytes(), stale
    again = cutter["cut"](number, target=tmp_path / "two")
    assert [p.read_bytes() for p in again.values()] == [p.read_bytes() for p in files.values()]
    secret = cutter["cut"](number, 4321, target=tmp_path / "three")
    with zipfile.ZipFile(secret["autograder"]) as archive:
        script = archive.read("run_otter.py")
        assert script.startswith(b"# For honest classes")
        assert b'"METAROBUST_COURSE_SEED"] = "4321"' in script
        assert all(about.date_time[0] == 1980 for about in archive.infolist())
        assert b"hidden=True" in archive.read("tests/q1.py")
    solution = files["solution"].read_text()
    assert "SOLUTION" not in solution
    assert "optimizer.init(w, steps)" in solution


@pytest.mark.slow
def test_otter_agrees_about_the_solution_and_a_wrong_answer(tmp_path):
    pytest.importorskip("otter", reason="otter-grader, of the group `course`, runs its own archive")
    files = cutter["cut"](3, target=tmp_path)
    text = files["solution"].read_text()
    wrong = text.replace("v = update(theta, g, v, w)", "v = update(theta, g, v.detach(), w)")
    assert wrong != text
    for name, content, points in (("right", text, 32), ("detached", wrong, 30)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "submission.ipynb").write_text(content)
        command = [sys.executable, "-m", "otter", "run", "-a", str(files["autograder"]), "submission.ipynb"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        tests = masters.read(folder / "results.json")["tests"]
        assert sum(one.get("score", 0) for one in tests) == points


@pytest.mark.parametrize("given", [[], ["x"], ["1", "2", "3"], ["-1"], ["5"], ["https://example.org/a"]])
def test_a_bad_number_is_refused_in_one_line(given):
    command = [sys.executable, str(ROOT / ".ci/assignment.py"), *given]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode in (1, 2)
    assert run.stderr.count("\n") == 1
    assert "N=3" in run.stderr


def test_a_handout_holds_no_solution_and_leads_nowhere_near_one():
    for path in cutter["handout"]("https://github.com/ann/course"):
        text = path.read_text(encoding="utf-8")
        assert text.count(f"google.com/github/ann/course/blob/main/{path.name})") == 1
        assert "assignments/" not in text
        assert "](.." not in text


def test_the_instructors_guide_is_in_step_with_the_graders():
    guide = (ROOT / "book/instructors.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / ".ci/course.py"))["renewed"](guide) == guide, "run make course"
    for number in course.NUMBERS:
        assert f"### {number}. {course.assignment(number).title}" in guide
