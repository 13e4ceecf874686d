"""Which code made a recorded run, how old it is, and on what: what `metarobust results` lists."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metarobust.lab.environment import code
from metarobust.lab.results import to_text
from metarobust.storage import read_json

LEGEND = (
    "code: whether the code here is that which made the run, by the digest of its source files; else see its commit.\n"
    "Runs lie in metarobust/lab/recorded/RUN-DATA-SCALE."
)


def facts(folder: Path, now: datetime | None = None) -> list[dict[str, Any]]:
    """What is known of every recorded run, and then of comparisons with other libraries.

    Args:
        folder: of recorded runs.
        now: the time that ages are counted from.

    Returns:
        For each a JSON object. age_days: since the run was begun, or a comparison was finished. code: "same" where the
        digest of all source files is that of the code at hand, else "changed".

    Raises:
        InputError: a manifest is damaged.
    """
    digest, now = code()["sha256"], now or datetime.now(UTC)
    found = []
    for path in sorted(folder.glob("**/manifest.json"), key=lambda path: (path.parent.parent != folder, path)):
        manifest = read_json(path)
        spec = manifest.get("spec", {})
        found.append(
            {
                "name": path.parent.relative_to(folder).as_posix(),
                "experiment": spec.get("experiment") or f"bench/{manifest['bench']}",
                **{key: spec.get(key) for key in ("scale", "dataset", "seeds")},
                "age_days": (now - datetime.fromisoformat(manifest.get("started") or manifest["finished"])).days,
                **{key: manifest[key] for key in ("device", "wall_seconds", "command")},
                "commit": manifest["code"]["commit"],
                "code": "same" if manifest["code"]["sha256"] == digest else "changed",
            }
        )
    return found


def listing(runs: Iterable[dict[str, Any]]) -> str:
    """The same as a table for a terminal."""
    lines = [["run", "data", "scale", "seeds", "age", "device", "took", "commit", "code"]]
    for run in runs:
        device = run["device"]["type" if run["device"]["type"] == "cpu" else "name"].removeprefix("NVIDIA ")
        data, seeds = (run["dataset"] or "").removeprefix("folder:"), str(len(run["seeds"] or "") or "")
        what = [run["experiment"], data, run["scale"] or "", seeds, f"{run['age_days']} d", device[:11].strip()]
        lines.append([*what, took(run["wall_seconds"]), (run["commit"] or "")[:7], run["code"]])
    return f"{to_text(lines)}\n\n{LEGEND}" if len(lines) > 1 else "no run is recorded here"


def took(seconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
