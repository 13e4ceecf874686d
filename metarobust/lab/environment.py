"""What a result was made by: the code and its commit, the versions of libraries, and the memory that it took."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metarobust.storage import sha256


def code() -> dict[str, Any]:
    """Which code runs: its version, the digest of its source files, and the git commit it is from, if any.

    `changed` says whether the package's files differ from the commit; both are None outside a checkout.
    """
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    content = b"".join(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() for file in files)
    try:
        number = version("metarobust")
    except PackageNotFoundError:
        number = None
    commit = changed = None
    # A package installed below some checkout is not of that checkout: git must know its files.
    if _git(package, "ls-files", "--", "__init__.py", "lab/results.py"):
        commit = _git(package, "rev-parse", "HEAD")
        status = _git(package, "status", "--porcelain", "--", ".")
        changed = None if status is None else bool(status)
    return {"version": number, "sha256": sha256(content), "commit": commit, "changed": changed}


def differing(commit: str | None) -> list[str] | None:
    """The files of this package that differ from a commit, as `metarobust/lab/stats.py`; None where git cannot tell.

    That is outside a checkout, without git, and where the clone does not go back to the commit.
    """
    package = Path(__file__).parents[1]
    if not commit or not _git(package, "ls-files", "--", "__init__.py", "lab/results.py"):
        return None
    found = _git(package, "diff", "--name-only", "--relative", commit, "--", ".")
    return None if found is None else [f"{package.name}/{name}" for name in found.splitlines()]


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
    torch = sys.modules.get("torch")
    return own + (torch.cuda.max_memory_allocated() // 2**20 if torch and torch.cuda.is_initialized() else 0)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "torchvision", "numpy")}
