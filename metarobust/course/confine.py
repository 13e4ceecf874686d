"""What a submission's process may do: memory, files, network, other processes. Linux; without root.

- A namespace of its own, by `unshare`: no network but a loopback of its own, and no process but its own to see or to
  signal; it ends whole when its first process ends.
- Landlock: it reads the Python installation and the library, and writes in its own folder; nothing else.
- Resource limits: memory of each process, size of files, core dumps.

Where the machine does not offer one of them, it is left out, and `available` says so.

Sources: unshare(1), landlock(7), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_UNSHARE = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same numbers on all machines since Linux 5.13
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, read folders
_WRITE_FILE, _TRUNCATE, _IOCTL = 1 << 1, 1 << 14, 1 << 15
_NO_NEW_PRIVILEGES = 38


@lru_cache
def namespace() -> tuple[str, ...]:
    """The words to put before a command so that it runs in a namespace of its own; () where that does not work."""
    program = shutil.which("unshare")
    if not sys.platform.startswith("linux") or program is None:
        return ()
    command = (program, *_UNSHARE)
    done = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True)
    return command if done.returncode == 0 else ()


@lru_cache
def landlock() -> int:
    """The version of Landlock that the kernel offers; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, ctypes.CDLL(None).syscall(_CREATE, None, 0, 1))


def available() -> list[str]:
    """What holds on this machine, for the result of a grading: `namespace`, `landlock`, `limits`."""
    return [*(["namespace"] if namespace() else []), *(["landlock"] if landlock() else []), "limits"]


def loopback() -> None:
    """Switch on the loopback of a new network namespace: the kernel of a notebook is talked to over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sh", b"lo", 0x1 | 0x40)  # up, running
        fcntl.ioctl(one, 0x8914, request)  # SIOCSIFFLAGS


def limits(memory: int, file: int = 64_000_000) -> None:
    """memory: bytes of data that a process may have. file: bytes that one file may have."""
    # Not RLIMIT_AS: torch reserves tens of gigabytes of addresses that it never touches.
    for what, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def restrict(read: Sequence[Path], write: Sequence[Path]) -> None:
    """From here on, this process and those it starts read what lies under `read`, and write under `write`; for good.

    Does nothing where the kernel has no Landlock. Raises OSError where it has, and refuses.
    """
    version = landlock()
    if not version:
        return
    everything = (1 << 13) - 1 | (1 << 13) * (version >= 2) | _TRUNCATE * (version >= 3) | _IOCTL * (version >= 5)
    libc = ctypes.CDLL(None, use_errno=True)
    # Files; of the network nothing, which has its namespace; and from version 6 no signal to anybody outside.
    attributes = struct.pack("QQQ", everything, 0, 3)[: 24 if version >= 6 else 8]
    rules = _checked(libc.syscall(_CREATE, attributes, len(attributes), 0))
    devices = _READ | _WRITE_FILE | (_IOCTL | _TRUNCATE) & everything
    for paths, allowed in ((read, _READ), ([Path("/dev")], devices), (write, everything)):
        for path in paths:
            if path.exists():
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
                # A rule for a file may not speak of folders.
                rights = allowed if path.is_dir() else allowed & (1 << 0 | _WRITE_FILE | 1 << 2 | _TRUNCATE)
                _checked(libc.syscall(_ADD, rules, 1, struct.pack("=Qi", rights, handle), 0))
                os.close(handle)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT, rules, 0))
    os.close(rules)


def readable(package: Path) -> list[Path]:
    """What Python and the library need to read. package: the library's own folder; not what lies beside it."""
    root = package.parent
    places = [Path(sys.prefix), Path(sys.base_prefix), package]
    places += [Path(place) for place in sys.path if place and Path(place).resolve() not in (root, Path.cwd())]
    return [*places, *map(Path, ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/sys"))]


def _checked(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses to confine a submission: {os.strerror(number)}")
    return value
