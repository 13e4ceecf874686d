"""CSV tables read back to the digit, and what is damaged or of another type is refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarobust.lab.results import as_rows
from metarobust.lab.tables import read_csv, write_csv

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = {"name": str, "value": float, "n": int}
ROW = {"name": "a", "value": 0.1, "n": 3}


cells = st.fixed_dictionaries(
    {
        "name": st.text("ab é,;\"'\n#NA"),
        "value": st.none() | st.floats(allow_nan=False),
        "n": st.none() | st.integers(-(2**53), 2**53),
    }
)


def again(folder, written):
    return read_csv(folder / "a.csv", written["columns"], written["files_sha256"]["a.csv"])


@QUICK
@given(st.lists(cells, min_size=1))
def test_csv_round_trip_is_exact(tmp_path, rows):
    written = write_csv(tmp_path / "a.csv", rows, COLUMNS)
    ordered = [{name: row[name] for name in COLUMNS} for row in rows]
    assert repr(as_rows(again(tmp_path, written))) == repr(ordered)  # repr tells -0.0 from 0.0


def test_what_is_missing_is_an_empty_cell(tmp_path):
    written = write_csv(tmp_path / "a.csv", [{"n": 3}], COLUMNS)
    assert as_rows(again(tmp_path, written)) == [{"name": "", "value": None, "n": 3}]


@pytest.mark.parametrize(("change", "word"), [({"value": "x"}, "'x'"), ({"n": 1.5}, "int64"), ({"more": 1}, "'more'")])
def test_csv_refuses_values_of_another_type(tmp_path, change, word):
    with pytest.raises((ValueError, TypeError), match=word):
        write_csv(tmp_path / "a.csv", [ROW | change], COLUMNS)
    assert not list(tmp_path.iterdir())
