"""Checks of the readers' answers to the exercises on costs and limits.

As in `exercises.first`: properties on tiny fixed numbers, where the right answer is known; a verdict, and nothing
is raised.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import Claim, Verdict, judged, number

ONCE, EACH, SEARCH, OTHER = 12_000_000, 2_500, 4_000_000, 10_000
"""Of the warm-up, in evaluations: meta-training, a learned patch; a search, a patch by the way it was made for."""


def models_until_it_pays(answer: float | None) -> Verdict:
    """The warm-up: the least whole n with ONCE + n * EACH <= SEARCH + n * OTHER."""
    exact = (ONCE - SEARCH) / (OTHER - EACH)
    right = math.ceil(exact)
    mistakes = {
        ONCE / (OTHER - EACH): "the other way's search is paid once, too.",
        (ONCE - SEARCH) / OTHER: "a learned patch is not free: what is saved with each model is a difference.",
        ONCE / OTHER: "you left out what a learned patch costs, and the other way's search.",
        (ONCE + SEARCH) / (OTHER - EACH): "the search is paid by the other way: it makes the head start smaller.",
        exact: "so many and a bit. After how many whole models has it paid?",
    }

    def close(found: float, known: float) -> bool:  # a mistake may be rounded either way, the answer may not
        return found == known if right in (found, known) else abs(found - known) < 1

    first = "write down both bills for n models, and set them equal."
    passed = f"{ONCE - SEARCH:,} more at the start, {OTHER - EACH:,} saved with each: {right:,} models."
    other, what = "what is paid more at the start, divided by what is saved with each model.", "the number of models"
    return number(answer, right, mistakes, first=first, passed=passed, other=other, what=what, close=close, shown=",g")


Report = Callable[[Tensor, Tensor], float]
# Settings down, seeds across. The best on validation is the third on average, and the first by its best seed; on test
# images it is the second, the last by its best seed; by its median the fourth would be chosen.
VALIDATION = torch.tensor([[0.90, 0.10, 0.20], [0.35, 0.45, 0.40], [0.70, 0.40, 0.52], [0.60, 0.30, 0.58]])
TEST = torch.tensor([[0.30, 0.34, 0.41], [0.58, 0.57, 0.50], [0.44, 0.51, 0.40], [0.25, 0.66, 0.20]])


def honest(report: Report) -> Verdict:
    """`report(validation, test)`, both `[settings, seeds]`: the number to publish, as a share."""
    return judged(
        report,
        _properties(report),
        first="validation.mean(1) has one number for each setting.",
        stops="return one number; both tables have a row a setting and a column a seed.",
        passed="validation chooses the setting, and the test tells its mean over all seeds.",
    )


def _properties(report: Report) -> Iterator[Claim]:
    given = VALIDATION.clone(), TEST.clone()  # later answers are to meet the same tables
    found = float(report(*given))
    turned = float(report(VALIDATION.flip(0), TEST.flip(0)))
    same = torch.equal(VALIDATION, given[0]) and torch.equal(TEST, given[1])
    yield same, "it changes the tables that it was given.", "work on new tensors: table.mean(1)."
    best = int(VALIDATION.mean(1).argmax())
    right = float(TEST[best].mean())
    mistakes = {
        float(TEST.mean(1).max()): ("test images chose the setting.", "choose by validation alone."),
        float(TEST.max()): ("the best seed of the best setting, on test images.", "choose by validation.mean(1)."),
        float(TEST[best].max()): ("the setting is right, and the best seed was picked.", "take the mean over seeds."),
        float(VALIDATION[best].mean()): ("that is the score it was chosen by.", "report the test, not what chose."),
        float(TEST[int(VALIDATION.amax(1).argmax())].mean()): (
            "one lucky seed chose the setting.", "take the mean over seeds before you take the best setting.",
        ),
        float(TEST.flatten()[int(VALIDATION.argmax())]): (
            "one lucky seed chose, and one seed was reported.", "take means over seeds on both sides.",
        ),
        float(TEST.mean()): ("no setting was chosen.", "argmax of validation.mean(1) is the row to report."),
        float(TEST[int(VALIDATION.median(1).values.argmax())].mean()): (
            "the median chose the setting.", "the mean over seeds is what the book chooses by.",
        ),
    }  # fmt: skip
    close = abs(found - right) < 1e-6
    said, hint = next(
        (words for wrong, words in mistakes.items() if abs(found - wrong) < 1e-6),
        (f"{found:.4g} is not the number to publish.", "which row is best in validation.mean(1)? Its mean in test."),
    )
    yield close, said, hint
    yield (
        abs(turned - right) < 1e-6,
        "with the settings in another order it gives another number.",
        "let validation say which row it is.",
    )
