"""Exercises of the two-by-two."""

from math import hypot, isclose
from statistics import stdev

from metarobust.book.exercises.check import function, number

T_OF_FOUR = 3.182446305284263
"""The 97.5 % point of Student's t with three degrees of freedom: for four seeds."""

# 40 episodes of 4 networks, 20 steps of 64 images, 4 meta-losses on 128 each; then 10 networks are patched. How many
# adversarial images does each corner need? Steps / meta-loss: both clean, clean/attacked, attacked/clean, both.
STEPS, LOSSES, PATCHING = 40 * 4 * 20 * 64, 40 * 4 * 4 * 128, 10 * 20 * 64
examples_of_corners = number(
    (0, LOSSES, STEPS + PATCHING, STEPS + PATCHING + LOSSES),
    {
        (0, LOSSES + PATCHING, None, None): "patching has no meta-loss, and in transfer mode its steps are clean.",
        (0, LOSSES // 4, None, None): "the meta-loss is measured on each of the four networks, four times.",
        (0, LOSSES, STEPS, None): "an optimizer that learned on attacked images gets them while patching, too.",
        (0, LOSSES, STEPS + PATCHING, STEPS + PATCHING): "in the last corner the meta-loss is attacked, too.",
    },
    first="begin with the corner that needs none at all.",
    passed=f"{LOSSES:,} for the meta-loss, {STEPS:,} for the steps of meta-training, {PATCHING:,} for patching.",
    exact=True,
)


@function(
    first="begin with [one[seed] - other[seed] for seed in one].", stops="both are dictionaries: seed to accuracy."
)
def paired(rule):
    """`rule(one, other)`, both seed to accuracy: mean of one minus other, and half the width of its 95 % t-interval."""
    one = {0: 0.50, 1: 0.62, 2: 0.41, 3: 0.55}
    other = {3: 0.52, 2: 0.40, 1: 0.58, 0: 0.50}  # the same seeds in another order
    result = rule(one, other)
    two = isinstance(result, tuple | list) and len(result) == 2
    yield two, "it does not return two numbers.", "return mean, half."
    mean, half = map(float, result)
    yield (
        isclose(mean, 0.02, abs_tol=1e-9),
        f"the mean is {mean:+.4f}, not +0.0200.",
        "one minus other, over the seeds.",
    )
    error = stdev(one[seed] - other[seed] for seed in one) / 2  # of the mean of four
    by_place = stdev(a - b for a, b in zip(one.values(), other.values(), strict=True)) / 2
    mistakes = {
        T_OF_FOUR * by_place: "pair by seed: here the seeds of the two come in another order.",
        1.959963985 * error: "that is 1.96, of a normal distribution; with few seeds take Student's t.",
        T_OF_FOUR * error * 0.75**0.5: "divide the squares by n - 1: the mean was taken out of the same numbers.",
        T_OF_FOUR * error * 2: "divide by the square root of n: it is the interval of a mean.",
        T_OF_FOUR * hypot(stdev(one.values()), stdev(other.values())) / 2: "take differences first, then an interval.",
        error: "that is the standard error; multiply by the point of Student's t.",
    }
    hint = "t(0.975, n - 1) * standard deviation of the differences / sqrt(n)."
    hint = next((words for wrong, words in mistakes.items() if isclose(half, wrong, rel_tol=2e-3)), hint)
    right = isclose(half, T_OF_FOUR * error, rel_tol=2e-3)
    yield right, f"half the width is {half:.4f}, not {T_OF_FOUR * error:.4f}.", hint
    back, _ = rule(other, one)
    yield isclose(back, -mean, abs_tol=1e-9), "turned round, the difference keeps its sign.", "no abs()."
