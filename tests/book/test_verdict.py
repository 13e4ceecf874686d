"""What the readers' checks share: what counts as unwritten, which hint an answer gets that stops, and numbers."""

import math
import operator

import pytest
import torch

from metarobust.book.exercises import first as selfcheck
from metarobust.book.exercises.check import Verdict, absolutely, judged, number

HINTS = {"first": "begin here.", "stops": "look at the input.", "later": "look at other inputs."}


def claims(answer):
    yield answer(2) == 4, "it is not the square.", "multiply."
    yield answer(-3) == 9, "it fails below 0.", "no abs()."


def asked(answer, **hints):
    return judged(answer, claims(answer), passed="it squares.", **(hints or HINTS))


def empty(x): ...


def passes(x):
    pass


def described(x):
    """The square."""


def described_and_empty(x):
    """The square."""
    ...  # your code here: x * x


@torch.no_grad()
def decorated(x): ...


@pytest.mark.parametrize("answer", [empty, passes, described, described_and_empty, decorated, lambda x: None])
def test_an_empty_function_is_not_written_yet(answer):
    assert asked(answer) == Verdict(False, "nothing is written yet.", "begin here.")


def forgets_return(x):
    x * x


def does_nothing_with_it(x):
    y = x  # noqa: F841


@pytest.mark.parametrize("answer", [forgets_return, does_nothing_with_it, lambda x: 0])
def test_a_function_with_a_line_in_it_is_judged(answer):
    assert asked(answer) == Verdict(False, "it is not the square.", "multiply.")


def unfinished(x):
    raise NotImplementedError("to do\nlater")


def stops_below_zero(x):
    return round(math.sqrt(x) ** 4)


def test_an_answer_that_stops_gets_the_hint_of_the_place():
    assert asked(unfinished) == Verdict(False, "it stops with NotImplementedError: to do", "look at the input.")
    assert asked(stops_below_zero).hint == "look at other inputs."
    assert "ValueError" in asked(stops_below_zero).said
    assert asked(stops_below_zero, first="begin here.", stops="look at the input.").hint == "look at the input."
    assert asked(unfinished, first="begin here.").hint == "begin here."


@pytest.mark.parametrize("answer", [None, 3, "x * x"])
def test_what_is_no_function_stops(answer):
    assert "it stops with TypeError" in asked(answer).said


def test_the_first_claim_that_fails_is_the_verdict():
    assert asked(lambda x: x * x) == Verdict(True, "it squares.")
    assert asked(lambda x: x * abs(x)) == Verdict(False, "it fails below 0.", "no abs().")
    assert asked(operator.neg) == Verdict(False, "it is not the square.", "multiply.")


def close_to_ten(answer, **how):
    return number(answer, 10, {20: "half of it.", 0: "more."}, first="count.", passed="ten.", **how)


@pytest.mark.parametrize("answer", [10, 10.04, 9.96])
def test_a_number_is_right_to_half_a_per_cent(answer):
    assert close_to_ten(answer)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (None, Verdict(False, "there is no number yet.", "count.")),
        (True, Verdict(False, "there is no number yet.", "count.")),
        ("10", Verdict(False, "there is no number yet.", "count.")),
        (10.06, Verdict(False, "10.06 is not it.", "count.")),
        (math.nan, Verdict(False, "nan is not it.", "count.")),
        (20.09, Verdict(False, "20.09 is not it.", "half of it.")),
        (0, Verdict(False, "0 is not it.", "more.")),
    ],
)
def test_other_numbers_get_their_hint(answer, verdict):
    assert close_to_ten(answer) == verdict


def test_a_check_may_say_how_close_and_in_which_words():
    assert not close_to_ten(10.006, close=absolutely)
    assert close_to_ten(10.004, close=absolutely)
    said = close_to_ten(1234, what="the count", other="divide.", shown=",", close=operator.eq)
    assert said == Verdict(False, "1,234 is not the count.", "divide.")


def test_verdict_is_found_where_the_checks_are():
    assert selfcheck.Verdict is Verdict
