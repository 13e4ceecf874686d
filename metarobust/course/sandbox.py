"""The process of a submission, from outside: bubblewrap around it, a socket to it, and an eye on it.

Of the machine it has Python and the library without the judges, read only, and an empty folder of its own in memory;
no network, no devices but null and its like, no process but its own, and no rights.

Source: bwrap(1), of https://github.com/containers/bubblewrap.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import metarobust
from metarobust.course.wire import Channel
from metarobust.errors import InputError

PACKAGE = Path(metarobust.__file__).resolve().parent
SHOWN = ("__init__.py", "calling.py", "child.py", "toys.py", "wire.py")  # of the course, there
MOST_DISK = 500_000_000  # bytes, in memory
WALLS = """
bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL --hostname sandbox --proc /proc
--dev /dev --remount-ro /dev --size {disk} --tmpfs /dev/shm --tmpfs /run --remount-ro /run
--size {disk} --tmpfs /tmp --chdir /tmp
"""
PROCESSES = 100
PAUSE = 1.0  # seconds between two looks at its memory and processes


class Ended(Exception):
    """It was ended; the message says why."""


@dataclass(frozen=True)
class Limits:
    """seconds: for the whole submission, a tenth of them for one cell. memory: bytes of all its processes together.

    Raises InputError for seconds outside of 5 to 86400, and for memory outside of 1 to 1000 GB.
    """

    seconds: float = 900.0
    memory: int = 4_000_000_000

    def __post_init__(self) -> None:
        if not 5 <= self.seconds <= 86_400 or not 1e9 <= self.memory <= 1e12:
            raise InputError(
                f"limits of {self.seconds:g} s and {self.memory / 1e9:g} GB; give 5 to 86400 s, and 1 to 1000 GB"
            )


def walls() -> list[str]:
    """The words to put before a command."""
    words = shlex.split(WALLS.format(disk=MOST_DISK))
    for place in map(Path, ("/usr", "/bin", "/lib", "/lib64", "/sbin")):
        words += ["--symlink", os.readlink(place), str(place)] if place.is_symlink() else _seen(place)
    words += _seen("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
    words += _seen(sys.base_prefix, sys.prefix, PACKAGE)
    course = PACKAGE / "course"
    return [*words, "--tmpfs", str(course), *_seen(*map(course.joinpath, SHOWN)), "--remount-ro", str(course)]


def _seen(*places: Path | str) -> list[str]:
    return [word for place in places for word in ("--ro-bind-try", str(place), str(place))]


@lru_cache
def missing() -> str:
    """What keeps submissions from being confined here; "" where nothing does."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    done = subprocess.run([*walls(), "/usr/bin/env", "true"], capture_output=True, text=True, errors="replace")
    return f"bubblewrap does not work here ({done.stderr.strip()[:200]})" if done.returncode else ""


def confine(trust: bool) -> None:
    """Raises InputError where submissions cannot be confined, and are not to be trusted either."""
    if not trust and missing():
        raise InputError(
            f"{missing()}; install the package bubblewrap, 0.7 or newer, or give --trust to run "
            "submissions without walls"
        )


@contextlib.contextmanager
def started(submission: bytes, limits: Limits, trust: bool) -> Iterator[Channel]:
    """A process with this submission in its folder. The channel raises Ended where a limit is passed.

    trust: without walls.
    """
    end, next_look = time.monotonic() + limits.seconds, 0.0

    def look() -> None:
        nonlocal next_look
        now = time.monotonic()
        if now > end:
            raise Ended("out of time")
        if now > next_look:
            next_look, family = now + PAUSE, _family(process.pid)
            if len(family) > PROCESSES:
                raise Ended("out of processes")
            if sum(family.values()) > limits.memory:
                raise Ended("out of memory")

    with tempfile.TemporaryDirectory(prefix="metarobust-grade-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "submission.ipynb"
        file.write_bytes(submission)
        here, there = socket.socketpair()
        outer = [] if trust else [*walls(), "--ro-bind", str(file), "/tmp/submission.ipynb"]
        process = subprocess.Popen(
            [*outer, sys.executable, "-m", "metarobust.course.child", str(there.fileno())],
            env=_environment(folder if trust else "/tmp"), cwd=folder, pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        there.close()
        try:
            yield Channel(here, look)
        finally:
            for one in _family(process.pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(one, signal.SIGKILL)
            process.wait()
            here.close()


def _environment(home: str) -> dict[str, str]:
    """Nothing of the grader's own but where programs are and what language they speak."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    ours = dict.fromkeys(("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"), home)
    more = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | ours | more | {"PYTHONPATH": str(PACKAGE.parent), "USER": "student"}


def _family(first: int) -> dict[int, int]:
    """A process and those that descend from it: the bytes of memory of each. Only itself where there is no /proc."""
    parents, held, page = {}, {}, os.sysconf("SC_PAGE_SIZE")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(stat.parent.name)], held[int(stat.parent.name)] = int(fields[1]), page * int(fields[21])
    family, grown = {first}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return {one: held.get(one, 0) for one in family}
