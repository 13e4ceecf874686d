"""Recorded tables on pages of the book: what a page asks for is shown, or is a warning that says what is wrong."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import recorded
from metarobust.lab.summary import setting

pytest.importorskip("sphinx")


@pytest.fixture
def show(monkeypatch):
    """A page's `{recorded} RUN PART`: the warnings, and the lines of Markdown that come of it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "book" / "_ext"))
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
    assert not warned
    assert lines[0] == EXPERIMENTS["patch"].markdown(frame, part).splitlines()[0]
    assert lines[-1].startswith(f"{setting(frame, part)}. Recorded on ")


@pytest.mark.parametrize(
    ("name", "part", "says"),
    [
        ("patch-digits-smal", "patch", "did you mean 'patch-digits-small'"),
        ("patch-digits-small", "pach", "did you mean 'patch'"),
        ("cost-digits-small", "half-gain", "part 'half-gain' holds no accuracy under attack"),
        ("cost-digits-small", "short", "part of this table"),
    ],
)
def test_what_has_no_such_table_is_a_warning(show, name, part, says):
    (warning,), lines = show(name, part)
    assert says in warning
    assert warning.startswith(f"{name} {part}: ")
    assert not lines
