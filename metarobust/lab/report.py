"""All recorded runs as Markdown for the book: what is in each manifest, the run's own tables, and the paired tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarobust.errors import InputError
from metarobust.lab import pairing
from metarobust.lab.bench import BENCHES
from metarobust.lab.comparison import Comparison
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.provenance import CHANGED, facts, took
from metarobust.lab.results import load_results
from metarobust.lab.scrutiny import checked, overstated, strongest
from metarobust.lab.table import JOINT, LEARNED, Row, names, variants

KEPT = {"learned": "All that is learned is", "searched": "The settings of the rivals are"}
"""What a run may have kept of others, by the entry of its manifest that names them."""


def report(folder: Path) -> str:
    """A section for each run that is recorded in the folder. Raises InputError as `load_results` does."""
    return "\n\n".join(section(folder, one) for one in facts(folder))


def experiments(folder: Path) -> str:
    """A table of all experiments: what each asks, and how long its recorded runs took, on which data."""
    runs = facts(folder)
    lines = ["| experiment | what it asks | recorded |", "| --- | --- | --- |"]
    for name, experiment in EXPERIMENTS.items():
        mine = [one for one in runs if one["experiment"] == name]
        links = [f"[{one['dataset']}, {one['scale']}](#run-{one['name']}): {took(one['wall_seconds'])}" for one in mine]
        lines.append(f"| `{name}` | {experiment.SUMMARY} | {'; '.join(links) or 'not yet'} |")
    return "\n".join(lines)


def section(folder: Path, fact: dict[str, Any]) -> str:
    """One run, as `provenance.facts` describes it: heading, facts, tables."""
    manifest, rows = load_results(folder / fact["name"])
    blocks = [f"(run-{fact['name'].replace('/', '-')})=\n## {fact['name']}", about(manifest, fact)]
    if "bench" in manifest:
        return "\n\n".join([*blocks, BENCHES[manifest["bench"]].markdown(manifest, rows)])
    experiment = EXPERIMENTS.get(fact["experiment"])
    if experiment is None:
        return "\n\n".join([*blocks, "The experiment is not there any more; its table is in the package."])
    parts = names(rows, "part")
    for part in parts:
        try:
            shown = experiment.markdown(rows, part)
        except InputError:  # a part that the experiment does not show: rows that others are made of
            if said := trust(rows, part):
                blocks.append(f"**{part}**: {said}")
            continue
        blocks += [f"**{part}**"] * (len(parts) > 1) + [shown]
        if "robust accuracy" not in names([row for row in rows if row["part"] == part], "metric"):
            continue
        learned = [name for name in names([row for row in rows if row["part"] == part], "method")
                   if name.startswith(LEARNED)]  # fmt: skip
        if not {LEARNED, JOINT}.issuperset(learned) and isinstance(experiment, Comparison):
            blocks.append(variants(rows, part))
        blocks += filter(None, [strongest(rows, part), trust(rows, part)])
        if method := pairing.learned_rule(rows, part):
            blocks.append(tests(rows, part, method))
    return "\n\n".join(blocks)


def trust(rows: Sequence[Row], part: str) -> str:
    """What the standard ensemble and the checks say of all figures of a part, where they looked at all of them."""
    said = checked(rows, part)
    return f"{overstated(rows, part)} {said}" if said else ""


def about(manifest: dict[str, Any], fact: dict[str, Any]) -> str:
    """What the manifest says, as a list."""
    date = (manifest.get("started") or manifest["finished"])[:10]
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in manifest["versions"].items())
    memory = f", {manifest['peak_memory_mb'] / 1024:.1f} GiB of memory" if manifest.get("peak_memory_mb") else ""
    lines = [f"`{fact['command']}`", f"{date}; {took(fact['wall_seconds'])} on {device_of(fact)}{memory}; {versions}"]
    if fact["dataset"]:
        seeds = " ".join(map(str, fact["seeds"]))
        lines.append(f"Data set {fact['dataset']} ({manifest['data_sha256'][:12]}…), seeds {seeds}")
    lines.append(code(fact))
    for key, what in KEPT.items():
        if key in manifest:
            made = manifest[key]
            lines.append(f"{what} of an earlier run: {made['started'][:10]}, {device_of(made)}, `{made['command']}`")
    if "left_out" in manifest:
        lines.append(f"Left out: {manifest['left_out']}")
    return "\n".join(f"- {line}." for line in lines)


def device_of(manifest: dict[str, Any]) -> str:
    """The GPU, or the kind of processor."""
    device = manifest["device"]
    return device["name"] if device["type"] != "cpu" else f"{device['name']}, no GPU"


def code(fact: dict[str, Any]) -> str:
    """Which code made the run, and what of it is another by now."""
    made = f"Made by commit {(fact['commit'] or 'unknown')[:7]}"
    if fact["code"] != CHANGED:
        return f"{made}; the code is the same here"
    if fact["changed_files"] is None:
        return f"{made}; the code has changed since"
    if not fact["changed_files"]:
        return f"{made}; none of the {fact['files']} files that it depends on has changed since"
    return f"{made}; {len(fact['changed_files'])} of the {fact['files']} files that it depends on have changed since"


def tests(rows: Sequence[Row], part: str, method: str) -> str:
    """The paired tests, folded away: they are many."""
    try:
        inside = pairing.markdown(pairing.against_plain(rows, part, method))
    except InputError as error:
        return f"No paired test: {error}."
    title = f"{method} minus the best rule of each tier, seed by seed"
    return f"````{{dropdown}} {title}\n{inside}\n````"
