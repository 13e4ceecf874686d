"""Assignment 2, an honest evaluation: robust_accuracy, worst_case, report and diagnose."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from metarobust.book.properties import Holds, begun, number, same
from metarobust.course.attacks import linear
from metarobust.course.calls import Reply
from metarobust.course.question import Ask, Judged
from metarobust.course.toys import Table, Turning, disguised, uniform, whole
from metarobust.evaluation.intervals import wilson

FIGURES = ("clean", "robust", "n", "low", "high")


class Shown(NamedTuple):
    """Images whose mean says what `Table` answers, and labels; `right` are those that it gets right."""

    x: Tensor
    y: Tensor
    right: Tensor

    def turned(self, *rows: Tensor) -> Tensor:
        """True for these rows."""
        return torch.zeros(len(self.y), dtype=torch.bool).scatter(0, torch.cat(rows), True)

    def rows(self, right: bool, many: int) -> Tensor:
        """The first rows that Table gets right, or wrong."""
        return (self.right == right).nonzero()[:many, 0]


def show(g: torch.Generator, n: int, wrong: int) -> Shown:
    """n images `[n, 1, 2, 2]` and their labels `[n]`, 0 or 1; Table gets `wrong` of them wrong."""
    y = torch.randint(0, 2, (n,), generator=g)
    right = torch.randperm(n, generator=g) >= wrong
    side = torch.where(right, y, 1 - y).float().view(-1, 1, 1, 1)  # the class that Table says
    return Shown(0.3 + 0.4 * side + uniform(g, -0.05, 0.05, n, 1, 2, 2), y, right)


def share(reply: Reply) -> float:
    """A number from 0 to 1. Raises CannotJudge where it is none."""
    value = number(reply.value())
    begun(0 <= value <= 1, f"it returns {value:g}; a share runs from 0 to 1.")
    return value


def mean(mask: Tensor) -> float:
    return float(mask.float().mean())


def robust_accuracy(g: torch.Generator, ask: Ask) -> Judged:
    # A prime number of images: a product of two shares cannot happen to be the share that is right.
    n = (13, 17)[whole(g, 0, 1)]
    first, second = show(g, n, whole(g, 3, 4)), show(g, n, 0)
    # Of the wrong ones the attack turns two, to the right class; of the right ones some.
    turned = first.turned(first.rows(False, 2), first.rows(True, whole(g, 3, 5)))
    moody = second.turned(torch.arange(whole(g, 3, 5)))
    still = ask(Table(moody=False).eval(), first.x, first.y, Turning(images=first.x, turned=turned))
    learning = ask(Table(moody=True).train(), second.x, second.y, Turning(images=second.x, turned=moody))
    counts, in_eval = same(share(still), mean(first.right & ~turned)), same(share(learning), mean(~moody))
    if any(note[0] for note in learning.notes(3)):
        in_eval = Holds(False, "the attack looks at a model in train mode.")
    begun(counts or in_eval, "no share that it says is right, of all images or in eval mode.")
    yield *counts, "share"
    yield *in_eval, "eval mode"
    restored = still.kept(0) and learning.kept(0)
    yield restored, "it is left in another mode than it came in: train for eval, or eval.", "restored"


def worst_case(g: torch.Generator, ask: Ask) -> Judged:
    shown, ends = show(g, whole(g, 24, 30), 0), [0]
    order = torch.randperm(len(shown.y), generator=g)
    for _ in range(whole(g, 4, 6)):  # attacks, each of which turns other images
        ends.append(ends[-1] + whole(g, 1, 3))
    attacks = [Turning(images=shown.x, turned=shown.turned(order[a:b])) for a, b in pairwise(ends)]
    reply = ask(Table(moody=False).eval(), shown.x, shown.y, attacks)
    flawed = show(g, len(shown.y), 3)
    turned = flawed.turned(flawed.rows(False, 3), flawed.rows(True, 2))  # the wrong ones, to the right class
    twice = ask(Table(moody=False).eval(), flawed.x, flawed.y, [Turning(images=flawed.x, turned=turned)] * 2)
    each, clean = same(share(reply), 1 - ends[-1] / len(order)), same(share(twice), mean(flawed.right & ~turned))
    begun(each or clean, "what it says is right of no attack and of no image as it is.")
    yield *each, "each image"
    yield *clean, "clean"
    seen = [note[1] for note in reply.notes(3)]
    yield seen and all(seen), "an attack is given what another one has moved, or none is made.", "original"


def report(g: torch.Generator, ask: Ask) -> Judged:
    parts = {"train": show(g, whole(g, 20, 24), 1), "test": show(g, whole(g, 10, 14), 3)}
    turned = {name: parts[name].turned(parts[name].rows(True, many)) for name, many in (("train", 3), ("test", 4))}
    attack = Turning(images=torch.cat([p.x for p in parts.values()]), turned=torch.cat(list(turned.values())))
    found = ask(Table(moody=False).eval(), {name: (p.x, p.y) for name, p in parts.items()}, attack).value()
    whole_report = isinstance(found, dict) and set(FIGURES) <= set(found)
    begun(whole_report, 'it does not return a dictionary with "clean", "robust", "n", "low" and "high".')
    clean, robust, n, low, high = (number(found[name]) for name in FIGURES)

    def figure(value: float, right: dict[str, Tensor]) -> Holds:
        # Of the held-out images, of those for training, or of both: where from is another property's business.
        places = [mean(right["test"]), mean(right["train"]), mean(torch.cat(list(right.values())))]
        return same(value, min(places, key=lambda p: abs(value - p)))

    of_clean = figure(clean, {name: p.right for name, p in parts.items()})
    of_robust = figure(robust, {name: p.right & ~turned[name] for name, p in parts.items()})
    begun(of_clean or of_robust, "neither of the two accuracies is right, of whatever images.")
    held_out = len(parts["test"].y)
    yield n == held_out, f"it measures {n:g} images; {held_out} are held out.", "held out"
    yield *of_clean, "clean"
    yield *of_robust, "robust"
    begun(0 <= robust <= 1 and 1 <= n <= 1000, "there is no share to put an interval around.")
    right = wilson(round(robust * int(n)), int(n))
    both = f"{low:.3f} to {high:.3f}, not {right[0]:.3f} to {right[1]:.3f}."
    good = abs(low - right[0]) < 2e-3 and abs(high - right[1]) < 2e-3
    yield good, f"for {robust:.3f} of {n:g} images it is {both}", "interval"


def diagnose(g: torch.Generator, ask: Ask) -> Judged:
    shape = (1, whole(g, 4, 5), whole(g, 4, 5))
    base, x = linear(g, shape, whole(g, 3, 5)), uniform(g, 0.05, 0.95, whole(g, 6, 9), *shape)
    replies = {name: ask(model, x, base(x).argmax(1)) for name, model in disguised(base, g).items()}
    begun(len({str(reply.value())[:100] for reply in replies.values()}) > 1, "it says the same of every model.")
    for name, reply in replies.items():
        word = str(reply.value())[:40]
        yield word == name, f'a model that is "{name}" is called {word!r}.', name
