"""Recorded tables on pages of the book: what a page asks for is shown, or is a warning that says what is wrong."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import RECORDED, recorded
from metarobust.lab.summary import setting

pytest.importorskip("sphinx")
ROOT = Path(__file__).parents[2]
EXTENSIONS = str(ROOT / "book" / "_ext")
PAGE = (ROOT / "book" / "results.md").read_text(encoding="utf-8")


def test_the_results_page_has_every_recorded_run_once_under_a_label_of_its_own():
    names = [path.parent.relative_to(RECORDED).as_posix() for path in RECORDED.glob("**/manifest.json")]
    assert sorted(re.findall(r"^% run (\S+)$", PAGE, flags=re.M)) == sorted(names)
    assert sorted(re.findall(r"^\(run-(\S+)\)=$", PAGE, flags=re.M)) == sorted(n.replace("/", "-") for n in names)


@pytest.mark.parametrize(("chapter", "cell"), re.findall(r"^% figure (\S+) (\S+)$", PAGE, flags=re.M))
def test_a_picture_of_a_chapter_is_that_of_its_cell(chapter, cell, monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    import book_ledger

    monkeypatch.setattr(book_ledger, "shown", lambda name, png, alt, caption: (png, alt))
    png, alt = book_ledger.figure(chapter, cell)
    cells = json.loads((ROOT / f"notebooks/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    (there,) = (one for one in cells if one["id"] == cell)
    assert png in [base64.b64decode("".join(out.get("data", {}).get("image/png", ""))) for out in there["outputs"]]
    assert alt == there["metadata"]["mystnb"]["image"]["alt"]


@pytest.fixture
def show(monkeypatch):
    """A page's `{recorded} RUN PART`: the warnings, and the lines of Markdown that come of it."""
    monkeypatch.syspath_prepend(EXTENSIONS)
    from book_results import Recorded

    def run(name, part):
        warned, lines = [], []
        state = SimpleNamespace(
            document=SimpleNamespace(reporter=SimpleNamespace(warning=lambda text, line: warned.append(text))),
            nested_parse=lambda text, offset, box: lines.extend(text),
        )
        Recorded("recorded", [name, part], {}, [], 1, 0, "", state, SimpleNamespace(reporter=None)).run()
        return warned, lines

    return run


@pytest.mark.parametrize("name", ["patch-digits-small", "train-mnist-small"])
def test_a_table_comes_with_its_setting(show, name):
    frame = recorded(name).frame
    part = frame["part"][0]
    warned, lines = show(name, part)
    assert (warned, lines[0]) == ([], EXPERIMENTS["patch"].markdown(frame, part).splitlines()[0])
    assert lines[-1].startswith(f"{setting(frame, part)}. Recorded on ")


@pytest.mark.parametrize(
    ("name", "part", "says"),
    [
        ("patch-digits-smal", "patch", "did you mean 'patch-digits-small'"),
        ("patch-digits-small", "pach", "did you mean 'patch'"),
        ("cost-digits-small", "short", "part of this table"),
    ],
)
def test_what_has_no_such_table_is_a_warning(show, name, part, says):
    (warning,), lines = show(name, part)
    assert says in warning
    assert warning.startswith(f"{name} {part}: ")
    assert not lines
