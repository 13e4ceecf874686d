"""The process of a submission, from outside: bubblewrap around it, a pipe to it, and an eye on it.

Of the machine it has Python and the library without the judges, read only, and an empty folder of its own in memory;
no network, no devices but null and its like, no process but its own, and no rights.

Source: bwrap(1), of https://github.com/containers/bubblewrap.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import signal
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
from typing import Any

import psutil

import metarobust
from metarobust.course.calls import MOST_BYTES, Ended, read
from metarobust.errors import InputError

PACKAGE = Path(metarobust.__file__).resolve().parent
SHOWN = ("__init__.py", "calls.py", "child.py", "toys.py")  # of the course, there
MOST_DISK = 500_000_000  # bytes, in memory
WALLS = """
bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL --hostname sandbox --proc /proc
--dev /dev --remount-ro /dev --size {disk} --tmpfs /dev/shm --tmpfs /run --remount-ro /run
--size {disk} --tmpfs /tmp --chdir /tmp
"""
PAUSE = 1.0  # seconds between two looks at its memory


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


class Channel:
    """A pipe to the process of a submission. ended: what put an end to it, if something did."""

    def __init__(self, pipe: Connection):
        self._pipe, self.ended = pipe, ""

    def ask(self, what: str, *given: Any) -> dict[str, Any]:
        """What a method of `metarobust.course.child.Submission` replies. Raises Ended where nothing does."""
        try:
            self._pipe.send_bytes(pickle.dumps((what, *given)))
            return read(self._pipe.recv_bytes(MOST_BYTES))
        except (EOFError, OSError) as error:
            why = f"it was ended, {self.ended}" if self.ended else "its process ended early"
            raise Ended(self.ended or "crashed", why) from error


@dataclass(frozen=True)
class Sandbox:
    """What submissions run in.

    Args:
        seconds: for the whole submission, a tenth of them for one cell.
        memory: bytes of all its processes together.
        trust: run it without walls, with all the rights of whoever grades.

    Raises:
        InputError: for seconds outside of 5 to 86400, for memory outside of 1 to 1000 GB, and where bubblewrap is
            missing and submissions are not to be trusted either.
    """

    seconds: float = 900.0
    memory: int = 4_000_000_000
    trust: bool = False

    def __post_init__(self) -> None:
        if not 5 <= self.seconds <= 86_400 or not 1e9 <= self.memory <= 1e12:
            given = f"{self.seconds:g} s and {self.memory / 1e9:g} GB"
            raise InputError(f"limits of {given}; give 5 to 86400 s, and 1 to 1000 GB")
        if not self.trust and missing():
            raise InputError(
                f"{missing()}; install the package bubblewrap, 0.7 or newer, or give --trust to run "
                "submissions without walls"
            )

    @contextmanager
    def started(self, submission: bytes) -> Iterator[Channel]:
        """A process with this submission in its folder."""
        with tempfile.TemporaryDirectory(prefix="metarobust-grade-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "submission.ipynb"
            file.write_bytes(submission)
            here, there = Pipe()
            outer = [] if self.trust else [*walls(), "--ro-bind", str(file), "/tmp/submission.ipynb"]
            process = subprocess.Popen(
                [*outer, sys.executable, "-m", "metarobust.course.child", str(there.fileno())],
                **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
                env=_environment(folder if self.trust else "/tmp"),
                cwd=folder,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
            there.close()
            channel, done = Channel(here), Event()
            eye = Thread(target=self._watch, args=(process, channel, done))
            eye.start()
            try:
                yield channel
            finally:
                done.set()
                eye.join()
                here.close()

    def _watch(self, process: subprocess.Popen[bytes], channel: Channel, done: Event) -> None:
        """Ends a process and all that it started when it is done with, or has passed a limit."""
        end = time.monotonic() + self.seconds
        while not channel.ended and not done.wait(PAUSE):
            if time.monotonic() > end:
                channel.ended = "out of time"
            elif _memory(process.pid) > self.memory:
                channel.ended = "out of memory"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _memory(pid: int) -> int:
    """Bytes of a process and all that it started."""
    total = 0
    with suppress(psutil.Error):  # one has just ended: then the next look tells
        for one in (first := psutil.Process(pid), *first.children(recursive=True)):
            total += one.memory_info().rss
    return total


def _environment(home: str) -> dict[str, str]:
    """Nothing of the grader's own but where programs are and what language they speak."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    ours = dict.fromkeys(("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"), home)
    more = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | ours | more | {"PYTHONPATH": str(PACKAGE.parent), "USER": "student"}
