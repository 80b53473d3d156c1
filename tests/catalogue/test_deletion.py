"""Tombstones, and removing what other stores hold without ever losing what is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from catalogue.store import Catalogue
from catalogue.tables import metadata
from catalogue.types import Deletion, Item, RecordUpdate, Store
from homeward.errors import Conflict, EtagMismatch, NotFound, RecordDeleted, StoreUnavailable
from homeward.ids import face_id
from tests.catalogue.builders import (
    AGENCY,
    ATTRIBUTES,
    MODEL,
    NOTE,
    done,
    items_of,
    recalled,
    request,
    rid,
    sha,
    write,
)


def deletion(reference: str, agency: str = AGENCY) -> Deletion:
    return Deletion(rid(reference, agency=agency), "asked for", "officer 7")


def erase_all(catalogue: Catalogue, store: Store) -> list[Item]:
    """Run the sweeper to its end; what it removed."""
    removed: list[Item] = []
    while catalogue.erase(store, removed.extend):
        pass
    return removed


def names(items: Sequence[Item]) -> set[tuple[str, str]]:
    return {(item.agency, item.item) for item in items}


def test_a_deleted_record_is_gone_and_stays_gone(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2}, request=request("q"))])
    result = catalogue.delete(deletion("r"))
    record = rid("r")
    assert (result.rev, result.deleted, result.created) == (2, True, False)
    assert set(result.removed_faces) == {face_id(record, sha("p"), MODEL, at) for at in (0, 1)}
    with pytest.raises(RecordDeleted):
        catalogue.get(record)
    with pytest.raises(RecordDeleted):
        catalogue.update(RecordUpdate(record, ATTRIBUTES))
    assert isinstance(catalogue.apply([write("r", {"p": 2})])[0], RecordDeleted)
    assert catalogue.get_many([record]) == {}
    assert catalogue.faces_of([record]) == []
    assert catalogue.deleted([record, rid("other")]) == {record}
    assert [(change.rev, change.deleted) for change in catalogue.changes_since(0)] == [(1, False), (2, True)]
    counts = catalogue.counts()
    assert (counts.records, counts.photos, counts.faces, counts.tombstones) == (0, 0, 0, 1)


def test_a_tombstone_keeps_nothing_of_the_child(catalogue: Catalogue) -> None:
    made = replace(write("reference-4711", {"p": 1}, request=request("q")), attributes=ATTRIBUTES)
    made = replace(made, photos=(replace(made.photos[0], note=NOTE),))
    catalogue.apply([made])
    catalogue.delete(deletion("reference-4711"))
    for store in Store:
        erase_all(catalogue, store)
    left = []
    with catalogue._database.reading() as connection:
        for table in metadata.sorted_tables:
            left += [str(row) for row in connection.execute(sa.select(table))]
    text = "\n".join(left)
    for word in ("4711", "Curitiba", "C-17", "law 12", "mother", "2008", "2011", sha("p"), "rev 1"):
        assert word not in text
    stone = catalogue.tombstone(rid("reference-4711"))
    assert stone is not None
    assert (stone.reason, stone.requester, stone.rev) == ("asked for", "officer 7", 2)


def test_deleting_again_changes_nothing(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    first = catalogue.delete(deletion("r"))
    assert catalogue.delete(deletion("r")).rev == first.rev == catalogue.rev()
    with pytest.raises(NotFound):
        catalogue.delete(deletion("nobody"))
    with pytest.raises(NotFound):
        catalogue.get(rid("nobody"))


def test_a_deletion_is_idempotent_by_its_request(catalogue: Catalogue) -> None:
    catalogue.apply([write("r")])
    asked = replace(deletion("r"), request=request("d", method="Delete"))
    assert catalogue.delete(asked).response == b"rev 2"
    again = catalogue.delete(asked)
    assert (again.replayed, again.response) == (True, b"rev 2")
    assert recalled(catalogue, "d", "Delete", "digest") == b"rev 2"


def test_a_deletion_may_expect_a_version(catalogue: Catalogue) -> None:
    catalogue.apply([write("r")])
    with pytest.raises(EtagMismatch):
        catalogue.delete(replace(deletion("r"), expected_version=9))
    assert catalogue.delete(replace(deletion("r"), expected_version=1)).rev == 2


def test_answers_that_speak_of_the_child_go_with_it(catalogue: Catalogue) -> None:
    made = write("r", request=request("q"))
    catalogue.apply([made])
    catalogue.delete(deletion("r"))
    with pytest.raises(RecordDeleted):
        recalled(catalogue, "q", "Enrol", "digest")
    assert isinstance(catalogue.apply([made])[0], RecordDeleted)
    # Nor does a late repeat of the old request bring the old words back after a reinstatement.
    catalogue.apply([write("r", reinstate=True)])
    assert isinstance(catalogue.apply([made])[0], RecordDeleted)


def test_reinstating_by_name_brings_a_record_back(catalogue: Catalogue) -> None:
    old = done(catalogue.apply([write("r", {"p": 1})])[0])
    catalogue.delete(deletion("r"))
    new = done(catalogue.apply([write("r", {"p": 1}, reinstate=True)])[0])
    assert (new.created, new.rev) == (True, 3)
    assert new.etag != old.etag
    assert catalogue.tombstone(rid("r")) is None
    assert catalogue.pending_erasures() == []
    assert [change.deleted for change in catalogue.changes_since(0)] == [False, True, False]


def test_reinstating_without_the_old_photo_still_erases_it(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1, "q": 1})])
    catalogue.delete(deletion("r"))
    catalogue.apply([write("r", {"q": 1}, reinstate=True)])
    assert names(erase_all(catalogue, Store.PHOTOS)) == {(AGENCY, sha("p"))}
    assert names(erase_all(catalogue, Store.GALLERY)) == {("", face_id(rid("r"), sha("p"), MODEL, 0))}


def test_a_photo_goes_with_the_last_reference_of_its_agency(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1}), write("s", {"p": 1}), write("r", {"p": 1}, agency="other agency")])
    catalogue.delete(deletion("r"))
    assert erase_all(catalogue, Store.PHOTOS) == []
    assert catalogue.photo_referenced(AGENCY, sha("p"))
    stone = catalogue.tombstone(rid("r"))
    assert stone is not None
    assert stone.photos_erased_at is not None
    assert stone.gallery_erased_at is None
    catalogue.delete(deletion("s"))
    assert not catalogue.photo_referenced(AGENCY, sha("p"))
    assert names(erase_all(catalogue, Store.PHOTOS)) == {(AGENCY, sha("p"))}
    assert catalogue.photo_referenced("other agency", sha("p"))


def test_each_store_is_pending_until_it_is_erased(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    catalogue.delete(deletion("r"))
    stone = catalogue.tombstone(rid("r"))
    assert stone is not None
    assert (stone.gallery_erased_at, stone.photos_erased_at) == (None, None)
    assert len(catalogue.pending_erasures(record_id=rid("r"))) == 2
    assert erase_all(catalogue, Store.GALLERY) == [
        Item(Store.GALLERY, rid("r"), face_id(rid("r"), sha("p"), MODEL, 0))
    ]
    stone = catalogue.tombstone(rid("r"))
    assert stone is not None
    assert stone.gallery_erased_at is not None
    assert stone.photos_erased_at is None
    catalogue.mark_erased(rid("r"), Store.PHOTOS)
    stone = catalogue.tombstone(rid("r"))
    assert stone is not None
    assert stone.photos_erased_at is not None
    assert catalogue.pending_erasures() == []


def test_a_store_that_fails_leaves_its_items_pending(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    catalogue.delete(deletion("r"))

    def fail(items: Sequence[Item]) -> None:
        raise StoreUnavailable(f"{len(items)} items")

    with pytest.raises(StoreUnavailable):
        catalogue.erase(Store.PHOTOS, fail)
    assert len(catalogue.pending_erasures(Store.PHOTOS)) == 1
    assert len(erase_all(catalogue, Store.PHOTOS)) == 1


def test_erasing_goes_in_steps_and_by_record(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", [f"p{at}" for at in range(5)]), write("s", ["s"])])
    catalogue.delete(deletion("r"))
    catalogue.delete(deletion("s"))
    removed: list[Item] = []
    assert catalogue.erase(Store.PHOTOS, removed.extend, record_id=rid("s")) == 1
    assert names(removed) == {(AGENCY, sha("s"))}
    assert [catalogue.erase(Store.PHOTOS, removed.extend, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(removed) == 6


def test_what_a_writer_is_about_to_store_is_not_erased(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    other = write("s", {"p": 1})
    (intent,) = catalogue.begin_intents([items_of(other)])
    catalogue.delete(deletion("r"))
    assert erase_all(catalogue, Store.PHOTOS) == []
    assert catalogue.intended(Store.PHOTOS) == {(AGENCY, sha("p"))}
    assert len(catalogue.pending_erasures(Store.PHOTOS)) == 1
    done(catalogue.apply([replace(other, intent=intent)])[0])
    assert catalogue.pending_erasures(Store.PHOTOS) == []
    assert catalogue.counts().intents == 0
    stone = catalogue.tombstone(rid("r"))
    assert stone is not None
    assert stone.photos_erased_at is not None


def test_an_abandoned_intent_leaves_nothing_to_be_found_later(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    made = write("r", {"p": 2, "q": 1})
    (intent,) = catalogue.begin_intents([items_of(made)])
    assert intent is not None
    assert catalogue.abandon([intent]) == 3
    assert names(erase_all(catalogue, Store.PHOTOS)) == {(AGENCY, sha("q"))}
    assert names(erase_all(catalogue, Store.GALLERY)) == {
        ("", face_id(rid("r"), sha("p"), MODEL, 1)),
        ("", face_id(rid("r"), sha("q"), MODEL, 0)),
    }
    assert catalogue.abandon([intent]) == 0


def test_intents_of_the_dead_lapse(catalogue: Catalogue) -> None:
    made = write("r", {"p": 1})
    (intent,) = catalogue.begin_intents([items_of(made)])
    assert catalogue.expire_intents(datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert catalogue.expire_intents(datetime(2030, 1, 1, tzinfo=UTC)) == 2
    late = catalogue.apply([replace(made, intent=intent)])[0]
    assert isinstance(late, Conflict)
    assert late.code == "INTENT_LAPSED"
    assert catalogue.counts().records == 0
    assert len(erase_all(catalogue, Store.PHOTOS) + erase_all(catalogue, Store.GALLERY)) == 2


def test_a_late_repeat_of_a_done_request_is_answered_though_its_intent_is_spent(catalogue: Catalogue) -> None:
    made = write("r", {"p": 1}, request=request("q"))
    (intent,) = catalogue.begin_intents([items_of(made)])
    made = replace(made, intent=intent)
    catalogue.apply([made])
    assert done(catalogue.apply([made])[0]).replayed


def test_what_a_refused_write_stored_is_erased(catalogue: Catalogue) -> None:
    """A deletion overtakes an enrolment that has already stored the child's photo and face."""
    catalogue.apply([write("r", {"p": 1})])
    made = write("r", {"p": 1, "q": 1})
    good = write("s", {"t": 1})
    intents = catalogue.begin_intents([items_of(made), items_of(good)])
    catalogue.delete(deletion("r"))
    refused, kept = catalogue.apply([replace(made, intent=intents[0]), replace(good, intent=intents[1])])
    assert isinstance(refused, RecordDeleted)
    assert done(kept).created
    assert names(erase_all(catalogue, Store.PHOTOS)) == {(AGENCY, sha("p")), (AGENCY, sha("q"))}
    assert len(erase_all(catalogue, Store.GALLERY)) == 2
    assert catalogue.counts().intents == 0


def test_an_unused_part_of_an_intent_is_erased(catalogue: Catalogue) -> None:
    made = write("r", {"p": 1, "q": 1})
    (intent,) = catalogue.begin_intents([items_of(made)])
    done(catalogue.apply([replace(made, photos=made.photos[:1], intent=intent)])[0])
    assert names(erase_all(catalogue, Store.PHOTOS)) == {(AGENCY, sha("q"))}
    assert len(erase_all(catalogue, Store.GALLERY)) == 1


def test_an_empty_group_needs_no_intent(catalogue: Catalogue) -> None:
    assert catalogue.begin_intents([[]]) == [None]
    assert catalogue.begin_intents([]) == []


def test_a_photo_of_two_records_may_be_intended_twice(catalogue: Catalogue) -> None:
    made = [write("r", {"p": 1}), write("s", {"p": 1})]
    intents = catalogue.begin_intents([items_of(each) for each in made])
    done(catalogue.apply([replace(made[0], intent=intents[0])])[0])
    catalogue.delete(deletion("r"))
    assert erase_all(catalogue, Store.PHOTOS) == []
    done(catalogue.apply([replace(made[1], intent=intents[1])])[0])
    assert erase_all(catalogue, Store.PHOTOS) == []
    assert catalogue.photo_referenced(AGENCY, sha("p"))


def test_orphans_become_pending_but_live_items_do_not(catalogue: Catalogue) -> None:
    made = write("r", {"p": 1})
    catalogue.apply([made])
    orphan = Item(Store.PHOTOS, rid("x"), sha("x"), AGENCY)
    assert catalogue.add_pending([*items_of(made), orphan]) == 1
    assert catalogue.pending_erasures() == [orphan]


def test_a_tombstone_does_not_wait_for_what_is_pending_for_another(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1}), write("s", {"q": 1})])
    catalogue.delete(deletion("r"))
    catalogue.delete(deletion("s"))
    late = write("s", {"p": 1})
    (intent,) = catalogue.begin_intents([items_of(late)])
    assert isinstance(catalogue.apply([replace(late, intent=intent)])[0], RecordDeleted)
    for store in Store:
        erase_all(catalogue, store)
    for record in ("r", "s"):
        stone = catalogue.tombstone(rid(record))
        assert stone is not None
        assert stone.gallery_erased_at is not None
        assert stone.photos_erased_at is not None
