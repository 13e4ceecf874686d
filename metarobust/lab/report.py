"""Recorded runs as Markdown for the book: what is in a manifest, the run's own tables, and the paired tests."""

from pathlib import Path
from typing import Any

import pandas as pd

from metarobust.errors import InputError
from metarobust.lab import results
from metarobust.lab.bench import BENCHES
from metarobust.lab.comparison import Comparison
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.paired import holm, paired
from metarobust.lab.provenance import code, facts, took
from metarobust.lab.summary import variants

KEPT = {"learned": "All that is learned is", "searched": "The rivals' settings are", "measured": "Most of it is"}
"""What a run may have kept of others, by the entry of its manifest that names them."""


def experiments(folder: Path) -> str:
    """A table of all experiments: what each asks, and how long its recorded runs took, on which data."""
    runs, lines = facts(folder), [["experiment", "what it asks", "recorded"]]
    for name, experiment in EXPERIMENTS.items():
        mine = [run for run in runs if run["experiment"] == name]
        links = [f"[{run['dataset']}, {run['scale']}](#run-{run['name']}): {took(run['wall_seconds'])}" for run in mine]
        lines.append([f"`{name}`", experiment.SUMMARY, "; ".join(links) or "not yet"])
    return results.to_markdown(lines)


def report(folder: Path, name: str) -> str:
    """Facts, tables and tests of a run that is recorded in the folder. Raises InputError as `load` does."""
    manifest, frame = results.load(folder / name)
    blocks = [about(manifest)]
    if "bench" in manifest:
        return "\n\n".join([*blocks, BENCHES[manifest["bench"]].markdown(manifest, results.as_rows(frame))])
    experiment = EXPERIMENTS[manifest["spec"]["experiment"]]
    parts = results.names(frame, "part")
    for part in parts:
        rows = results.select(frame, part=part)
        try:
            shown = experiment.markdown(frame, part)
        except InputError:  # a part that the experiment does not show: rows that others are made of
            if remark := trust(rows):
                blocks.append(f"**{part}**: {remark}")
            continue
        blocks += [f"**{part}**"] * (len(parts) > 1) + [shown]
        if "robust accuracy" not in results.names(rows, "metric"):
            continue
        learned = results.names(rows[rows["learned"] == 1], "method")
        in_headline = {results.LEARNED, results.JOINT, results.PENALTIES}
        if isinstance(experiment, Comparison) and not in_headline.issuperset(learned):
            blocks.append(variants(frame, part))
        blocks += [remark] if (remark := trust(rows)) else []
        if learned:
            blocks.append(tests(rows, results.LEARNED if results.LEARNED in learned else learned[0]))
    return "\n\n".join(blocks)


def about(manifest: dict[str, Any]) -> str:
    """What the manifest says, as a list."""
    date, made_by = (manifest.get("started") or manifest["finished"])[:10], manifest["code"]
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in manifest["versions"].items())
    memory = f", {manifest['peak_memory_mb'] / 1024:.1f} GiB of memory" if manifest.get("peak_memory_mb") else ""
    spent = f"{took(manifest['wall_seconds'])} on {device_of(manifest)}{memory}"
    lines = [f"`{manifest['command']}`", f"{date}; {spent}; {versions}"]
    if "spec" in manifest:
        dataset, seeds = manifest["spec"]["dataset"], " ".join(map(str, manifest["spec"]["seeds"]))
        lines.append(f"Data set {dataset} ({manifest['data_sha256'][:12]}…), seeds {seeds}")
    since = "is the same here" if made_by["sha256"] == code()["sha256"] else "has changed since"
    lines.append(f"Made by commit {(made_by['commit'] or 'unknown')[:7]}; the code {since}")
    for key, what in KEPT.items():
        if key in manifest:
            first = manifest[key]
            lines.append(f"{what} of an earlier run: {first['started'][:10]}, {device_of(first)}, `{first['command']}`")
    if "left_out" in manifest:
        lines.append(f"Left out: {manifest['left_out']}")
    return "\n".join(f"- {line}." for line in lines)


def device_of(manifest: dict[str, Any]) -> str:
    """The GPU, or the kind of processor."""
    device = manifest["device"]
    return device["name"] if device["type"] != "cpu" else f"{device['name']}, no GPU"


def trust(rows: pd.DataFrame) -> str:
    """What the standard ensemble and the checks say of the models of a part; "" where no check looked at any."""
    flags = results.select(rows, metric=results.FLAGS) if results.FLAGS in results.names(rows, "metric") else rows[:0]
    if flags.empty:
        return ""
    falls = 100 * results.lowered(rows)["value"]
    more = f"{falls.mean():.1f} points more under attack on average, and for one model {falls.max():.1f}"
    sentence = "" if falls.empty else f"Two PGDs alone would have said {more}."
    raised = flags[flags["value"] > 0]
    which = ", ".join(f"{row.method} on {row.model} ({row.attack})" for row in raised.itertuples())
    start = f"The checks looked at {len(flags)} of these models, one of each line and network"
    return f"{sentence} {start}; flagged: {which}." if which else f"{sentence} {start}, and raised no flag."


def tests(rows: pd.DataFrame, method: str) -> str:
    """The paired tests of a part, folded away: they are many."""
    try:
        inside = results.to_markdown(against_baselines(rows, method))
    except InputError as error:
        return f"No paired test: {error}."
    return f"````{{dropdown}} {method} minus the best rule of each tier, seed by seed\n{inside}\n````"


def against_baselines(rows: pd.DataFrame, method: str) -> list[list[str]]:
    """A method against the best baseline of every tier, on each network of a part, seed by seed: both had the same.

    Differences are in points. The networks of a tier are several comparisons of one question, so the p-values of the
    t-test on robust accuracy are raised by Holm's correction over them.

    Raises:
        InputError: the method is not there, or has fewer than two seeds in common with a baseline.
    """
    results.select(rows, method=method)
    clean, robust = results.accuracy(rows, "clean"), results.accuracy(rows)
    head = ["unseen network", "tier", "best rule of the tier", "robust", "clean", "p, t-test", "p, Holm", "p, Wilcoxon"]
    lines = [head]
    for tier in (*results.PLAIN, results.ATTACKED):
        rivals = results.best_baselines(rows, (tier,))
        pairs = [
            [paired(values[part, model, method], values[part, model, rival]) for values in (robust, clean)]
            for (part, model), rival in rivals.items()
        ]
        raised = holm([test.p_t for test, _ in pairs])
        for (_, model), (test, other), p in zip(rivals.index, pairs, raised, strict=True):
            points = [f"{100 * one.difference:+.1f} ±{100 * one.half:.1f}" for one in (test, other)]
            # No finite number of seeds shows a zero.
            p_values = [f"{x:.3f}" if x >= 0.001 else "< 0.001" for x in (test.p_t, p, test.p_wilcoxon)]
            lines.append([model, tier, rivals[_, model], *points, *p_values])
    return lines
