"""What a manifest says of each photo, and what is said of a row that makes no sense."""

from __future__ import annotations

import csv
import io
import tracemalloc
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.load.csv_table import split_rows
from cluster.load.manifest import COLUMNS, BadRow, Row, open_manifest
from homeward.errors import InvalidInput
from homeward.types import Attributes, DateRange, FaceChoice, PhotoNote, Sex


def csv_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(path: Path) -> list[Row | BadRow]:
    return list(open_manifest(path).rows())


def bad(path: Path) -> tuple[int, str, str]:
    [row] = rows(path)
    assert isinstance(row, BadRow)
    return row.line, row.column, row.why


_FULL = {
    "photo": "a/1.jpg",
    "record": "2011-0042",
    "born": "2008-05",
    "born_verified": "yes",
    "sex": "Female",
    "sex_verified": "true",
    "event": "2011-03-01..2011-03-04",
    "event_verified": "0",
    "event_place": "Lund",
    "case_reference": "K 1",
    "provenance": "archive",
    "legal_basis": "act 3",
    "taken": "2010",
    "taken_verified": "",
    "face": "2",
    "photo_provenance": "the family",
}
_ROW = Row(
    2,
    "a/1.jpg",
    "2011-0042",
    Attributes(
        born=DateRange(date(2008, 5, 1), date(2008, 5, 31), verified=True),
        sex=Sex.FEMALE,
        sex_verified=True,
        event=DateRange(date(2011, 3, 1), date(2011, 3, 4)),
        event_place="Lund",
        case_reference="K 1",
        provenance="archive",
        legal_basis="act 3",
    ),
    PhotoNote(
        taken=DateRange(date(2010, 1, 1), date(2010, 12, 31)),
        choice=FaceChoice.ORDINAL,
        ordinal=2,
        provenance="the family",
    ),
)


@pytest.mark.parametrize("separator", ",;\t")
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_column_of_a_csv_file_is_read(tmp_path: Path, separator: str, mark: bytes, end: str) -> None:
    lines = separator.join(_FULL) + end + separator.join(_FULL.values()) + end
    assert tuple(_FULL) == tuple(COLUMNS)
    assert rows(csv_file(tmp_path, mark + lines.encode())) == [_ROW]


def test_every_column_of_a_parquet_file_is_read_with_dates_numbers_and_truth_values(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    full: dict[str, list[object]] = {name: [value] for name, value in _FULL.items()}
    full |= {"born": ["2008-05"], "born_verified": [True], "face": [2], "taken_verified": [None]}
    full |= {"event": [date(2011, 3, 1)], "shoe": [43]}
    pq.write_table(pa.table(full), path)
    [row] = rows(path)
    assert isinstance(row, Row)
    assert row.line == 1
    assert row.note == _ROW.note
    assert row.attributes.born == _ROW.attributes.born
    assert row.attributes.event == DateRange(date(2011, 3, 1), date(2011, 3, 1))
    assert open_manifest(path).unknown == ("shoe",)


def test_a_photo_and_a_record_are_enough(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "record,photo\nA,a/1.jpg\n\nB,b/1.jpg\n")
    assert rows(path) == [
        Row(2, "a/1.jpg", "A", Attributes(), PhotoNote()),
        Row(4, "b/1.jpg", "B", Attributes(), PhotoNote()),
    ]


def test_columns_that_are_not_known_are_told(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "photo,Photo,record,eyes\na,b,c,d\n")
    assert open_manifest(path).unknown == ("Photo", "eyes")
    assert rows(path) == [Row(2, "a", "c", Attributes(), PhotoNote())]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("born", "2011-13", "no day of the calendar"),
        ("born", "yesterday", "is no date"),
        ("born", "2012..2011", "begins on 2012-01-01 and ends before that"),
        ("taken_verified", "yes", "is marked as verified but gives no date"),
        ("sex", "boy", "'boy' is none of f, female, m, male"),
        ("sex_verified", "yes", "is set, but no sex is given"),
        ("event_verified", "maybe", "'maybe' is none of no, false, 0, yes, true, 1"),
        ("face", "-1", "is none of sole, central, composite"),
        ("face", "99999999", "is none of sole, central, composite"),
        ("record", " ", "is required"),
        ("record", "x" * 300, "has 300 characters"),
        ("event_place", "a\x07b", "U+0007"),
        ("photo", "", "a name of 1 to"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_line_and_column(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    given = {"photo": "a", "record": "A", name: value}
    path = csv_file(tmp_path, f"{','.join(given)}\n{','.join(given.values())}\n")
    line, column, said = bad(path)
    assert (line, column.partition("_verified")[0]) == (2, name.partition("_verified")[0])
    assert why in said
    assert not said.startswith(f"{column}:")


def test_a_bad_row_costs_itself_alone(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"photo,record\na,A\nb\nc,C,x\nd,D\xff\xfe\ne,E\n")
    found = rows(path)
    assert [row.line for row in found] == [2, 3, 4, 5, 6]
    assert [type(row) for row in found] == [Row, BadRow, BadRow, BadRow, Row]
    assert "the byte 0xFF, which is no UTF-8" in str(found[3])


def test_a_missing_quotation_mark_is_told_with_the_lines_it_costs(tmp_path: Path) -> None:
    path = csv_file(tmp_path, 'photo,record\na,A\n"b,B\nc,C\nd,D\n')
    found = rows(path)
    assert found[0] == Row(2, "a", "A", Attributes(), PhotoNote())
    assert isinstance(found[1], BadRow)
    assert found[1].line == 3
    assert "lines 3 to 5" in found[1].why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column photo and no column record; it has none"),
        ("photo,reference\n", "no column record"),
        ("photo,record,photo\n", "several columns photo"),
        ("PAR1 and no more", "cannot be read"),
        ('"photo', "its first row: unexpected end of data: is a quotation mark missing"),
        ('photo,record,"note"s\na,A,x\n', "its first row: .* is a quotation mark missing"),
        ('photo,record,"note\na,A,x\n', "its first row: .* is a quotation mark missing"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        open_manifest(csv_file(tmp_path, text))
    assert refused.value.code == "MANIFEST_INVALID"
    with pytest.raises(InvalidInput, match="No such file"):
        open_manifest(tmp_path / "none.csv")


def test_columns_of_other_bytes_are_told_in_characters_that_can_be_written_and_shown(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"photo,record,gr\xf6\xdfe,\x1b[31mred\na,A,3,4\n")
    manifest = open_manifest(path)
    assert manifest.unknown == ("gr\\xf6\\xdfe", "\\x1b[31mred")
    assert list(manifest.rows()) == [Row(2, "a", "A", Attributes(), PhotoNote())]
    with pytest.raises(InvalidInput, match="no column photo") as refused:
        open_manifest(csv_file(tmp_path, b"gr\xf6\x1b[31m,record\n"))
    assert "gr\\xf6\\x1b[31m" in refused.value.message


def test_of_a_crowd_of_unknown_columns_the_first_are_told(tmp_path: Path) -> None:
    names = ["x" * 1000, *(f"c{number}" for number in range(9_999))]
    unknown = open_manifest(csv_file(tmp_path, ",".join(["photo", "record", *names]))).unknown
    assert len(unknown) == 33
    assert unknown[0] == "x" * 64 + "..."
    assert unknown[-1] == "and 9,968 more"


@pytest.mark.parametrize(
    ("name", "is_"),
    [
        ("./A/1.png", "A/1.png"),
        ("A//./1.png", "A/1.png"),
        ("/A/1.png/", "A/1.png"),
        ("../1.png", "../1.png"),
        ("s3://a/./b//1.png", "s3://a/./b//1.png"),
    ],
)
def test_a_photo_is_named_without_steps_that_lead_nowhere(tmp_path: Path, name: str, is_: str) -> None:
    [row] = rows(csv_file(tmp_path, f"photo,record\n{name}, A \n"))
    assert isinstance(row, Row)
    assert (row.photo, row.reference) == (is_, "A")


def test_a_photo_may_have_bytes_that_are_no_text_and_a_record_may_not(tmp_path: Path) -> None:
    first, second = rows(csv_file(tmp_path, b"photo,record\n\xff.png,A\nb.png,\xff\xfe\n"))
    assert isinstance(first, Row)
    assert first.photo == "\udcff.png"
    assert isinstance(second, BadRow)
    assert second.why.startswith("holds the byte 0xFF, which is no UTF-8")


def test_utf_16_is_told_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="UTF-16"):
        open_manifest(csv_file(tmp_path, "photo,record\n".encode("utf-16")))


@pytest.mark.parametrize(
    "long", ["x" * 3_000_000, '"' + "x\n" * 1_000_000 + '"', '"' + '""\r\n' * 400_000 + '"']
)
def test_a_row_that_is_too_long_costs_itself_alone(tmp_path: Path, long: str) -> None:
    found = rows(csv_file(tmp_path, f"photo,record\na,A\nb,{long}\nc,C\n"))
    assert [type(row) for row in found] == [Row, BadRow, Row]
    assert "is longer than 1,048,576 characters" in str(found[1])
    assert found[1].line == 3


def test_a_line_of_hundreds_of_megabytes_is_not_held(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "photo,record\na,A\n")
    with path.open("r+b") as file:
        file.seek(1 << 28, 2)
        file.write(b"\nb,B\n")
    tracemalloc.start()
    try:
        found = rows(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert [type(row) for row in found] == [Row, BadRow, Row]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("around", range(-2, 3))
def test_lines_end_where_they_end_even_where_a_piece_of_the_file_does(
    tmp_path: Path, end: str, around: int
) -> None:
    place = "x" * ((1 << 16) + around - len("a,A," + end))
    path = csv_file(tmp_path, f"photo,record,shoe{end}a,A,{place}{end}{end}b,B,{end}")
    assert [(row.line, row.photo) for row in rows(path)] == [(2, "a"), (4, "b")]


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_manifest_or_none(content: bytes) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            rows(csv_file(Path(folder), content))
            assert open_manifest(csv_file(Path(folder), b"photo,record," + content)).unknown is not None
        except InvalidInput as error:
            assert error.code == "MANIFEST_INVALID"  # noqa: PT017 - no error is right too


@given(st.text('ab,"\n\r;', max_size=40))
@settings(max_examples=300, deadline=None)
def test_rows_are_split_as_the_csv_module_splits_them(text: str) -> None:
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        expected = None
    found = [
        row.text
        for row in split_rows(io.StringIO(text, newline=""), ",")
        if row.text and row.text.strip("\r\n")
    ]
    if expected is not None:
        assert [next(csv.reader([row], strict=True)) for row in found] == expected


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_bytes_follow_the_first_line_each_row_is_used_or_reported(content: bytes) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = csv_file(Path(folder), b"photo,record\n" + content)
        for row in rows(path):
            assert row.line > 1
            assert isinstance(row, Row) or row.why


@given(
    st.lists(
        st.tuples(st.text('ab,;" \n', min_size=1, max_size=6), st.text('AB,"', min_size=1, max_size=4)),
        max_size=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_what_a_csv_writer_wrote_is_read_as_it_was(pairs: list[tuple[str, str]]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("photo", "record"), *pairs])
        found = rows(path)
        assert [(row.photo, row.reference) for row in found if isinstance(row, Row)] == pairs
