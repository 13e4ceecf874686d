"""One writer to a folder: a second process is told so, and nothing of the lock stays behind."""

from __future__ import annotations

import subprocess
import sys

import pytest
from filelock import FileLock

from metarobust.errors import InputError
from metarobust.lab.run_folder import LOCK
from metarobust.lab.running import only_writer


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "new" / "run"
    other = (
        "import sys; from pathlib import Path; from metarobust.lab.running import only_writer\n"
        "with only_writer(Path(sys.argv[1])): pass"
    )

    def second():
        return subprocess.run([sys.executable, "-c", other, folder], capture_output=True, text=True)

    with only_writer(folder):
        done = second()
        assert done.returncode == 1
        assert f"another process writes to {folder}; wait until it ends, or choose another --out" in done.stderr
        assert [path.name for path in folder.iterdir()] == [LOCK]
    assert second().returncode == 0
    assert not list(folder.iterdir())


def test_the_lock_is_given_back_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with only_writer(tmp_path):
        pass


def test_a_lock_that_a_killed_process_left_does_not_hold(tmp_path):
    (tmp_path / LOCK).touch()
    with only_writer(tmp_path):
        pass


def test_what_is_no_folder_or_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file; choose another --out"), only_writer(tmp_path / "file"):
        pass

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\); choose"), only_writer(tmp_path):
        pass
