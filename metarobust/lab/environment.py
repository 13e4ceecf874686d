"""What a result was made by: the code and its commit, the versions of libraries, and the memory that it took."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metarobust import __version__
from metarobust.storage import sha256


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
