"""The self-checks of the chapters on new networks, data and attacks: right answers pass, wrong ones say why."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import transfer as selfcheck
from metarobust.learned.protocol import places
from metarobust.models import build
from metarobust.params import ParamSpec

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_shape_of_a_convolution():
    assert selfcheck.matrix_shape((12, 54))
    wrong = {(54, 12): "transpose", (12, 6): "place of the window", (12, 9): "each", (72, 9): "share a row",
             (6, 108): "output channel", (1, 1): "comes out"}  # fmt: skip
    for answer, says in wrong.items():
        verdict = selfcheck.matrix_shape(answer)
        assert not verdict
        assert says in str(verdict)
    for nothing in (None, 54, (12,), "12 x 54"):
        assert "no two numbers" in str(selfcheck.matrix_shape(nothing))


def test_shape_is_what_the_library_makes():
    second = next(
        p for p in places(ParamSpec.of(build("cnn-6-12-relu", (1, 8, 8), 10))) if len(p.shape) == 4 and p.layer
    )
    assert selfcheck.matrix_shape((second.rows, second.columns))


def rows_right(weight):
    matrix = weight.flatten(1).square()
    return (matrix.mean(1) / matrix.mean()).log()


ROWS_WRONG = {
    "for each row": lambda w: (w.flatten(1).square().mean(0) / w.square().mean()).log(),
    "flatten all axes": lambda w: (w.square().mean(1) / w.square().mean()).log() + torch.zeros(w.shape[0]),
    "hundred times": lambda w: w.flatten(1).square().mean(1).log(),
    "column stands there twice": lambda w: (w.flatten(1).square().sum(1) / w.square().mean()).log(),
    "row stands there twice": lambda w: (w.flatten(1).square().mean(1) / w.flatten(1).square().mean(1).sum()).log(),
    "logarithms": lambda w: w.flatten(1).square().mean(1) / w.square().mean(),
    "not the logarithms": lambda w: (w.flatten(1).abs().mean(1) / w.abs().mean()).log(),
    "changes the weight": lambda w: rows_right(w.mul_(2)),
    "does not give one number": lambda w: print(rows_right(w)),
}


def rows_stub(weight): ...


def test_row_sizes():
    assert selfcheck.row_sizes(rows_right)
    assert "nothing is written" in str(selfcheck.row_sizes(rows_stub))


@pytest.mark.parametrize("says", ROWS_WRONG)
def test_wrong_row_sizes_fail_with_a_useful_hint(says):
    verdict = selfcheck.row_sizes(ROWS_WRONG[says])
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint


def test_falls():
    assert selfcheck.falls(0.64, 0.8)
    for linf, l2, says in (
        (None, 0.8, "two numbers"),
        (0.8, 0.64, "swapped"),
        (0.36, 0.6, "lost"),
        (0.5, 0.8, "L-infinity"),
        (0.64, 0.64, "share in L2"),
    ):
        verdict = selfcheck.falls(linf, l2)
        assert not verdict
        assert says in str(verdict)


def step_right(x, current, gradient, size, eps):
    def length(t):
        return t.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    change = current + size * gradient / length(gradient) - x
    return (x + change * (eps / length(change)).clamp(max=1)).clamp(0, 1)


def step_stub(x, current, gradient, size, eps): ...


def step_sign(x, current, gradient, size, eps):
    return step_right(x, current, gradient.sign() * 1e6, size * 3, eps)


def step_linf(x, current, gradient, size, eps):
    moved = current + size * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)


def step_whole_batch(x, current, gradient, size, eps):
    moved = current + size * gradient / gradient.norm().clamp_min(1e-12)
    change = moved - x
    return (x + change * (eps / change.norm()).clamp(max=1)).clamp(0, 1)


def step_divides_by_zero(x, current, gradient, size, eps):
    unit = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return step_right(x, current + size * unit, torch.zeros_like(x), size, eps)


def step_shrinks_always(x, current, gradient, size, eps):
    moved = step_right(x, current, gradient, size, 1e9)
    change = moved - x
    return (x + 0.9 * change * (eps / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)).clamp(0, 1)


def step_in_place(x, current, gradient, size, eps):
    current += 0.001
    return step_right(x, current, gradient, size, eps)


def step_no_clamp(x, current, gradient, size, eps):
    moved = current + size * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    change = moved - x
    return x + change * (eps / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)


STEPS_WRONG = {
    "has not length": step_sign,
    "leaves its ball": step_linf,
    "image by image": step_whole_batch,
    "gradient of zero": step_divides_by_zero,
    "goes down": lambda x, c, g, s, e: step_right(x, c, -g, s, e),
    "leave [0, 1]": step_no_clamp,
    "changes the images": step_in_place,
    "shape": lambda x, c, g, s, e: step_right(x, c, g, s, e).flatten(1),
}


def test_l2_step():
    assert selfcheck.l2_step(step_right)
    assert "nothing is written" in str(selfcheck.l2_step(step_stub))
    assert "view them as" in str(selfcheck.l2_step(lambda x, c, g, s, e: c + s * g / g.flatten(1).norm(dim=1)[:, None]))
    assert not selfcheck.l2_step(step_shrinks_always)


@pytest.mark.parametrize("says", STEPS_WRONG)
def test_wrong_steps_fail_with_a_useful_hint(says):
    verdict = selfcheck.l2_step(STEPS_WRONG[says])
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint


@pytest.mark.parametrize(("chapter", "name"), [("new-architectures", "row_sizes"), ("new-data", "l2_step")])
def test_solution_in_the_notebook_passes(chapter, name):
    text = "\n".join("".join(c["source"]) for c in json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"])
    (code,) = re.findall(rf"```python\n(def {name}.*?)```", text, flags=re.S)
    found = {"torch": torch}
    exec(code, found)
    assert getattr(selfcheck, name)(found[name])
