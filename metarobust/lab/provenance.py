"""Which code made a recorded run, and what of it has changed since: what `metarobust results` lists.

The manifest holds the digest of all source files and the commit. Where the digest differs from that of the code at
hand, git says which files do, and the imports say which of these the run depends on. Outside a checkout, as in an
installed package, only the digest can be compared.
"""

import ast
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metarobust.lab.bench import BENCHES
from metarobust.lab.environment import code, differing
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import to_text as columns
from metarobust.storage import read_json

PACKAGE = Path(__file__).parents[1]
SAME, CHANGED = "same", "changed"
LEGEND = (
    "code: what made the run, against what is here. 'changed 3/31': of the 31 files that it depends on,\n"
    "3 differ from its commit; --json names them. Runs lie in metarobust/lab/recorded/RUN-DATA-SCALE."
)


def facts(folder: Path, now: datetime | None = None) -> list[dict[str, Any]]:
    """Of every recorded run, and then of comparisons: what it is, how old, on what, and made by which code.

    age_days: since the run was begun; a comparison's, since it ended. code: "same" or "changed" (the digest of all
    source files). files: how many the run depends on, where its experiment is still known. changed_files: those of them
    that differ from its commit; None where git cannot tell. Raises InputError for a damaged manifest.
    """
    here, now = code(), now or datetime.now(UTC)
    found = []
    for path in sorted(folder.glob("**/manifest.json"), key=lambda path: (path.parent.parent != folder, path)):
        manifest = read_json(path)
        spec, made = manifest.get("spec", {}), manifest["code"]
        same = made["sha256"] == here["sha256"]
        files = depends_on(_module(manifest))
        since = [] if same else differing(made["commit"])
        found.append(
            {
                "name": path.parent.relative_to(folder).as_posix(),
                "experiment": spec.get("experiment") or f"bench/{manifest['bench']}",
                "scale": spec.get("scale"),
                "dataset": spec.get("dataset"),
                "seeds": spec.get("seeds"),
                "age_days": (now - datetime.fromisoformat(manifest.get("started") or manifest["finished"])).days,
                "device": manifest["device"],
                "wall_seconds": manifest["wall_seconds"],
                "command": manifest["command"],
                "commit": made["commit"],
                "code": SAME if same else CHANGED,
                "files": len(files) or None,
                "changed_files": None if since is None or not files else sorted(files & set(since)),
            }
        )
    return found


def listing(found: Iterable[dict[str, Any]]) -> str:
    """The same as a table for a terminal."""
    lines = [["run", "data", "scale", "seeds", "age", "device", "took", "commit", "code"]]
    for one in found:
        where = (
            one["device"]["type"] if one["device"]["type"] == "cpu" else one["device"]["name"].removeprefix("NVIDIA ")
        )
        counted = one["changed_files"] is not None and one["code"] == CHANGED
        lines.append(
            [
                one["experiment"],
                (one["dataset"] or "").removeprefix("folder:"),
                one["scale"] or "",
                str(len(one["seeds"])) if one["seeds"] else "",
                f"{one['age_days']} d",
                where[:11].strip(),
                took(one["wall_seconds"]),
                (one["commit"] or "")[:7],
                one["code"] + (f" {len(one['changed_files'])}/{one['files']}" if counted else ""),
            ]
        )
    return f"{columns(lines)}\n\n{LEGEND}" if len(lines) > 1 else "no run is recorded here"


def took(seconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def depends_on(module: str | None) -> set[str]:
    """The files of the package that a module imports, itself included and by way of others: `metarobust/lab/stats.py`.

    A package's `__init__.py` counts where a name is taken out of it, not where a module below it is.
    """
    todo, found = [module] if module else [], set()
    while todo:
        path = _file(todo.pop())
        name = path and path.relative_to(PACKAGE.parent).as_posix()
        if not path or name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                below = [f"{node.module}.{alias.name}" for alias in node.names]
                todo += [one if _file(one) else node.module for one in below]
            elif isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
    return found


def _file(module: str) -> Path | None:
    """A module's file, where it is one of this package."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    choices = (path.with_suffix(".py"), path / "__init__.py")
    return next((one for one in choices if one.is_relative_to(PACKAGE) and one.is_file()), None)


def _module(manifest: dict[str, Any]) -> str | None:
    """The module that a run is made by; None for an experiment that is not there any more."""
    if "bench" in manifest:
        bench = BENCHES.get(manifest["bench"])
        return bench and bench.run.__module__
    experiment = EXPERIMENTS.get(manifest["spec"]["experiment"])
    return experiment and getattr(experiment, "execute", experiment.make_spec).__module__
