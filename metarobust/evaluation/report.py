"""What an evaluation found. Robust accuracy is never shown without clean accuracy, attack, eps, n and flags."""

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metarobust.errors import InputError
from metarobust.evaluation.checks import Flag
from metarobust.storage import read_json, write_json


@dataclass(frozen=True)
class Report:
    """Accuracies are shares in [0, 1] of n images; the intervals are 95 % Wilson intervals over images.

    under: accuracy under each attack; alone, or, where `alone` is False, after it and those before it. checked: how
    many images the checks looked at. flags: what they suspect. curve: (eps, accuracy) of a short PGD on those images.
    images_asked, gradients_asked: how often the model was asked about an image, and of these for a gradient. seconds:
    of wall time, left out when two reports are compared.
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
    alone: bool
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

        before = "under" if self.alone else "after"
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
        cost = (
            f"{self.seconds:.1f} s, {self.images_asked:,} images asked about, {self.gradients_asked:,} with a gradient"
        )
        return "\n".join([f"{n:{width}} {value}" for n, value in lines] + [self.setting, cost, *self.verdict()])

    def _repr_html_(self) -> str:
        """The report as a table, for a notebook."""
        cells = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.lines()
        )
        items = "".join(f"<li>{html.escape(text)}</li>" for text in self.verdict())
        return f"<table>{cells}</table><p>{html.escape(self.setting)}</p><ul>{items}</ul>"

    def card(self) -> dict[str, Any]:
        """The report as a flat JSON object: names to numbers and words."""
        flat = {name: value for name, value in asdict(self).items() if not isinstance(value, dict | tuple)}
        for name in ("clean", "robust"):
            flat[f"{name}_low"], flat[f"{name}_high"] = getattr(self, f"{name}_interval")
        flat |= {f"under.{name}": value for name, value in self.under.items()}
        flat |= {f"curve.{eps!r}": value for eps, value in self.curve}
        return flat | {f"flag.{flag.check}": flag.says for flag in self.flags}

    def save(self, path: str | Path) -> None:
        """Writes the card as a JSON file, atomically."""
        write_json(path, self.card())

    @staticmethod
    def load(path: str | Path) -> "Report":
        """The report that was saved. Raises InputError for a file that is missing, damaged, or no card."""
        card = read_json(path)
        try:
            return _from_card(card)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no card of an evaluation ({error}); give a file that Report.save wrote"
            ) from error


def _from_card(card: Mapping[str, Any]) -> Report:
    def part(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in card.items() if name.startswith(prefix)}

    plain = {name: card[name] for name in Report.__dataclass_fields__ if name in card}
    return Report(
        **plain,
        clean_interval=(card["clean_low"], card["clean_high"]),
        robust_interval=(card["robust_low"], card["robust_high"]),
        under=part("under."),
        curve=tuple((float(eps), value) for eps, value in part("curve.").items()),
        flags=tuple(Flag(check, says) for check, says in part("flag.").items()),
    )
