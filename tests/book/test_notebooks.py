"""The committed notebooks: run in order, without traces of the run, and readable in Colab and in the book."""

import base64
import itertools
import json
import re
from pathlib import Path

import pytest

from metarobust import course

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / ".ci/notebook_setup.py").read_text().strip()
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ASSIGNMENTS = [*ROOT.glob("notebooks/assignments/*.ipynb"), *ROOT.glob("notebooks/assignments/student/*.ipynb")]
NOTEBOOKS = [*CHAPTERS, *sorted(ASSIGNMENTS)]
MOST_BYTES = 400_000


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def pictures(cell):
    return [data for output in cell["outputs"] for data in output.get("data", {}) if data.startswith("image/")]


def spelt(path):
    return path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()


@pytest.fixture(params=NOTEBOOKS, ids=spelt)
def path(request):
    return request.param


# What is asked of the chapters alone.
chapters = pytest.mark.parametrize("path", CHAPTERS, indirect=True, ids=spelt)


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def prose(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def test_there_are_notebooks():
    assert CHAPTERS
    assert len(ASSIGNMENTS) == 2 * len(course.NUMBERS)  # of each the master and the student's copy


def test_cells_were_run_once_in_order(code):
    # nbval compares nothing at all where a count is missing.
    run = [cell for cell in code if "skip-execution" not in tags(cell)]
    assert [cell["execution_count"] for cell in run] == list(range(1, len(run) + 1))
    skipped = [cell for cell in code if "skip-execution" in tags(cell)]
    assert all(cell["execution_count"] is None and not cell["outputs"] for cell in skipped)
    assert all("nbval-skip" in tags(cell) for cell in skipped), "skip-execution needs nbval-skip beside it"


def test_no_traces_of_the_run(path, notebook, code):
    graded = {"otter"} if path.parent.name == "student" else set()  # by it otter's grader knows the assignment
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info", "metarobust", "widgets"} | graded
    for cell in notebook["cells"]:
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"])
    assert not [cell["source"] for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))  # base64 may spell anything
    assert not re.findall(r"(?:/home|/Users|/root|/tmp|/work|site-packages|[A-Z]:\\+Users)[/\\]\S*", text)


def test_is_small_and_named_without_a_number(path):
    assert path.stat().st_size < MOST_BYTES
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", path.stem), "a chapter that is put in between must not move others"


def test_figures_are_single_pngs_with_alt_text(code):
    for cell in code:
        shown = pictures(cell)
        where = "".join(cell["source"])
        assert len(shown) <= 1, f"more than one figure:\n{where}"
        assert set(shown) <= {"image/png"}, f"not a PNG:\n{where}"
        if shown and "remove-output" not in tags(cell):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 4, f"no alt text in mystnb.image.alt:\n{where}"


def test_markdown_is_portable(prose):
    for text in prose:
        text = re.sub(r"^```[^{\n]*\n.*?^```\s*$", "", text, flags=re.M | re.S)  # plain code may hold anything
        assert not re.search(r"(?<![`\w])\{[\w:-]+\}`(?=\S)", text), f"a MyST role shows as raw text in Colab:\n{text}"
        assert not re.search(r"^\s*(```+|~~~+|:::+)\s*\{", text, flags=re.M), f"a MyST fence in:\n{text}"
        assert not re.search(r"^(\+\+\+|\(\S+\)=|% )", text, flags=re.M), f"MyST block syntax in:\n{text}"


def test_outputs_are_as_make_notebooks_keeps_them(path, code):
    """Pictures have 256 colours, which byte 25 of a PNG says; what is printed in one go stands in one output."""
    kept = [out["data"]["image/png"] for cell in code for out in cell["outputs"] if "image/png" in out.get("data", {})]
    assert {base64.b64decode("".join(each))[25] for each in kept} <= {3}
    for cell in code if path in CHAPTERS else []:
        streams = [output.get("name") for output in cell["outputs"]]  # None for what is no stream
        assert not [a for a, b in itertools.pairwise(streams) if a == b is not None]


@chapters
def test_first_cell_has_title_badge_and_level(path, notebook):
    first = "".join(notebook["cells"][0]["source"])
    assert re.match(r"# \S", first)
    badge = r"\[!\[Open in Colab\]\(https://colab\.research\.google\.com/assets/colab-badge\.svg\)\]"
    assert re.search(badge + rf"\(https://colab\.research\.google\.com/github/[^)]+/notebooks/{path.name}\)", first)
    line = re.search(r"^Level: .+$", first, flags=re.M)
    assert line, "no line that starts with Level:"
    assert "last run" in line[0], "make notebooks writes when it was last run"


def test_set_up_cell_comes_first_and_is_the_common_one(code):
    assert "setup" in tags(code[0])
    assert "".join(code[0]["source"]).strip() == SETUP
