"""The graders, graded: right answers of any style earn everything, wrong ones lose what they violate and no more."""

import math
import warnings

import masters
import pytest
import torch
from answers import attacks, evaluation, mistakes, optimizer

from metarobust import course
from metarobust.course.calls import Reply
from metarobust.errors import InputError

ANSWERS = [*attacks.ANSWERS, *evaluation.ANSWERS, *optimizer.ANSWERS, *mistakes.ANSWERS]
QUESTIONS = [(number, question) for number in course.NUMBERS for question in course.assignment(number).questions]
SEEDS = (0, 1, 77)  # the student's own check, and hidden variants
questions = pytest.mark.parametrize(
    ("number", "question"), QUESTIONS, ids=lambda value: getattr(value, "name", None) or str(value)
)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.number}-{a.question}-{a.name}")
def test_an_answer_loses_what_it_violates_and_nothing_else(answer):
    question = course.assignment(answer.number).question(answer.question)
    for seed in SEEDS:
        found = question.mark(answer.function, (seed,))
        assert found.failed == answer.loses, (seed, str(found))
        assert found.points == sum(p.points for p in question.properties if p.name not in found.failed)
        assert all(len(finding.hint.split()) >= 3 for finding in found.findings if finding.said)


def test_every_property_has_a_wrong_answer_and_every_question_enough():
    alone = {one[:3] for one in ANSWERS}
    assert alone >= {(n, q.name, frozenset([p.name])) for n, q in QUESTIONS for p in q.properties}
    for n, q in QUESTIONS:
        right, wrong = (
            [a for a in ANSWERS if a[:2] == (n, q.name) and (not a.loses) == fine] for fine in (True, False)
        )
        assert len(right) >= 12, q
        assert len(wrong) >= 10, q
        assert len({one.name for one in (*right, *wrong)}) == len(right) + len(wrong)


@questions
def test_who_has_not_begun_gets_nothing_and_is_told_to_begin(number, question):
    found = question.mark(lambda *given: None, SEEDS)
    assert found.points == question.mark(None).points == 0
    assert "returns nothing yet" in str(found)
    assert "write the function" in str(found)


RUBBISH = [  # and what is next to nothing
    lambda *given: given[0], lambda *given: given[1], lambda *given: (given[1], given[2]), lambda *given: "honest",
    lambda *given: torch.zeros_like(given[1]), lambda *given: torch.ones(()), lambda *given: 0.5, lambda: 0,
    lambda *given: {"clean": 0.0, "robust": 0.0, "n": 12, "low": 0.0, "high": 0.0}, lambda *given: -math.inf,
    lambda *given: {"clean": "a", "robust": None, "n": 0, "low": 1, "high": object()}, lambda *given: object(),
    lambda *given: (_ for _ in ()).throw(TypeError("x" * 10_000)), lambda *given: torch.full((2, 3), math.nan),
    lambda *given: torch.zeros(0), lambda *given: [[], [1, 2], {}], lambda *given: [{1: iter(int, 1)}] * 3,
]  # fmt: skip


@pytest.mark.parametrize("answer", RUBBISH)
@questions
def test_next_to_nothing_and_rubbish_earn_nothing(number, question, answer):
    found = question.mark(answer, (3,))
    assert found.points == 0, str(found)
    assert len(str(found)) < 3000
    assert "\n\n" not in str(found)


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, torch.zeros(3), {"stopped": 3}, {"type": []}, [None] * 3])
def test_a_forged_reply_ends_in_points(value):
    names = ("value", "graph", "chained", "slopes", "kept", "notes")
    for _, question in QUESTIONS:
        for forged in ({}, dict.fromkeys(names, value), {"value": value}, {"kept": [value] * 9, "value": value}):
            found = question.judge((0,), lambda *given, forged=forged, **options: Reply(forged))
            assert found.points < question.out_of


@questions
def test_what_a_student_has_set_does_not_reach_the_check_and_stays(number, question):
    function = masters.solve(number)[question.answer]
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = question.mark(function)
            assert torch.zeros(1).device.type == "meta"
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert found, str(found)
    assert torch.equal(torch.get_rng_state(), state)


def test_suspects_look_alike():
    models = course.suspects(torch.nn.Linear(4, 2), 3)
    assert len({repr(model) for model in models.values()}) == len({type(model) for model in models.values()}) == 1
    assert len(set(map(frozenset, (vars(model) for model in models.values())))) == 1
    x = torch.rand(5, 4)
    assert len({str(model(x)) for model in models.values()}) > 3


(NO_CLAMP,) = (one.function for one in attacks.FGSM if one.name == "no clamp")


def test_a_mark_reads_well():
    text = str(course.check(1, "q2", NO_CLAMP))
    assert text.splitlines()[0] == "q2 fgsm: 7 of 8 points"
    assert "  --  0/1  range: pixels run from" in text
    assert "Hint: clamp the image to [0, 1]" in text
    assert text.count("  ok  ") == 5


def test_one_property_for_a_test_file(monkeypatch):
    course.earn(1, "q2", "ball", NO_CLAMP)
    with pytest.raises(AssertionError, match=r"range: pixels run .* Hint: clamp"):
        course.earn(1, "q2", "range", NO_CLAMP, hidden=True)
    monkeypatch.setenv(course.SECRET, "12")
    course.earn(1, "q2", "full", NO_CLAMP, hidden=True)
    monkeypatch.setenv(course.SECRET, "twelve")
    with pytest.raises(InputError, match="'twelve'"):
        course.earn(1, "q2", "full", NO_CLAMP, hidden=True)
    bad = {(5, "q1", "ball"): "no assignment 5", (1, "q9", "ball"): "'q9'", (1, "q1", "bal"): "did you mean 'ball'"}
    for given, says in bad.items():
        with pytest.raises(InputError, match=says):
            course.earn(*given, NO_CLAMP)
