"""The self-checks on costs: right answers pass, each wrong one gets its own hint, and the page's solution is right."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import costs as check
from metarobust.lab.cost.break_even import break_even

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "costs-and-limits.ipynb"


def test_the_number_of_models_is_the_librarys():
    first, last = break_even(check.ONCE, check.EACH, check.SEARCH, check.OTHER)
    assert check.models_until_it_pays(int(first))
    assert last == float("inf")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "no number yet"),
        (True, "no number yet"),
        (1600, "search is paid once"),
        (800, "not free"),
        (1200, "left out"),
        (2133, "head start smaller"),
        (1066, "whole models"),
        (1066.67, "whole models"),
        (3, "divided by what is saved"),
    ],
)
def test_a_wrong_number_of_models_gets_its_hint(answer, says):
    verdict = check.models_until_it_pays(answer)
    assert not verdict
    assert says in str(verdict)


def right(validation, test):
    return test[validation.mean(1).argmax()].mean().item()


def by_test(validation, test):
    return test.mean(1).max()


def best_of_all(validation, test):
    return test.max()


def best_seed(validation, test):
    return test[validation.mean(1).argmax()].max()


def tells_validation(validation, test):
    return validation.mean(1).max()


def lucky_setting(validation, test):
    return test[validation.amax(1).argmax()].mean()


def lucky_everything(validation, test):
    return test.flatten()[validation.argmax()]


def over_all(validation, test):
    return test.mean()


def by_median(validation, test):
    return test[validation.median(1).values.argmax()].mean()


def typed(validation, test):
    return right(check.VALIDATION, check.TEST)


def third_row(validation, test):
    return test[2].mean()


def in_place(validation, test):
    validation.zero_()
    return test.mean()


def of_seeds(validation, test):
    return test.mean(0)


def stub(validation, test): ...


def test_the_right_report_passes():
    verdict = check.honest(right)
    assert verdict
    assert str(verdict).startswith("Passed")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (by_test, "test images chose"),
        (best_of_all, "best seed of the best setting"),
        (best_seed, "best seed was picked"),
        (tells_validation, "chosen by"),
        (lucky_setting, "lucky seed chose the setting"),
        (lucky_everything, "one seed was reported"),
        (over_all, "no setting was chosen"),
        (by_median, "median"),
        (third_row, "another order"),
        (in_place, "changes the tables"),
        (of_seeds, "stops with"),
        (stub, "nothing is written"),
        (lambda validation, test: 0.123, "which row"),
    ],
)
def test_a_wrong_report_gets_its_hint(answer, says):
    verdict = check.honest(answer)
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint
    assert check.honest(right), "what one answer does must not touch the next"


def test_the_mistakes_have_numbers_of_their_own():
    wrong = [by_test, best_of_all, best_seed, tells_validation, lucky_setting, lucky_everything, over_all, by_median]
    numbers = [float(answer(check.VALIDATION, check.TEST)) for answer in (right, *wrong)]
    apart = torch.pdist(torch.tensor(numbers)[:, None])
    assert apart.min() > 1e-3


def test_the_solution_that_the_notebook_shows_passes():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (solution,) = re.findall(r"^```python\n(def report.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch}
    exec(solution, names)
    assert check.honest(names["report"])
