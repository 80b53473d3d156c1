"""Requests become types, and every malformed value is named by its field."""

from __future__ import annotations

import unicodedata
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rpc import convert, fields
from homeward.errors import InvalidInput
from homeward.shown import write_date_range
from homeward.types import Attributes, DateRange, FaceChoice, PhotoNote, RecordKey, Sex
from homeward.v1 import enrolment_pb2, records_pb2


def field_of(error: pytest.ExceptionInfo[InvalidInput]) -> str:
    return error.value.details["field"]


@pytest.mark.parametrize(
    ("earliest", "latest", "expected"),
    [
        ("2004-05-06", "", (date(2004, 5, 6), date(2004, 5, 6))),
        ("", "2004-05-06", (date(2004, 5, 6), date(2004, 5, 6))),
        ("2004", "", (date(2004, 1, 1), date(2004, 12, 31))),
        ("2004-02", "", (date(2004, 2, 1), date(2004, 2, 29))),
        ("", "2003-02", (date(2003, 2, 1), date(2003, 2, 28))),
        ("1999", "2001-06", (date(1999, 1, 1), date(2001, 6, 30))),
    ],
)
def test_short_dates_stand_for_their_first_and_last_day(
    earliest: str, latest: str, expected: tuple[date, date]
) -> None:
    message = records_pb2.DateRange(earliest=earliest, latest=latest)
    assert convert.read_date_range(message, "born") == DateRange(*expected)


@pytest.mark.parametrize(
    ("earliest", "latest", "wrong"),
    [
        ("2004-13", "", "born.earliest"),
        ("2004-00", "", "born.earliest"),
        ("2004-02-30", "", "born.earliest"),
        ("0000", "", "born.earliest"),
        ("", "04-02-2004", "born.latest"),
        ("2004-1-1", "", "born.earliest"),
        ("\u0662\u0660\u0660\u0664", "", "born.earliest"),
        ("2004\n", "", "born.earliest"),
        ("2004", "next year", "born.latest"),
        ("2005", "2004", "born"),
    ],
)
def test_a_malformed_date_names_its_field(earliest: str, latest: str, wrong: str) -> None:
    with pytest.raises(InvalidInput) as error:
        convert.read_date_range(records_pb2.DateRange(earliest=earliest, latest=latest), "born")
    assert field_of(error) == wrong


def test_no_date_is_unknown_and_cannot_be_verified() -> None:
    assert convert.read_date_range(records_pb2.DateRange(), "born") is None
    with pytest.raises(InvalidInput):
        convert.read_date_range(records_pb2.DateRange(verified=True), "born")


@given(st.dates(), st.dates(), st.booleans())
def test_a_written_range_reads_back(one: date, two: date, verified: bool) -> None:
    value = DateRange(min(one, two), max(one, two), verified)
    message = write_date_range(value)
    assert message is not None
    assert convert.read_date_range(message, "born") == value


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_date_or_a_typed_refusal(one: str, two: str) -> None:
    try:
        fields.span(one, two, False, "born")
    except InvalidInput as error:
        assert error.details["field"].startswith("born")  # noqa: PT017


def test_one_name_typed_two_ways_is_one_key() -> None:
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    assert composed != decomposed
    keys = {
        convert.read_key(records_pb2.RecordKey(agency=name, gallery="missing", external_reference="1"))
        for name in (composed, decomposed)
    }
    assert keys == {RecordKey(composed, "missing", "1")}


@pytest.mark.parametrize(
    "bad", ["", " ", "a" * 257, "a\x00b", "a\nb", " a", "a ", "a\u202eb", "a\ufeff", "\u00a0a", "a\ue000"]
)
def test_a_key_part_that_does_not_read_is_refused(bad: str) -> None:
    for part in ("agency", "gallery", "external_reference"):
        message = records_pb2.RecordKey(agency="a", gallery="g", external_reference="r")
        setattr(message, part, bad)
        with pytest.raises(InvalidInput) as error:
            convert.read_key(message)
        assert field_of(error) == f"key.{part}"


def test_joiners_of_persian_names_stay() -> None:
    assert fields.key_text("\u0645\u06cc\u200c\u0631", "key.agency") == "\u0645\u06cc\u200c\u0631"


@pytest.mark.parametrize("marks", ["\u0301" * 31, "\u0301" * 20_000 + "\u0327" * 20_000])
def test_marks_piled_on_a_letter_are_refused_before_they_are_sorted(marks: str) -> None:
    for value in (f"a{marks}", f"Zo{marks}e" * 3):
        with pytest.raises(InvalidInput):
            fields.text(value, "note", limit=fields.LONG_CHARS)
    assert fields.text("Zoe\u0308" * 60, "note") == "Zo\u00eb" * 60  # as some systems write every accent


@given(st.text(max_size=300))
def test_accepted_text_is_nfc_and_bounded(value: str) -> None:
    try:
        kept = fields.text(value, "event_place")
    except InvalidInput as error:
        assert error.details["field"] == "event_place"  # noqa: PT017
        return
    assert unicodedata.is_normalized("NFC", kept)
    assert len(kept) <= fields.SHORT_CHARS


@given(
    st.builds(
        Attributes,
        born=st.none() | st.dates().map(lambda day: DateRange(day, day, True)),
        sex=st.sampled_from([Sex.FEMALE, Sex.MALE]),
        sex_verified=st.booleans(),
        event=st.none() | st.dates().map(lambda day: DateRange(day, day)),
        event_place=st.sampled_from(["", "São Paulo", "北京"]),
        case_reference=st.just("c-1"),
        provenance=st.just("family"),
        legal_basis=st.just("act 5"),
    )
)
def test_written_attributes_read_back(value: Attributes) -> None:
    assert convert.read_attributes(convert.write_attributes(value)) == value


def test_numbers_outside_an_enum_are_refused() -> None:
    attributes = records_pb2.Attributes.FromString(b"\x10\x09")  # sex = 9
    with pytest.raises(InvalidInput) as error:
        convert.read_attributes(attributes)
    assert field_of(error) == "attributes.sex"
    upload = enrolment_pb2.PhotoUpload.FromString(b"\x18\x63")  # choice = 99
    with pytest.raises(InvalidInput) as error:
        convert.read_photo_note(upload, "photos[3]")
    assert field_of(error) == "photos[3].choice"


def test_a_verified_sex_must_be_given() -> None:
    with pytest.raises(InvalidInput) as error:
        convert.read_attributes(records_pb2.Attributes(sex_verified=True))
    assert field_of(error) == "attributes.sex_verified"


def test_an_ordinal_needs_its_choice() -> None:
    with pytest.raises(InvalidInput) as error:
        convert.read_photo_note(enrolment_pb2.PhotoUpload(ordinal=2), "photos[0]")
    assert field_of(error) == "photos[0].ordinal"
    upload = enrolment_pb2.PhotoUpload(ordinal=2, choice=records_pb2.FACE_CHOICE_ORDINAL)
    assert convert.read_photo_note(upload, "photos[0]") == PhotoNote(choice=FaceChoice.ORDINAL, ordinal=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.5, 151.0])
def test_numbers_are_finite_and_in_range(value: float) -> None:
    with pytest.raises(InvalidInput) as error:
        fields.number(value, "facts.age.min_years", low=0, high=150)
    assert field_of(error) == "facts.age.min_years"


@pytest.mark.parametrize("bad", ["", " ", "x" * 129, "a\tb"])
def test_a_request_id_is_required_and_short(bad: str) -> None:
    with pytest.raises(InvalidInput) as error:
        fields.request_id(bad)
    assert field_of(error) == "request_id"


def test_an_agency_must_fit_where_it_names_a_folder() -> None:
    with pytest.raises(InvalidInput) as error:
        convert.read_key(
            records_pb2.RecordKey(agency="\u5317" * 27, gallery="missing", external_reference="1")
        )
    assert field_of(error) == "key.agency"
