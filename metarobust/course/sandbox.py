"""The process of a submission, from outside: bubblewrap around it, a pipe to it, and an eye on it.

Of the machine it has Python and the library without the judges, read only, and an empty folder of its own in memory;
no network, no devices but null and its like, no process but its own, and no rights.

Source: bwrap(1), of https://github.com/containers/bubblewrap.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread

import psutil

import metarobust
from metarobust.course.wire import Broken, Channel
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


@contextmanager
def started(submission: bytes, limits: Limits, trust: bool) -> Iterator[Channel]:
    """A process with this submission in its folder. Raises Ended inside where a limit was passed.

    trust: without walls.
    """
    with tempfile.TemporaryDirectory(prefix="metarobust-grade-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "submission.ipynb"
        file.write_bytes(submission)
        here, there = Pipe()
        outer = [] if trust else [*walls(), "--ro-bind", str(file), "/tmp/submission.ipynb"]
        process = psutil.Popen(
            [*outer, sys.executable, "-m", "metarobust.course.child", str(there.fileno())],
            env=_environment(folder if trust else "/tmp"), cwd=folder, pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        there.close()
        done, why = Event(), []
        eye = Thread(target=_watch, args=(process, limits, done, why, here))
        eye.start()
        try:
            yield Channel(here)
        except Broken as error:
            if why:
                raise Ended(why[0]) from error
            raise
        finally:
            done.set()
            eye.join()
            here.close()


def _watch(process: psutil.Popen, limits: Limits, done: Event, why: list[str], here: Connection) -> None:
    """Ends a process and its family when it is done with, or has passed a limit: then `why` says which."""
    end = time.monotonic() + limits.seconds
    while not why and not done.wait(PAUSE):
        family = _family(process)
        passed = {
            "out of time": time.monotonic() > end,
            "out of processes": len(family) > PROCESSES,
            "out of memory": sum(map(_memory, family)) > limits.memory,
        }
        why += [limit for limit, so in passed.items() if so]
    for one in _family(process):
        with suppress(psutil.Error):
            one.kill()
    process.wait()
    with suppress(OSError), socket.socket(fileno=os.dup(here.fileno())) as end_of_it:
        end_of_it.shutdown(socket.SHUT_RDWR)  # whatever else holds the other end


def _family(first: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [first, *first.children(recursive=True)]
    return [first]


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):  # it has just ended
        return process.memory_info().rss
    return 0


def _environment(home: str) -> dict[str, str]:
    """Nothing of the grader's own but where programs are and what language they speak."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    ours = dict.fromkeys(("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"), home)
    more = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | ours | more | {"PYTHONPATH": str(PACKAGE.parent), "USER": "student"}
