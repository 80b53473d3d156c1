"""Listing, looking up, the change log, codes and filter columns."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogue import reading, tokens
from catalogue.coding import AGENCY as AGENCY_KIND
from catalogue.coding import PLACE, place_cell
from catalogue.store import Catalogue
from catalogue.tables import faces
from catalogue.types import Deletion, RecordUpdate, RecordWrite, RowColumns
from homeward.errors import InvalidInput, NotFound
from homeward.ids import face_id
from homeward.types import DAY_MAX, DAY_MIN, Attributes, DateRange, PhotoNote, Sex, day_number
from tests.catalogue.builders import AGENCY, ATTRIBUTES, MODEL, NOTE, check_shown, key, photo, rid, sha, write
from tests.catalogue.conftest import Place

BOTH = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def listed(catalogue: Catalogue, page_size: int, **filters: object) -> list[str]:
    """Ids of all pages, one after the other."""
    found: list[str] = []
    token = ""
    while True:
        page = catalogue.list_records(token=token, page_size=page_size, **filters)  # type: ignore[arg-type]
        assert len(page.records) <= page_size
        found += [record.record_id for record in page.records]
        if not page.next_page_token:
            return found
        token = page.next_page_token


def test_pages_hold_every_record_once_in_order(catalogue: Catalogue) -> None:
    catalogue.apply([write(f"r{at}", {f"p{at}": at % 3}) for at in range(20)])
    every = sorted(rid(f"r{at}") for at in range(20))
    for page_size in (1, 3, 7, 10, 20, 21):
        assert listed(catalogue, page_size) == every
    page = catalogue.list_records(page_size=20)
    assert {record.record_id: len(record.photos[0].faces) for record in page.records} == {
        rid(f"r{at}"): at % 3 for at in range(20)
    }


def test_filters_hold_on_every_page(catalogue: Catalogue) -> None:
    catalogue.apply(
        [
            write(f"r{at}", {"p": at % 2}, agency=agency, gallery=gallery)
            for at in range(4)
            for agency in ("a", "b")
            for gallery in ("missing", "found")
        ]
    )
    assert len(listed(catalogue, 3, agency="a")) == 8
    assert len(listed(catalogue, 3, gallery="found")) == 8
    assert len(listed(catalogue, 3, searchable=False)) == 8
    assert listed(catalogue, 1, agency="a", gallery="found", searchable=True) == sorted(
        rid(f"r{at}", agency="a", gallery="found") for at in (1, 3)
    )
    assert listed(catalogue, 3, agency="nobody\x00") == []
    assert catalogue.agencies() == ["a", "b"]


@BOTH
@given(
    before=st.sets(st.integers(0, 40)),
    page_size=st.integers(1, 6),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=12),
)
def test_pages_are_complete_while_records_come_and_go(
    place: Place, before: set[int], page_size: int, steps: list[tuple[bool, int]]
) -> None:
    """Whoever was there throughout is listed once; nobody is listed twice."""
    catalogue = place.open()
    try:
        agency = f"agency {catalogue.rev()}"
        catalogue.apply([write(f"{at}", agency=agency, reinstate=True) for at in before])
        stayed, found, token = set(before), [], ""
        changes = iter(steps)
        while True:
            page = catalogue.list_records(agency=agency, token=token, page_size=page_size)
            found += [record.record_id for record in page.records]
            token = page.next_page_token
            if not token:
                break
            add, at = next(changes, (True, -1))
            if at < 0:
                continue
            if add:
                catalogue.apply([write(f"{at}", agency=agency, reinstate=True)])
            elif at in stayed:
                catalogue.delete(Deletion(rid(f"{at}", agency=agency), "", ""))
                stayed.discard(at)
        assert found == sorted(set(found))
        assert {rid(f"{at}", agency=agency) for at in stayed} <= set(found)
    finally:
        catalogue.close()


def test_foreign_tokens_are_refused(catalogue: Catalogue) -> None:
    catalogue.apply([write(f"r{at}") for at in range(3)])
    token = catalogue.list_records(agency=AGENCY, page_size=1).next_page_token
    for agency, bad in [
        (None, token),
        ("other", token),
        (AGENCY, token[:-1]),
        (AGENCY, token + "A"),
        (AGENCY, "x"),
        (AGENCY, "é"),
        (AGENCY, "A" * 40),
    ]:
        with pytest.raises(InvalidInput) as caught:
            catalogue.list_records(agency=agency, token=bad)
        assert caught.value.code == "PAGE_TOKEN_INVALID"
    for page_size in (0, 1001):
        with pytest.raises(InvalidInput):
            catalogue.list_records(page_size=page_size)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 27), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(record: bytes, at: int, flip: int) -> None:
    token = tokens.page_token(record.hex(), ["filter"])
    assert tokens.page_after(token, ["filter"]) == record.hex()
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[at] ^= flip
    with pytest.raises(InvalidInput):
        tokens.page_after(base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("="), ["filter"])


def test_faces_are_found_by_id_and_by_record(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2, "q": 1}), write("s", {"p": 1})])
    wanted = face_id(rid("s"), sha("p"), MODEL, 0)
    assert catalogue.face(wanted).record_id == rid("s")
    assert set(catalogue.faces([wanted, "0" * 32])) == {wanted}
    found = [(each.record_id, each.sha256, each.ordinal) for each in catalogue.faces_of([rid("r"), rid("s")])]
    assert found == sorted(
        [(rid("r"), sha("p"), 0), (rid("r"), sha("p"), 1), (rid("r"), sha("q"), 0), (rid("s"), sha("p"), 0)]
    )
    with pytest.raises(NotFound):
        catalogue.face("0" * 32)
    with pytest.raises(InvalidInput):
        catalogue.face("' OR 1=1")
    assert catalogue.faces([]) == {}
    assert catalogue.get_many([]) == {}


def test_many_records_are_read_at_once(catalogue: Catalogue) -> None:
    for start in range(0, 1200, 400):
        catalogue.apply([write(f"r{at}", ["p"]) for at in range(start, start + 400)])
    wanted = [rid(f"r{at}") for at in range(1200)]
    assert catalogue.get_many([*wanted, rid("none")]).keys() == set(wanted)
    assert [place_.face_id for place_ in catalogue.all_faces()] == sorted(
        face_id(record, sha("p"), MODEL, 0) for record in wanted
    )
    assert list(catalogue.referenced_photos(AGENCY)) == [sha("p")]
    assert [change.rev for change in catalogue.changes_since(1150, 100)] == list(range(1151, 1201))
    assert [change.rev for change in catalogue.changes_since(10, 2)] == [11, 12]
    assert catalogue.changes_since(1200) == []


def test_codes_are_small_positive_and_stay(place: Place) -> None:
    one, two = place.open(), place.open()
    try:
        first = one.codes(PLACE, ["rio", "", "recife", "rio"])
        assert first == {"": 0, "rio": first["rio"], "recife": first["recife"]}
        assert {first["rio"], first["recife"]} == {1, 2}
        assert two.codes(PLACE, ["recife", "natal"]) == {"recife": first["recife"], "natal": 3}
        assert one.codes(PLACE, ["natal"]) == {"natal": 3}
        assert one.codes(AGENCY_KIND, ["rio"]) == {"rio": 1}
        assert one.code_values(PLACE) == {1: "recife", 2: "rio", 3: "natal"}
        assert one.find_codes(PLACE, ["natal", "unknown", "", "a\x00"]) == {"natal": 3, "": 0}
        assert one.code_values(PLACE).keys() == {1, 2, 3}
        with pytest.raises(InvalidInput):
            one.codes(PLACE, ["a\x00"])
        assert one.rev() == 0
    finally:
        one.close()
        two.close()


def test_filter_columns_hold_verified_facts_only(catalogue: Catalogue) -> None:
    span = DateRange(date(2010, 1, 1), date(2010, 12, 31), verified=True)
    photos = (photo(rid("r"), "p", note=PhotoNote(taken=span)), photo(rid("r"), "q"))
    catalogue.apply([replace(write("r", load="L"), attributes=ATTRIBUTES, photos=photos)])
    columns = catalogue.row_source(rid("r"))
    born = (day_number(date(2008, 3, 1)), day_number(date(2008, 3, 31)))
    taken = (day_number(span.earliest), day_number(span.latest))
    anything = (DAY_MIN, DAY_MAX)
    assert columns == {
        sha("p"): RowColumns(1, 1, 1, int(Sex.FEMALE), *born, *anything, *taken, 1),
        sha("q"): RowColumns(1, 1, 1, int(Sex.FEMALE), *born, *anything, *anything, 1),
    }
    unverified = Attributes(sex=Sex.MALE)
    (plain,) = catalogue.columns([(key("x", gallery="found"), unverified, NOTE, "")])
    assert (plain.agency, plain.gallery, plain.load, plain.sex, plain.place) == (1, 2, 0, 0, 0)


def test_places_are_compared_without_case_and_spaces() -> None:
    assert place_cell("  Rio de\tJANEIRO ") == place_cell("rio de janeiro")


def test_settings_of_the_data_are_kept(catalogue: Catalogue) -> None:
    assert catalogue.get_meta("model") is None
    catalogue.set_meta("model", "one")
    catalogue.set_meta("model", "two")
    assert catalogue.get_meta("model") == "two"


def test_what_earlier_versions_wrote_is_shown_alike(catalogue: Catalogue) -> None:
    catalogue.apply([write("r1", {"p": 2, "q": 1}), write("r2", {"p": 1}), write("r3", {"p": 1})])
    ids = [face.face_id for face in catalogue.faces_of([rid("r1"), rid("r2"), rid("r3")])]
    assert len(ids) == 5
    before = catalogue.shown(ids)
    with catalogue._database.writing() as connection:
        connection.execute(sa.update(faces).where(faces.c.face_id.in_(ids[::2])).values(as_evidence=None))
        connection.execute(sa.update(faces).where(faces.c.record_id == rid("r3")).values(as_candidate=None))
    assert catalogue.shown(ids) == before
    check_shown(catalogue)


def test_what_is_shown_follows_attributes_and_dates(catalogue: Catalogue) -> None:
    old, new = PhotoNote(taken=span(2019)), PhotoNote(taken=span(2020))
    first = write("r", {"p": 2, "q": 1})
    first = replace(first, photos=tuple(replace(one, note=old) for one in first.photos))
    catalogue.apply([first])
    check_shown(catalogue)
    catalogue.update(RecordUpdate(rid("r"), attributes=Attributes(sex=Sex.MALE), notes={sha("p"): new}))
    check_shown(catalogue)
    # By another model the photo gives other faces; those of the first stay, and it is one photo.
    again = replace(write("r", {"p": 1}, model="model-2"), attributes=ATTRIBUTES)
    catalogue.apply([again])
    assert len(catalogue.faces_of([rid("r")])) == 4
    check_shown(catalogue)
    catalogue.update(RecordUpdate(rid("r"), notes={sha("p"): PhotoNote(), sha("q"): new}))
    check_shown(catalogue)


def test_what_is_shown_follows_the_last_of_a_batchs_items(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2}), write("s", {"p": 2})])
    males, females = Attributes(sex=Sex.MALE), Attributes(sex=Sex.FEMALE)

    def item(record: str, photos: dict[str, int], attributes: Attributes, year: int) -> RecordWrite:
        made = replace(write(record, photos), attributes=attributes)
        dated = tuple(replace(one, note=PhotoNote(taken=span(year))) for one in made.photos)
        return replace(made, photos=dated)

    catalogue.apply(
        [
            item("r", {"q": 1}, males, 2018),
            item("r", {"q": 1, "p": 2}, females, 2019),
            item("s", {"p": 1}, males, 2020),
            item("s", {"p": 1}, females, 2021),
            item("t", {"p": 1}, males, 2018),
            item("t", {"q": 1}, females, 2019),
            item("t", {"p": 1, "q": 1}, ATTRIBUTES, 2020),
        ]
    )
    check_shown(catalogue)


def test_a_write_makes_what_earlier_versions_did_not(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2})])
    with catalogue._database.writing() as connection:
        connection.execute(sa.update(faces).values(as_evidence=None, as_candidate=None))
    catalogue.update(RecordUpdate(rid("r"), notes={sha("p"): PhotoNote(taken=span(2020))}))
    with catalogue._database.reading() as connection:
        rows = connection.execute(sa.select(faces.c.as_evidence, faces.c.as_candidate)).fetchall()
    assert all(None not in row for row in rows)
    check_shown(catalogue)


def span(year: int) -> DateRange:
    return DateRange(date(year, 1, 1), date(year, 12, 31), verified=year % 2 == 0)


def test_a_face_deleted_while_it_is_being_shown_is_not(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.apply([write("r1", {"p": 1}), write("r2", {"p": 1})])
    old, new = catalogue.faces_of([rid("r1")])[0], catalogue.faces_of([rid("r2")])[0]
    with catalogue._database.writing() as connection:
        connection.execute(sa.update(faces).where(faces.c.face_id == old.face_id).values(as_evidence=None))
    monkeypatch.setattr(reading, "read_records", lambda *_: {})  # gone by the second statement
    assert catalogue.shown([old.face_id, new.face_id]).keys() == {rid("r2")}
