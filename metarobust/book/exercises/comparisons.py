"""Checks of the readers' answers to the exercises on the two-by-two and on few images.

As in `exercises.first`: properties on tiny fixed numbers, where the right answer is known; a verdict, and nothing
is raised.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

from metarobust.book.exercises.check import Claim, Verdict, judged, number

EPISODES, NETWORKS, STEPS, BATCH, JUDGED, SCORES, PATCHED = 40, 4, 20, 64, 128, 4, 10
"""Of the warm-up: lessons; networks of a lesson; steps, their images; images of a score; scores; networks to patch."""


def examples_of_corners(answer: Sequence[float] | None) -> Verdict:
    """The warm-up of the two-by-two: adversarial images that each corner needs, at school and at work together.

    In the order of the table, row by row: clean/clean, clean/attacked, attacked/clean, attacked/attacked.
    """
    steps, judge = EPISODES * NETWORKS * STEPS * BATCH, EPISODES * SCORES * NETWORKS * JUDGED
    work = PATCHED * STEPS * BATCH
    right = 0, judge, steps + work, steps + work + judge
    try:
        given = tuple(float(number) for number in answer)
    except (TypeError, ValueError):
        return Verdict(False, "there are no four numbers yet.", "begin with the corner that needs none at all.")
    if len(given) != 4:
        return Verdict(False, f"there are {len(given)} numbers, not four.", "one for each corner, row by row.")
    if given == right:
        return Verdict(True, f"{judge:,} for the judge, {steps:,} for the steps at school, {work:,} at work.")
    hints = {
        (1, judge + work): "at work nobody judges; and in transfer mode the steps at work are clean.",
        (1, judge // NETWORKS): "a score is taken of each of the four networks.",
        (1, judge // SCORES): "the judge scores a network four times in a lesson.",
        (2, steps): "an optimizer that was raised on attacked images gets attacked images at work, too.",
        (2, work): "its steps at school are on attacked images, too.",
        (3, steps + judge): "and at work?",
        (3, steps + work): "in this corner the judge attacks, too.",
    }
    place = next(i for i in range(4) if given[i] != right[i])
    names = ("clean / clean", "clean / attacked", "attacked / clean", "attacked / attacked")
    start = (
        "steps: lessons, networks, steps, images. Judge: lessons, scores, networks, images. Work: networks, steps..."
    )
    return Verdict(False, f"{names[place]}: {given[place]:,.0f} is not it.", hints.get((place, given[place]), start))


Pair = Callable[[Mapping[int, float], Mapping[int, float]], tuple[float, float]]
T_OF_FOUR = 3.182446305284263
"""The 97.5 % point of Student's t with three degrees of freedom: for four seeds."""


def paired(rule: Pair) -> Verdict:
    """`rule(one, other)`: mean of one minus other over the seeds, and half the width of its 95 % t-interval.

    Both are dictionaries, seed to accuracy.
    """
    return judged(
        rule,
        _paired_claims(rule),
        first="begin with [one[seed] - other[seed] for seed in one].",
        stops="one and other are dictionaries: one[seed] is an accuracy.",
        later="it has to work for any two dictionaries with the same seeds.",
        passed="it pairs by seed, keeps the sign, and what both share drops out of the interval.",
    )


def _paired_claims(rule: Pair) -> Iterator[Claim]:
    one = {0: 0.50, 1: 0.62, 2: 0.41, 3: 0.55}
    other = {3: 0.52, 2: 0.40, 1: 0.58, 0: 0.50}  # the same seeds in another order
    kept = dict(one), dict(other)
    found = rule(one, other)
    two = isinstance(found, tuple | list) and len(found) == 2
    yield two, "it does not return two numbers.", "return mean, half."
    yield (one, other) == kept, "it changes what it was given.", "build a list of differences of your own."
    mean, half = map(float, found)
    hint = "one minus other, then the mean over the seeds."
    yield math.isclose(mean, 0.02, abs_tol=1e-9), f"the mean difference is {mean:+.4f}, not +0.0200.", hint
    spread = math.sqrt(sum((one[seed] - other[seed] - 0.02) ** 2 for seed in one) / 3)
    right = T_OF_FOUR * spread / 2
    unpaired = T_OF_FOUR * math.sqrt(sum(_variance(list(side.values())) for side in (one, other)) / 4)
    places = [a - b for a, b in zip(one.values(), other.values(), strict=True)]
    mistakes = {
        T_OF_FOUR * math.sqrt(_variance(places) / 4): "pair by seed: here the seeds of the two come in another order.",
        right * 1.959963985 / T_OF_FOUR: "that is 1.96, of a normal distribution; with few seeds take Student's t.",
        right * math.sqrt(0.75): "divide the sum of squares by n - 1: the mean was taken out of the same numbers.",
        right * 2: "divide by the square root of n: it is the interval of a mean.",
        right / 2: "divide by the square root of n, not by n.",
        unpaired: "those are two intervals added up. Take the differences first, then one interval of them.",
        spread / 2: "that is the standard error; multiply by the point of Student's t.",
    }
    near = [hint for value, hint in mistakes.items() if math.isclose(half, value, rel_tol=2e-3)]
    hint = near[0] if near else "t(0.975, n - 1) * standard deviation of the differences / sqrt(n)."
    yield math.isclose(half, right, rel_tol=2e-3), f"half the width is {half:.4f}, not {right:.4f}.", hint
    back, width = rule(other, one)
    yield math.isclose(back, -mean, abs_tol=1e-9), "turned round, the difference keeps its sign.", "no abs()."
    yield math.isclose(width, half, rel_tol=1e-6), "turned round, the interval gets another width.", "no sign in it."
    hard = {0: 0.0, 1: 0.3, 2: -0.2, 3: 0.1}  # a seed may be harder for both
    shifted = ({seed: side[seed] + hard[seed] for seed in side} for side in (one, other))
    same = math.isclose(rule(*shifted)[1], half, rel_tol=1e-6)
    yield same, "seeds that are harder for both widen the interval.", "only differences within a seed may count."


def _variance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def times_seen(answer: float | None) -> Verdict:
    """The warm-up of few images: 100 steps of 64 images out of 50; how often does each come up, on average?"""
    mistakes = {
        6400: "that is how many images are drawn in all. There are fifty different ones.",
        640: "that is for each class. How many images does a class have?",
        1280: "there are fifty images: five of each of ten classes.",
        100: "that would be each image once in a step. A step draws 64 out of 50.",
        64: "that is one step's batch.",
        896: "drawn, not attacked: the seven steps of an attack move the same image.",
    }
    first = "how many images are drawn in a hundred steps?"
    passed = "6,400 draws out of 50 images: 128 times each. With 400 images it is 16 times."
    other = "draws in all, by different images."
    return number(answer, 128, mistakes, first=first, passed=passed, other=other, close=operator.eq)


Stop = Callable[[Sequence[float], Sequence[float]], tuple[int, float]]


def stopped(stop: Stop) -> Verdict:
    """`stop(held_out, test)`: the place where held_out is best, the first of equals, and what test says there."""
    return judged(
        stop,
        _stop_claims(stop),
        first="which list may decide, and which may only report?",
        stops="held_out and test are lists of equal length.",
        passed="the held-out images decide, the test images report.",
    )


def _stop_claims(stop: Stop) -> Iterator[Claim]:
    held_out, test = [0.30, 0.42, 0.55, 0.51, 0.55, 0.40], [0.28, 0.40, 0.47, 0.52, 0.50, 0.56]
    kept = list(held_out), list(test)
    found = stop(held_out, test)
    two = isinstance(found, tuple | list) and len(found) == 2
    yield two, "it does not return a place and an accuracy.", "return place, test[place]."
    yield (held_out, test) == kept, "it changes the lists that it was given.", "sort a copy, or do not sort."
    place, value = found
    hint = "the test accuracies decide here. Find the place in held_out."
    yield place != 5, "it stops where the test is best.", hint
    yield place != 4, "of two equals it takes the later one.", "stop at the first: later ones cost more steps."
    yield place == 2, f"it stops at place {place}, not at 2.", "places count from 0; the largest of held_out."
    yield value == test[2], f"it reports {value}, not what the test says there.", "return test[place], not held_out's."
    other = stop(held_out, [1 - share for share in test])[0]
    yield other == place, "another test moves the place where it stops.", hint
    yield stop([0.9, 0.1], [0.2, 0.8]) == (0, 0.2), "it misses a best place at the start.", "look at all places."
