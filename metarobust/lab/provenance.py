"""Which code makes a result, with which libraries, on what; and of recorded runs how old they are."""

import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metarobust import __version__
from metarobust.lab.results import to_text
from metarobust.storage import read_json, sha256

LEGEND = (
    "code: whether the code here is that which made the run, by the digest of its source files; else see its commit.\n"
    "Runs lie in metarobust/lab/recorded/RUN-DATA-SCALE."
)


def code() -> dict[str, Any]:
    """Which code runs.

    Returns:
        Its version; the digest of the source files that results depend on, all but those of book and course; the git
        commit it is from, and whether the package's files have changed since, both None outside a checkout.
    """
    package = Path(__file__).parents[1]
    names = sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py"))
    own = [name for name in names if name.partition("/")[0] not in ("book", "course")]
    content = b"".join(f"{name}\0".encode() + (package / name).read_bytes() for name in own)
    commit = changed = None
    # A package installed below some checkout is not of that checkout: git must know its files.
    if _git(package, "ls-files", "--", "__init__.py", "lab/results.py"):
        commit = _git(package, "rev-parse", "HEAD")
        status = _git(package, "status", "--porcelain", "--", ".")
        changed = None if status is None else bool(status)
    return {"version": __version__, "sha256": sha256(content), "commit": commit, "changed": changed}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> int:
    """The most memory that this process has held, in MiB, and on a GPU what torch has; 0 where nobody counts it."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = most // 2**20 if sys.platform == "darwin" else most // 2**10  # bytes there, KiB elsewhere
    return own + (torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_initialized() else 0)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "torchvision", "numpy")}


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
