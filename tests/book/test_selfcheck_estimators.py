"""The self-checks of "Watch meta-gradients explode": right answers pass, wrong ones fail with a useful hint."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import estimators as selfcheck

ROOT = Path(__file__).resolve().parents[2]


def one(stretch, theta, sigma, points, sums, directions, *, weigh=lambda sums, move: sums + move, over=2, power=2):
    move = sigma * directions
    losses, points = stretch(torch.stack([theta + move, theta - move]), points)
    weights = weigh(sums, move)
    return ((losses[0] - losses[1]) * weights).mean() / (over * sigma**power), points, sums + move


def right(*given):
    return one(*given)


def stub(*given): ...


def two_results(*given):
    return one(*given)[:2]


def no_mean(*given):
    gradient, points, sums = one(*given)
    return gradient.expand(3), points, sums


def in_place(stretch, theta, sigma, points, sums, directions):
    found = one(stretch, theta, sigma, points, sums.clone(), directions)
    sums += sigma * directions
    return found


def exchanged(stretch, theta, sigma, points, sums, directions):
    return one(stretch, theta, sigma, points, sums, -directions)


def stays(stretch, theta, sigma, points, sums, directions):
    gradient, _, summed = one(stretch, theta, sigma, points, sums, directions)
    return gradient, points, summed


def forgets(*given):
    gradient, points, _ = one(*given)
    return gradient, points, given[2] * given[5]


def truncated(*given):
    return one(*given, weigh=lambda sums, move: move)


def late(*given):
    return one(*given, weigh=lambda sums, move: sums)


def one_sigma(*given):
    return one(*given, power=1)


def no_two(*given):
    return one(*given, over=1)


def summed(*given):
    return one(*given, over=2 / 3)


def otherwise(*given):
    return one(*given, over=-2)


def crashes(stretch, theta, sigma, points, sums, directions):
    return stretch(theta, points[:, :2] + sums)


def test_the_right_answer_passes():
    assert str(selfcheck.persistent(right)).startswith("Passed: ")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (crashes, "it stops with RuntimeError"),
        (two_results, "three tensors"),
        (no_mean, "other shapes"),
        (in_place, "sums += move"),
        (exchanged, "exchanged"),
        (stays, "where they should"),
        (forgets, "add this stretch's move"),
        (truncated, "blind to the past"),
        (late, "belongs to the sum, too"),
        (one_sigma, "divide by sigma^2"),
        (no_two, "2 sigma apart"),
        (summed, "mean over pairs"),
        (otherwise, "the gradient is wrong"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_answers_fail_with_their_hint(answer, says):
    verdict = selfcheck.persistent(answer)
    assert not verdict
    assert says in str(verdict)
    assert len(str(verdict).splitlines()) == 2


@pytest.mark.parametrize("answer", [2.2**10, -(2.2**10), 2656])
def test_nudge(answer):
    assert selfcheck.nudge(answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "no number yet"),
        (2.2, "one step"),
        (22, "not added"),
        (3.2**10, "1 - a f''"),
        (0.6**10, "second derivative"),
        (4.2**10, "downhill"),
        (7, "product"),
    ],
)
def test_wrong_numbers_get_a_hint(answer, says):
    verdict = selfcheck.nudge(answer)
    assert not verdict
    assert says in str(verdict)


def test_the_solution_that_the_notebook_shows_passes():
    notebook = json.loads((ROOT / "notebooks/exploding-meta-gradients.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    (solution,) = re.findall(r"^```python\n(def pes.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch}
    exec(solution, names)
    assert selfcheck.persistent(names["pes"])
