"""What an expression of the ledger can ask of the recorded runs. Accuracies are in per cent, differences in points.

`metric` is "robust" or "clean". A robust figure is the worst case over the attacks of the run, unless `attack` says
otherwise. Values are means over seeds, on test images unless `split` says "train"; a learned optimizer's value for a
seed is its mean over meta-seeds.
"""

from collections.abc import Callable
from typing import Any

from metarobust.book.claims.language import Value
from metarobust.book.claims.records import LABELS, Records, Row, Wanted, labelled
from metarobust.errors import InputError, choose
from metarobust.lab.pairing import last_steps
from metarobust.lab.published import PUBLISHED
from metarobust.lab.scrutiny import lowered
from metarobust.lab.stats import holm, over_seeds, paired
from metarobust.lab.table import BEFORE, LEARNED, by_seed

METRICS = {"robust": "worst*", "clean": "none"}
PLAIN = ["0", "1", "2"]


class Lookups:
    """The functions, over one set of records."""

    def __init__(self, records: Records):
        self.records = records

    def functions(self) -> dict[str, Callable[..., Value]]:
        """Each by its name."""
        own = (self.acc, self.spread, self.best, self.gap, self.p_value, self.made, self.lowered, self.value, self.fact)
        return {function.__name__: function for function in (*own, self.minutes, self.seeds, published)}

    def acc(
        self, run: str, method: Wanted, metric: str = "robust", *, part: Wanted = None, model: Wanted = None,
        dataset: Wanted = None, attack: Wanted = None, eps: Wanted = None, step: Wanted = None, tier: Wanted = None,
        split: str = "test",
    ) -> Value:  # fmt: skip
        """Accuracy in per cent."""
        rows = self._accuracy(run, metric, method, part, model, dataset, attack, eps, step, tier, split)
        return _short({label: 100 * over_seeds(list(seeds.values()))[0] for label, seeds in rows.items()})

    def spread(
        self, run: str, method: Wanted, metric: str = "robust", *, part: Wanted = None, model: Wanted = None,
        dataset: Wanted = None, attack: Wanted = None, eps: Wanted = None, step: Wanted = None, tier: Wanted = None,
        split: str = "test",
    ) -> Value:  # fmt: skip
        """Half the width of the 95 % interval over seeds, in points."""
        rows = self._accuracy(run, metric, method, part, model, dataset, attack, eps, step, tier, split)
        return _short({label: 100 * over_seeds(list(seeds.values()))[1] for label, seeds in rows.items()})

    def best(
        self, run: str, metric: str = "robust", *, tier: Wanted = None, by: str = "both", learned: int = 0,
        part: Wanted = None, model: Wanted = None,
    ) -> Value:  # fmt: skip
        """On each network, the accuracy of the best method of some tiers: 0, 1 and 2 if nothing else is said.

        by: what is best, "robust", "clean" or "both", their mean. learned: 1 counts learned rules, too.
        """
        choose(by, ("both", *METRICS), "way to be best")
        among = self.records.rows(run, tier=PLAIN if tier is None else tier, part=part, model=model)
        methods = {row["method"] for row in among} - {BEFORE}
        methods = sorted(method for method in methods if learned or not method.startswith(LEARNED))
        if not methods:
            raise InputError(f"{run}: no method is left to be the best; check tier and part")
        found: dict[str, float] = {}
        score: dict[str, float] = {}
        for method in methods:
            here = {kind: self._accuracy(run, kind, method, part, model) for kind in METRICS}
            mean = {kind: {k: over_seeds(list(v.values()))[0] for k, v in here[kind].items()} for kind in METRICS}
            for label in mean["clean"]:
                mine = {kind: mean[kind][label] for kind in METRICS} | {
                    "both": sum(mean[kind][label] for kind in METRICS)
                }
                if mine[by] > score.get(label, -1.0):
                    score[label], found[label] = mine[by], 100 * mine[metric]
        return _short(found)

    def gap(
        self, run: str, method: str, rival: str, metric: str = "robust", *, part: Wanted = None, model: Wanted = None
    ) -> Value:
        """Mean difference on the same seeds, in points."""
        return _short({k: 100 * p.difference for k, p in self._paired(run, method, rival, metric, part, model).items()})

    def p_value(
        self, run: str, method: str, rival: str, metric: str = "robust", *, part: Wanted = None, model: Wanted = None
    ) -> Value:
        """Of the paired t-test over seeds; for several networks raised by Holm's correction."""
        found = self._paired(run, method, rival, metric, part, model)
        return _short(dict(zip(found, holm([p.p_t for p in found.values()]), strict=True)))

    def made(self, run: str, method: Wanted, *, part: Wanted = None, model: Wanted = None) -> Value:
        """The most adversarial examples that a method made in one training."""
        rows = self.records.rows(run, metric="adversarial examples", method=method, part=part, model=model)
        return max(row["value"] for row in rows)

    def lowered(self, run: str, method: Wanted = None, *, part: Wanted = None, model: Wanted = None) -> Value:
        """By how many points the standard ensemble lowers a robust accuracy, on the same models, for each meta-seed.

        The ensemble may have had a part of the images only.
        """
        falls = lowered(self.records.rows(run, part=part, method=method, model=model, metric="robust accuracy"))
        if not falls:
            raise InputError(f"{run}: nothing here was measured by two PGDs and by the standard ensemble")
        found = labelled(last_steps(falls), ["attack"], [*LABELS, "meta_seed"])
        return _short({label: 100 * _mean(mine) for label, mine in found.items()})

    def value(self, run: str, column: str = "value", **wanted: Wanted) -> Value:
        """The mean of any column of numbers, for instance of a comparison with other libraries."""
        rows = self.records.rows(run, **wanted)
        choose(column, rows[0], f"column of {run}")
        if any(not isinstance(row[column], (int, float)) for row in rows):
            raise InputError(f"{run}: column {column!r} does not hold a number in every row; choose other rows")
        return _short({label: _mean(mine, column) for label, mine in labelled(rows, _named(wanted)).items()})

    def fact(self, run: str, path: str, file: str = "manifest.json") -> Value:
        """A number in the manifest, or another file beside it: "spec/eps"; * is each of several."""
        found: list[tuple[tuple[str, ...], Any]] = [((), self.records.json(run, file))]
        for name in path.split("/"):
            step = []
            for labels, here in found:
                inside = dict(enumerate(here)) if isinstance(here, list) else here if isinstance(here, dict) else {}
                inside = {str(key): value for key, value in inside.items()}
                if name == "*":
                    step += [((*labels, key), value) for key, value in inside.items()]
                else:
                    step.append((labels, inside[choose(name, inside, f"entry of {path!r} in {run}/{file}")]))
            found = step
        if not found or any(isinstance(x, bool) or not isinstance(x, (int, float)) for _, x in found):
            raise InputError(f"{run}: {path!r} in {file} is no number; name one, or several with *")
        return _short({", ".join(labels): float(x) for labels, x in found})

    def minutes(self, run: str) -> Value:
        """How long it took, by the clock."""
        return self.records.load(run)[0]["wall_seconds"] / 60

    def seeds(self, run: str) -> Value:
        """How many seeds it has."""
        return float(len(self.records.load(run)[0]["spec"]["seeds"]))

    def _paired(self, run: str, method: str, rival: str, metric: str, part: Wanted, model: Wanted) -> dict[str, Any]:
        ours, theirs = (self._accuracy(run, metric, one, part, model) for one in (method, rival))
        if ours.keys() != theirs.keys():
            raise InputError(f"{run}: {method!r} and {rival!r} are not of the same networks; name model and part")
        found = {}
        for label, a in ours.items():
            common = sorted(a.keys() & theirs[label].keys())
            found[label] = paired([a[seed] for seed in common], [theirs[label][seed] for seed in common])
        return found

    def _accuracy(
        self, run: str, metric: str, method: Wanted, part: Wanted = None, model: Wanted = None, dataset: Wanted = None,
        attack: Wanted = None, eps: Wanted = None, step: Wanted = None, tier: Wanted = None, split: str = "test",
    ) -> dict[str, dict[int, float]]:  # fmt: skip
        """For each label the value of each seed, as a share."""
        attack = METRICS[choose(metric, METRICS, "metric")] if attack is None else attack
        rows = self.records.rows(
            run, metric=f"{metric} accuracy", part=part, model=model, method=method, dataset=dataset, attack=attack,
            eps=eps, step=step, tier=tier, split=split,
        )  # fmt: skip
        rows = rows if step is not None else last_steps(rows)
        return {label: by_seed(mine) for label, mine in labelled(rows, ["step"] if step is None else []).items()}


def published(model: str, attack: str) -> Value:
    """A robust accuracy that others stated, for MNIST at eps 0.3, in per cent; `metarobust.lab.published`."""
    figures = {(figure.model, figure.attack): figure.robust for figure in PUBLISHED}
    names = {", ".join(key): value for key, value in figures.items()}
    return names[choose(f"{model}, {attack}", names, "published figure")]


def _mean(rows: list[Row], column: str = "value") -> float:
    return sum(row[column] for row in rows) / len(rows)


def _named(wanted: dict[str, Wanted]) -> list[str]:
    """Columns whose value was named in full: they need no label."""
    return [column for column, value in wanted.items() if not isinstance(value, list) and "*" not in str(value)]


def _short(values: dict[str, float]) -> Value:
    """A number where there is only one label."""
    return next(iter(values.values())) if len(values) == 1 else values
