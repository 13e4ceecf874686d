"""CSV tables read back to the digit, and what is damaged or of another type is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarobust import storage
from metarobust.errors import InputError
from metarobust.lab.tables import read_csv, write_csv

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = {"name": str, "value": float, "n": int}
ROWS = [{"name": "a", "value": 0.1, "n": 3}, {"name": 'b, "c"\nd', "value": 1 / 3, "n": -2}]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(storage.os, "fsync", lambda file: None)


cells = st.fixed_dictionaries(
    {
        "name": st.text(st.characters(codec="utf-8", exclude_characters="\r")),
        "value": st.none() | st.floats(allow_nan=False),
        "n": st.none() | st.integers(),
    }
)


@QUICK
@given(st.lists(cells))
def test_csv_round_trip_is_exact(tmp_path, rows):
    digest = write_csv(tmp_path / "a.csv", rows, COLUMNS)
    ordered = [{name: row[name] for name in COLUMNS} for row in rows]
    assert repr(read_csv(tmp_path / "a.csv", COLUMNS, digest)) == repr(ordered)  # repr tells -0.0 from 0.0


def test_csv_takes_tensor_values_and_nan(tmp_path):
    write_csv(tmp_path / "a.csv", [{"name": "a", "value": torch.tensor(math.nan), "n": torch.tensor(3)}], COLUMNS)
    (row,) = read_csv(tmp_path / "a.csv", COLUMNS)
    assert math.isnan(row["value"])
    assert row["n"] == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"value": "x"}, "'x'"),
        ({"n": 1.5}, "1.5"),
        ({"name": None}, "None"),
        ({"name": "a\rb"}, r"a\\rb"),
        ({"more": 1}, "'more'"),
    ],
)
def test_csv_refuses_values_of_another_type(tmp_path, change, word):
    with pytest.raises(InputError, match=word):
        write_csv(tmp_path / "a.csv", [ROWS[0] | change], COLUMNS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "name,value\na,1\n", "name,value,n\na,0.1,3", "name,value,n\na,0.1\n", "name,value,n\na,x,3\n", '"'],
)
def test_a_csv_without_a_digest_is_still_checked_for_its_form(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        read_csv(tmp_path / "a.csv", COLUMNS)


def test_a_changed_byte_is_refused_by_the_digest(tmp_path):
    digest = write_csv(tmp_path / "a.csv", ROWS, COLUMNS)
    (tmp_path / "a.csv").write_bytes((tmp_path / "a.csv").read_bytes().replace(b"0.1", b"0.2"))
    with pytest.raises(InputError, match="damaged"):
        read_csv(tmp_path / "a.csv", COLUMNS, digest)
