"""The self-checks of "Read a learned optimizer": right answers pass, wrong ones fail with a useful hint."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import dissection as selfcheck
from metarobust.lab.what_was_learned.explained import shares

ROOT = Path(__file__).resolve().parents[2]


def columns(y, w, *, over=0, p=None, centre=False):
    factors = (y * w).sum(over, keepdim=True) / (w * w).sum(over, keepdim=True)
    left, n = y - factors * w, y.numel()
    p = factors.numel() if p is None else p
    whole = y - y.mean() if centre else y
    return 1 - (left.square().sum() / (n - p)) / (whole.square().sum() / n)


def right(y, w):
    return columns(y, w)


def a_float(y, w):
    return float(columns(y, w))


def stub(y, w): ...


def vector(y, w):
    return columns(y, w).expand(4)


def in_place(y, w):
    found = columns(y, w)
    y -= w
    return found


def absolute(y, w):
    return columns(y.abs(), w.abs()) / 2


def free_of_charge(y, w):
    return columns(y, w, p=0)


def one_paid(y, w):
    return columns(y, w, p=1)


def at_once(y, w):
    return columns(y, w, over=(0, 1))


def rows(y, w):
    return columns(y, w, over=1)


def centred(y, w):
    return columns(y, w, centre=True) if y.mean() > 0.05 else columns(y, w)


def left_over(y, w):
    return 1 - columns(y, w) if columns(y, w) < 0.999 else columns(y, w)


def otherwise(y, w):
    return columns(y, w) ** 3


def crashes(y, w):
    return y @ w


@pytest.mark.parametrize("answer", [right, a_float])
def test_right_answers_pass(answer):
    assert str(selfcheck.by_columns(answer)).startswith("Passed: ")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (crashes, "it stops with RuntimeError"),
        (vector, "one number"),
        (in_place, "changes the tensors"),
        (absolute, "all decay"),
        (free_of_charge, "n - p"),
        (one_paid, "p is not 1"),
        (at_once, "whole matrix"),
        (rows, "for each row"),
        (centred, "take off the mean"),
        (left_over, "not explained"),
        (otherwise, "with p the number"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_answers_fail_with_their_hint(answer, says):
    verdict = selfcheck.by_columns(answer)
    assert not verdict
    assert says in str(verdict)
    assert len(str(verdict).splitlines()) == 2


def test_the_right_answer_is_that_of_the_experiment():
    generator = torch.Generator().manual_seed(0)
    y, w = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    theirs = shares(y, w, {"sign steps": w, "Adam": y}, None)["columns"]
    torch.testing.assert_close(theirs, right(y, w))


def test_given_up():
    assert selfcheck.given_up(0.8)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "no number yet"),
        (0.2, "kept"),
        (1 / 1.5, "power of the slope"),
        (0.25, "the power alone"),
        (1 / 1.01, "threshold first"),
        (0.5, "one over that"),
    ],
)
def test_wrong_numbers_get_a_hint(answer, says):
    verdict = selfcheck.given_up(answer)
    assert not verdict
    assert says in str(verdict)


def test_the_solution_that_the_notebook_shows_passes():
    notebook = json.loads((ROOT / "notebooks/what-was-learned.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    (solution,) = re.findall(r"^```python\n(def share.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch}
    exec(solution, names)
    assert selfcheck.by_columns(names["share"])
