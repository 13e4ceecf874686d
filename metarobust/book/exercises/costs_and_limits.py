"""Exercises of costs and limits."""

import torch

from metarobust.book.exercises.check import function, near, number

ONCE, EACH, SEARCH, OTHER = 12_000_000, 2_500, 4_000_000, 10_000
"""In evaluations: meta-training, a learned patch; another method's search, one of its patches."""

# The least whole n with ONCE + n * EACH <= SEARCH + n * OTHER.
models_until_it_pays = number(
    1067,
    {
        1600: "the other method's search is paid once, too.",
        800: "a learned patch is not free: what is saved with each model is a difference.",
        1200: "you left out what a learned patch costs, and the other method's search.",
        1066: "so many and a bit. After how many whole models has it paid off?",
    },
    first="write down both bills for n models, and set them equal.",
    passed="8,000,000 more at the start, 7,500 saved with each: 1,067 models.",
    exact=True,
)

# Settings down, seeds across. The best on validation is the third on average, and the first by its best seed; on test
# images it is the second, the last by its best seed.
VALIDATION = torch.tensor([[0.90, 0.10, 0.20], [0.35, 0.45, 0.40], [0.70, 0.40, 0.52], [0.60, 0.30, 0.58]])
TEST = torch.tensor([[0.30, 0.34, 0.41], [0.58, 0.57, 0.50], [0.44, 0.51, 0.40], [0.25, 0.66, 0.20]])


@function(
    first="validation.mean(1) has one number for each setting.",
    stops="return one number; both tables have a row a setting and a column a seed.",
)
def honest(report):
    """`report(validation, test)`, both `[settings, seeds]`: the number to publish, as a share."""
    result = float(report(VALIDATION.clone(), TEST.clone()))
    by_luck = int(VALIDATION.amax(1).argmax())
    for wrong, message, hint in (
        (TEST.mean(1).max(), "test images chose the setting.", "choose by validation alone."),
        (TEST.max(), "the best seed of the best setting, on test images.", "choose by validation.mean(1)."),
        (TEST[2].max(), "the setting is right, and the best seed was picked.", "take the mean over seeds."),
        (VALIDATION[2].mean(), "that is the score it was chosen by.", "report the test, not what chose."),
        (TEST[by_luck].mean(), "one lucky seed chose the setting.", "take the mean before you take the best."),
        (TEST.mean(), "no setting was chosen.", "argmax of validation.mean(1) is the row to report."),
    ):
        yield not near(result, wrong, 1e-6), message, hint
    right = near(result, TEST[2].mean(), 1e-6)
    yield right, f"{result:.4g} is not the number to publish.", "which row is best in validation.mean(1)?"
    turned = float(report(VALIDATION.flip(0), TEST.flip(0)))
    yield near(turned, result, 1e-6), "in another order it gives another number.", "let validation say which row it is."
