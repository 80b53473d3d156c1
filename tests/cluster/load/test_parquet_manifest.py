"""What a Parquet file's values mean in a manifest, and what a hostile or damaged one costs."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.load.manifest import BadRow, Row, open_manifest
from homeward.errors import InvalidInput


def rows(tmp_path: Path, table: Any, **how: Any) -> list[Row | BadRow]:
    pq.write_table(table, tmp_path / "manifest", **how)
    return list(open_manifest(tmp_path / "manifest").rows())


def references(tmp_path: Path, values: Any) -> list[str]:
    """The record of each row, or why there is none."""
    photos = [f"{number}.png" for number in range(len(values))]
    found = rows(tmp_path, pa.table({"photo": photos, "record": values}))
    return [row.reference if isinstance(row, Row) else row.why for row in found]


_NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)


@pytest.mark.parametrize(
    ("values", "is_"),
    [
        (pa.array([20110042.0, None]), ["20110042", "is required"]),
        (pa.array([20110042.0, float("nan")]), ["20110042", "is required"]),
        (pa.array([2**60]), [str(2**60)]),
        (pa.array([b"A 1", b"\xff"]), ["A 1", "holds the byte 0xFF, which is no UTF-8"]),
        (pa.array([b"A", b"B"], pa.binary(1)), ["A", "B"]),
        (_NOT_UTF8, ["holds the byte 0xFF, which is no UTF-8"]),
        (pa.array([Decimal("20110042.00"), Decimal("12.50")]), ["20110042", "12.50"]),
        (pa.array(["A", None, "B"]).dictionary_encode(), ["A", "is required", "B"]),
        (pa.array(["A"], pa.large_string()), ["A"]),
    ],
)
def test_a_record_is_named_as_a_csv_file_would_name_it(tmp_path: Path, values: Any, is_: list[str]) -> None:
    assert references(tmp_path, values) == is_


@pytest.mark.parametrize("value", [1e17, 0.1, float("inf"), -1e300])
def test_a_number_that_may_have_lost_digits_names_no_record(tmp_path: Path, value: float) -> None:
    [why] = references(tmp_path, pa.array([value]))
    assert why == f"is the number {value!r}, which does not say how it was written: write it as text"
    [why] = references(tmp_path, pa.array([2.0**25], pa.float32()))
    assert "does not say how it was written" in why


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["A"]]),
        pa.array([{"x": 1}]),
        pa.array([True]),
        pa.array([date(2011, 1, 1)]),
        pa.array([1], pa.time64("us")),
    ],
)
def test_a_column_whose_type_names_no_record_is_refused_with_its_type(tmp_path: Path, values: Any) -> None:
    with pytest.raises(
        InvalidInput, match=r"its column record is of the type .*: write it as text"
    ) as refused:
        references(tmp_path, values)
    assert refused.value.code == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    ("values", "is_"),
    [
        (pa.array([2008]), date(2008, 1, 1)),
        (pa.array([2008.0]), date(2008, 1, 1)),
        (pa.array([1199145600000000001], pa.timestamp("ns")), date(2008, 1, 1)),
        (pa.array([1199142000], pa.timestamp("s", "Europe/Stockholm")), date(2008, 1, 1)),
        (pa.array([1199142000], pa.timestamp("s", "+01:00")), date(2008, 1, 1)),
        (pa.array([1199142000], pa.timestamp("s", "UTC")), date(2007, 12, 31)),
        (pa.array([date(2008, 1, 1)], pa.date64()), date(2008, 1, 1)),
        (pa.array([9 * 10**12], pa.timestamp("s")), "is a date that no calendar here has"),
        (pa.array([2**30], pa.int32()).cast(pa.date32()), "is a date that no calendar here has"),
        (
            pa.array([0], pa.timestamp("s", "Nowhere/X")),
            "is a time in the zone 'Nowhere/X', which is not known here",
        ),
    ],
)
def test_a_date_is_read_or_costs_its_own_row(tmp_path: Path, values: Any, is_: date | str) -> None:
    [row] = rows(tmp_path, pa.table({"photo": ["a"], "record": ["A"], "born": values}))
    if isinstance(is_, str):
        assert row == BadRow(1, "born", is_, "a")
    else:
        assert isinstance(row, Row)
        assert row.attributes.born is not None
        assert row.attributes.born.earliest == is_


def test_a_value_that_is_too_long_costs_its_own_row(tmp_path: Path) -> None:
    found = rows(tmp_path, pa.table({"photo": ["a", "y" * 70_000, "c"], "record": ["A", "B", "C"]}))
    assert [type(row) for row in found] == [Row, BadRow, Row]
    assert found[1] == BadRow(2, "photo", "has 70,000 bytes; at most 65,536 are read")


_BOMB = """
import sys, pyarrow.parquet
from pathlib import Path
from cluster.load.manifest import BadRow, open_manifest
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
before = peak()
assert all(isinstance(row, BadRow) for row in open_manifest(Path(sys.argv[1])).rows())
print(peak() - before)
"""


@pytest.mark.parametrize("encoding", ["PLAIN_DICTIONARY", "DELTA_BYTE_ARRAY"])
def test_a_small_file_of_long_values_stays_small_in_memory(tmp_path: Path, encoding: str) -> None:
    table = pa.table({"photo": ["y" * 1_000_000] * 300, "record": ["A"] * 300})
    plain = {"use_dictionary": False, "column_encoding": {"photo": encoding}}
    pq.write_table(table, tmp_path / "m", **(plain if encoding == "DELTA_BYTE_ARRAY" else {}))
    assert (tmp_path / "m").stat().st_size < 100_000
    done = subprocess.run(
        [sys.executable, "-c", _BOMB, tmp_path / "m"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120  # MB; all values at once take 300


def test_a_page_that_is_too_large_to_unpack_is_refused(tmp_path: Path) -> None:
    table = pa.table({"photo": ["y" * 80_000_000], "record": ["A"]})
    with pytest.raises(InvalidInput, match="write it with smaller pages"):
        rows(tmp_path, table, use_dictionary=False, compression="zstd")


def test_a_damaged_page_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    pq.write_table(pa.table({"photo": ["a"] * 500, "record": [f"A{number}" for number in range(500)]}), path)
    content = bytearray(path.read_bytes())
    for at in range(20, 60):
        content[at] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="damaged") as refused:
        list(open_manifest(path).rows())
    assert refused.value.code == "MANIFEST_INVALID"


def _written() -> list[bytes]:
    table = pa.table(
        {
            "photo": [f"a/{number}.png" for number in range(60)],
            "record": range(60),
            "born": pa.array([date(2008, 1, 1)] * 60),
            "taken": pa.array([1199145600] * 60, pa.timestamp("s", "Europe/Stockholm")),
            "event_place": pa.array(["x", "y", "z"] * 20).dictionary_encode(),
            "shoes": [[1, 2]] * 60,
        }
    )
    delta = {"use_dictionary": False, "column_encoding": {"photo": "DELTA_BYTE_ARRAY"}}
    found = []
    with TemporaryDirectory() as folder:
        for how in ({}, {"data_page_version": "2.0", "row_group_size": 20}, delta):
            pq.write_table(table, Path(folder) / "m", **how)
            found.append((Path(folder) / "m").read_bytes())
    return found


_WRITTEN = _written()


@given(st.integers(0, 2**64), st.sampled_from(_WRITTEN))
@settings(max_examples=150, deadline=None)
def test_a_mutated_file_gives_rows_bad_rows_or_is_refused(seed: int, written: bytes) -> None:
    choose, content = random.Random(seed), bytearray(written)
    for _ in range(choose.choice((1, 2, 8))):
        content[choose.randrange(4, len(content))] = choose.randrange(256)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_bytes(content)
        try:
            for row in open_manifest(path).rows():
                assert isinstance(row, Row) or row.why
        except InvalidInput as error:
            assert error.code == "MANIFEST_INVALID"  # noqa: PT017 - no error is right too
