"""Waiting for a process that may not be trusted to end, to stay small, or to stay alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

MOST_DISK = 500_000_000
PAUSE = 0.2  # seconds between two looks


def watch(process: subprocess.Popen[bytes], folder: Path, seconds: float, memory: int) -> str:
    """Wait for the end, or make one. Returns why it was ended, "" where it ended by itself.

    folder: whose files count as its disk. seconds: from now on. memory: bytes, of it and its descendants together.
    """
    end, why = time.monotonic() + seconds, ""
    look = 0
    while process.poll() is None:
        time.sleep(PAUSE)
        look += 1
        if time.monotonic() > end:
            why = "out of time"
        elif look % 5 == 0 and _memory(process.pid) > memory:
            why = "out of memory"
        elif look % 10 == 0 and _disk(folder) > MOST_DISK:
            why = "out of disk"
        if why:
            break
    for one in (process.pid, *_family(process.pid)):
        try:
            os.killpg(one, signal.SIGKILL) if one == process.pid else os.kill(one, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    process.wait()
    return why


def _family(first: int) -> list[int]:
    """The processes that descend from one; [] where there is no /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    family, grown = {first}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return sorted(family - {first})


def _memory(first: int) -> int:
    """Bytes of memory that a process and its descendants hold."""
    pages = 0
    for one in (first, *_family(first)):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def _disk(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total


def remove(folder: Path) -> None:
    """Remove the folder of a run, whatever rights a submission took from its own files."""
    for place, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
