"""What an evaluation measured. Robust accuracy is never shown without clean accuracy, attack, eps, n and flags."""

import html
from dataclasses import asdict, dataclass, field
from pathlib import Path

from metarobust.errors import InputError
from metarobust.evaluation.checks import Flag
from metarobust.storage import read_json, write_json


@dataclass(frozen=True)
class Report:
    """Clean and robust accuracy, with all that belongs beside them.

    Attributes:
        clean, robust: shares in [0, 1] of n images.
        clean_interval, robust_interval: 95 % Wilson intervals over images.
        under: accuracy under each attack alone, or, where `independent` is False, after it and those before it.
        eps, norm, attacks, steps, restarts, independent, seed: as they were given to `evaluate`.
        checked: how many images the checks looked at.
        flags: what the checks suspect.
        curve: (eps, accuracy) of a short PGD on those images.
        images_asked, gradients_asked: how often the model was asked about an image, and of these for a gradient.
        seconds: of wall time; left out when two reports are compared.
    """

    clean: float
    robust: float
    n: int
    clean_interval: tuple[float, float]
    robust_interval: tuple[float, float]
    under: dict[str, float]
    eps: float
    norm: str
    attacks: str
    steps: int
    restarts: int
    independent: bool
    seed: int
    checked: int
    flags: tuple[Flag, ...]
    curve: tuple[tuple[float, float], ...]
    images_asked: int
    gradients_asked: int
    seconds: float = field(compare=False)

    @property
    def setting(self) -> str:
        """The threat and the attacks in one line."""
        return f"{self.norm}, eps {self.eps:g}, {self.n} images, worst of {self.attacks}: {', '.join(self.under)}"

    def lines(self) -> list[tuple[str, str]]:
        """What is shown, as pairs of words."""

        def share(value: float, bounds: tuple[float, float]) -> str:
            return f"{100 * value:5.1f} %  [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"

        before = "under" if self.independent else "after"
        return [
            ("clean", share(self.clean, self.clean_interval)),
            ("robust", share(self.robust, self.robust_interval)),
            *((f"{before} {name}", f"{100 * value:5.1f} %") for name, value in self.under.items()),
        ]

    def verdict(self) -> list[str]:
        """What the checks say, a sentence each."""
        if not self.checked:
            return ["no checks were made: treat the figure as an upper bound that nobody has doubted yet"]
        if not self.flags:
            return [f"no check raised a flag ({self.checked} images looked at)"]
        return [f"FLAG, {flag.check}: {flag.says}." for flag in self.flags]

    def __str__(self) -> str:
        lines = self.lines()
        width = max(len(name) for name, _ in lines)
        asked = f"{self.images_asked:,} images asked about, {self.gradients_asked:,} with a gradient"
        rows = [f"{name:{width}} {value}" for name, value in lines]
        return "\n".join([*rows, self.setting, f"{self.seconds:.1f} s, {asked}", *self.verdict()])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def save(self, path: str | Path) -> None:
        """Write the report as a JSON file, atomically: each field by its name."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: str | Path) -> "Report":
        """The report that was saved. Raises InputError for a file that is missing, damaged, or no report."""
        fields = read_json(path)
        try:
            for name in ("clean_interval", "robust_interval"):
                fields[name] = tuple(fields[name])
            fields["curve"] = tuple((eps, accuracy) for eps, accuracy in fields["curve"])
            fields["flags"] = tuple(Flag(**flag) for flag in fields["flags"])
            return Report(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no report ({error}); give a file that Report.save wrote") from error
