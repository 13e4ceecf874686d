"""What holds for all tests of the lab."""

import pytest

from metarobust.lab import run_folder

CODE = run_folder.code()  # once: asking git at every start would take long


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Many small files are written here: no waiting for the disk, and git is asked once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarobust.storage.os.fsync", lambda file: None)
        patch.setattr(run_folder, "code", lambda: CODE)
        yield
