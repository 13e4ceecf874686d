"""What a patch did: clean and robust accuracy before and after, on images it did not train on, and what it took."""

import html
from dataclasses import dataclass, field

from metarobust.evaluation.report import Report


@dataclass(frozen=True)
class PatchReport:
    """What `patch` or `train` did. `before` and `tried` evaluate the original and the copy on the same held-out images.

    part is how much of the patch was taken: less than 1 where the whole cost more clean accuracy than max_clean_drop,
    and 0 where any part did, so that the original was returned and `tried` is the whole patch. images: how many it
    trained on. examples_in_use: adversarial examples generated on the way, counted; points_in_use: points beside images
    at which penalties took a gradient; examples_to_measure: adversarial examples of the two evaluations. seconds: of
    the steps alone, left out when two reports are compared. done: what happened to the model, in a word. warning: where
    the rule has not met the like of it. left_out: what was not measured.
    """

    before: Report
    tried: Report
    part: float
    max_clean_drop: float
    optimizer: str
    steps: int
    batch_size: int
    images: int
    examples_in_use: int
    examples_to_measure: int
    seconds: float = field(compare=False)
    points_in_use: int = 0
    done: str = "patched"
    warning: str = ""
    left_out: str = ""

    @property
    def undone(self) -> bool:
        """Whether the model that was returned is the original."""
        return self.part == 0

    @property
    def after(self) -> Report:
        """The evaluation of the model that was returned."""
        return self.before if self.undone else self.tried

    def verdict(self) -> list[str]:
        """How it was made and measured, and what came of it, a sentence each."""
        sentences = [
            f"{self.optimizer}: {self.steps} steps of {self.batch_size} out of {self.images:,} clean images, "
            f"{self.examples_in_use:,} adversarial examples, {self.points_in_use:,} points visited, "
            f"{self.seconds:.1f} s",
            f"held-out images: {self.before.setting}; {self.examples_to_measure:,} adversarial examples to measure it",
        ]
        marks = {"CAREFUL": self.warning, "LEFT OUT": self.left_out}
        sentences += [f"{mark}: {text}" for mark, text in marks.items() if text]
        if self.undone:
            sentences.append(
                f"UNDONE: clean accuracy fell by more than {100 * self.max_clean_drop:g} points; the "
                f"model that came back is as it was; a larger max_clean_drop keeps the patch"
            )
        elif self.part < 1:
            sentences.append(
                f"{100 * self.part:.0f} % of the way to the whole patch, which would cost more than "
                f"{100 * self.max_clean_drop:g} points of clean accuracy; a larger max_clean_drop goes further"
            )
        if not self.undone and self.tried.robust <= self.before.robust:
            sentences.append(f"robust accuracy did not rise: {self.optimizer} does not help this model")
        for model, report in (("before", self.before), (self.done, self.tried)):
            sentences += [f"{model}: {text}" for text in report.verdict()]
        return sentences

    def __str__(self) -> str:
        both = zip(self.before.lines()[:2], self.tried.lines()[:2], strict=True)
        lines = [("", "before", self.done), *((name, before, after) for (name, before), (_, after) in both)]
        table = [f"{name:8}{before:23}  {after}" for name, before, after in lines]
        return "\n".join([*table, *self.verdict()])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
