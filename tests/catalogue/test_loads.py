"""Bulk loads in the ledger: one driver, each part once, and an undo that takes back what a load brought."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue.load_types import DonePart, Lease, LoadState, LoadSums
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.tables import loads
from catalogue.types import Deletion, Item, RecordUpdate, RecordWrite, Store, StoredRecord
from homeward.config import CatalogueSettings
from homeward.errors import Conflict, HomewardError, InvalidInput, NotFound
from homeward.ids import face_id
from tests.catalogue.builders import AGENCY, ATTRIBUTES, MODEL, check_consistent, done, rid, sha, write
from tests.catalogue.conftest import Place, SteppingClock

LAPSE_S = 20.0


def loading(catalogue: Catalogue, name: str = "march") -> Lease:
    return catalogue.loads.create(name, "{}", "one")


def of_load(lease: Lease | str, reference: str, photos: dict[str, int], **more: Any) -> RecordWrite:
    """A write of a load: photos by name, each at that place of its input."""
    name = lease if isinstance(lease, str) else lease.load
    made = write(reference, list(photos), load=name, **more)
    placed = zip(made.photos, photos.values(), strict=True)
    return replace(made, photos=tuple(replace(photo, place=place) for photo, place in placed))


def apply(catalogue: Catalogue, *writes: RecordWrite, lease: Lease | None = None) -> None:
    for result in catalogue.apply(writes, lease):
        done(result)


def undo(catalogue: Catalogue, lease: Lease, limit: int = 64) -> int:
    """Undo to the end; how many records that touched."""
    records = 0
    while some := catalogue.loads.undo_some(lease, limit).records:
        records += some
    return records


def shown(record: StoredRecord) -> str:
    """The record without what every write changes."""
    return repr(replace(record, version=0, updated_rev=0, updated_at=record.created_at))


def lost(error: pytest.ExceptionInfo[Conflict]) -> bool:
    return error.value.code == "LEASE_LOST"


def test_a_new_load_is_driven_by_whoever_made_it_and_its_name_is_taken(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    load = catalogue.loads.get("march")
    assert (load.state, load.holder, load.fence, load.parts) == (LoadState.PLANNING, "one", lease.fence, None)
    with pytest.raises(Conflict) as again:
        loading(catalogue)
    assert again.value.code == "LOAD_EXISTS"
    loading(catalogue, "april")
    assert [one.name for one in catalogue.loads.all()] == ["april", "march"]
    with pytest.raises(NotFound):
        catalogue.loads.get("may")


@pytest.mark.parametrize("name", ["", "March", "a" * 41, "../x", "-a", "a b", "a\n"])
def test_a_load_has_a_name_that_documents_can_have(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        loading(catalogue, name)
    assert refused.value.code == "LOAD_NAME"


def test_a_second_driver_waits_until_the_first_has_been_silent(
    catalogue: Catalogue, clock: SteppingClock
) -> None:
    lease = loading(catalogue)
    clock.at += timedelta(seconds=LAPSE_S - 5)
    with pytest.raises(Conflict) as busy:
        catalogue.loads.take("march", "two", LAPSE_S)
    assert busy.value.code == "LOAD_BUSY"
    catalogue.loads.renew(lease)
    clock.at += timedelta(seconds=LAPSE_S - 5)
    with pytest.raises(Conflict):
        catalogue.loads.take("march", "two", LAPSE_S)
    clock.at += timedelta(seconds=LAPSE_S)
    taken = catalogue.loads.take("march", "two", LAPSE_S)
    assert taken.fence > lease.fence
    assert catalogue.loads.get("march").holder == "two"
    with pytest.raises(Conflict) as gone:
        catalogue.loads.renew(lease)
    assert lost(gone)
    catalogue.loads.renew(taken)


def test_a_driver_that_is_known_dead_is_taken_from_at_once_but_not_whoever_took_it_since(
    catalogue: Catalogue,
) -> None:
    dead = loading(catalogue)
    taken = catalogue.loads.take("march", "two", LAPSE_S, dead=dead.fence)
    with pytest.raises(Conflict) as busy:
        catalogue.loads.take("march", "three", LAPSE_S, dead=dead.fence)
    assert busy.value.code == "LOAD_BUSY"
    catalogue.loads.renew(taken)


def test_a_released_load_can_be_taken_at_once(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    catalogue.loads.release(lease, LoadState.STOPPED, "the disk is full")
    load = catalogue.loads.get("march")
    assert (load.state, load.driven, load.message, load.finished_at) == (
        LoadState.STOPPED,
        False,
        "the disk is full",
        None,
    )
    again = catalogue.loads.take("march", "two", LAPSE_S)
    assert catalogue.loads.get("march").message == ""
    catalogue.loads.begin(again, LoadState.LOADING)
    catalogue.loads.release(again, LoadState.DONE)
    assert catalogue.loads.get("march").finished_at is not None


def test_a_cancelled_load_is_nobodys_and_its_driver_does_nothing_more(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    catalogue.loads.planned(lease, parts=2, photos=5, spec="{}")
    assert catalogue.loads.cancel("march").state is LoadState.CANCELLED
    for act in (
        lambda: catalogue.loads.renew(lease),
        lambda: catalogue.loads.release(lease, LoadState.DONE),
        lambda: catalogue.loads.commit_part(lease, DonePart(0, "document", 1, 1, 0)),
        lambda: catalogue.apply([of_load(lease, "r", {"p": 0})], lease),
    ):
        with pytest.raises(Conflict) as refused:
            act()
        assert lost(refused)
    again = catalogue.loads.take("march", "two", LAPSE_S)
    catalogue.loads.release(again, LoadState.DONE)
    with pytest.raises(Conflict) as ended:
        catalogue.loads.cancel("march")
    assert ended.value.code == "LOAD_ENDED"
    with pytest.raises(NotFound):
        catalogue.loads.cancel("nothing")


def test_an_older_lease_commits_nothing(catalogue: Catalogue) -> None:
    old = loading(catalogue)
    apply(catalogue, of_load(old, "r", {"p": 0}), lease=old)
    new = catalogue.loads.take("march", "two", LAPSE_S, dead=old.fence)
    rev = catalogue.rev()
    for act in (
        lambda: catalogue.apply([of_load(old, "s", {"p": 0})], old),
        lambda: catalogue.loads.add_parts(old, {0: [rid("r")]}),
        lambda: catalogue.loads.commit_part(old, DonePart(0, "document", 1, 1, 0)),
        lambda: catalogue.loads.planned(old, parts=1, photos=1, spec=""),
        lambda: catalogue.loads.begin(old, LoadState.UNDOING),
        lambda: catalogue.loads.settle_model(old, MODEL, 4),
        lambda: catalogue.loads.undo_some(old),
    ):
        with pytest.raises(Conflict) as refused:
            act()
        assert lost(refused)
    assert catalogue.rev() == rev
    assert catalogue.get_many([rid("r"), rid("s")]).keys() == {rid("r")}
    assert catalogue.loads.parts("march") == []
    apply(catalogue, of_load(new, "s", {"p": 0}), lease=new)
    with pytest.raises(Conflict) as unknown:
        catalogue.apply([write("t")], Lease("nothing", 1))
    assert lost(unknown)


def test_of_a_part_that_is_committed_twice_the_first_outcome_counts(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    first = DonePart(3, "first", 5, 4, 1)
    assert catalogue.loads.document_of("march", 3) is None
    assert catalogue.loads.commit_part(lease, first) == "first"
    assert catalogue.loads.commit_part(lease, DonePart(3, "second", 6, 6, 0)) == "first"
    assert catalogue.loads.commit_part(lease, DonePart(1, "other", 2, 1, 0)) == "other"
    assert catalogue.loads.parts("march") == [DonePart(1, "other", 2, 1, 0), first]
    assert catalogue.loads.sums("march") == LoadSums(2, 7, 5, 1)
    assert catalogue.loads.sums("nothing") == LoadSums(0, 0, 0, 0)
    assert catalogue.loads.document_of("march", 3) == "first"


def test_a_load_keeps_the_model_that_it_was_begun_with(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    catalogue.loads.settle_model(lease, MODEL, 4)
    catalogue.loads.settle_model(lease, MODEL, 4)
    with pytest.raises(Conflict) as other:
        catalogue.loads.settle_model(lease, "model-2", 8)
    assert other.value.code == "LOAD_MODEL"
    load = catalogue.loads.get("march")
    assert (load.model_id, load.dimension) == (MODEL, 4)


def test_loaders_that_begin_at_once_settle_the_model_and_commit_a_part_without_getting_stuck(
    place: Place,
) -> None:
    openers = [place.open() for _ in range(4)]
    lease = loading(openers[0])
    together = threading.Barrier(4)

    def begin(catalogue: Catalogue) -> list[str]:
        counted = []
        for part in range(10):
            together.wait(20)
            catalogue.loads.settle_model(lease, MODEL, 4)
            together.wait(20)
            counted.append(
                catalogue.loads.commit_part(lease, DonePart(part, f"{openers.index(catalogue)}", 1, 1, 0))
            )
        return counted

    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(begin, openers))
    assert counted[0] == counted[1] == counted[2] == counted[3]
    assert [part.document for part in openers[0].loads.parts("march")] == counted[0]
    for opened in openers:
        opened.close()


def outcomes(catalogue: Catalogue) -> set[tuple[str, str]]:
    """Which records must go from the documents of which parts."""
    return {(item.item, item.agency) for item in catalogue.pending_erasures(Store.OUTCOMES)}


def erase(catalogue: Catalogue) -> list[Item]:
    gone: list[Item] = []
    while catalogue.erase(Store.OUTCOMES, gone.extend):
        pass
    return gone


def test_a_deletion_notes_every_part_that_names_the_record(catalogue: Catalogue) -> None:
    march, april = loading(catalogue), loading(catalogue, "april")
    catalogue.loads.add_parts(march, {0: [rid("r"), rid("s"), rid("r")], 7: [rid("r")]})
    catalogue.loads.add_parts(april, {2: [rid("r")], 3: [rid("s")]})
    catalogue.loads.add_parts(april, {2: [rid("r")]})
    apply(catalogue, of_load(march, "r", {"p": 0}), lease=march)
    catalogue.delete(Deletion(rid("r"), "", ""))
    assert outcomes(catalogue) == {(rid("r"), "march/0"), (rid("r"), "march/7"), (rid("r"), "april/2")}
    assert len(erase(catalogue)) == 3
    assert outcomes(catalogue) == set()
    catalogue.delete(Deletion(rid("r"), "", ""))
    assert outcomes(catalogue) == set()


def test_what_was_deleted_before_goes_from_the_parts_that_are_laid_ready(catalogue: Catalogue) -> None:
    apply(catalogue, write("r"), write("s"))
    catalogue.delete(Deletion(rid("r"), "", ""))
    lease = loading(catalogue)
    catalogue.loads.add_parts(lease, {0: [rid("r"), rid("s")], 1: [rid("s")], 2: [rid("r")]})
    assert outcomes(catalogue) == {(rid("r"), "march/0"), (rid("r"), "march/2")}


def test_what_a_load_is_to_reinstate_stays_in_its_parts(catalogue: Catalogue) -> None:
    apply(catalogue, write("r"))
    catalogue.delete(Deletion(rid("r"), "", ""))
    lease = loading(catalogue)
    catalogue.loads.add_parts(lease, {0: [rid("r")]}, reinstate_until=catalogue.rev())
    assert outcomes(catalogue) == set()
    apply(catalogue, of_load(lease, "r", {"p": 0}, reinstate=True), lease=lease)
    catalogue.loads.commit_part(lease, DonePart(0, "document", 1, 1, 0))
    assert outcomes(catalogue) == set()
    catalogue.delete(Deletion(rid("r"), "", ""))
    assert outcomes(catalogue) == {(rid("r"), "march/0")}


def test_what_was_deleted_while_an_outcome_was_written_goes_from_it_each_time_it_is_written(
    catalogue: Catalogue,
) -> None:
    lease = loading(catalogue)
    catalogue.loads.add_parts(lease, {0: [rid("r")], 1: [rid("r")]})
    apply(catalogue, of_load(lease, "r", {"p": 0}), lease=lease)
    catalogue.delete(Deletion(rid("r"), "", ""))
    erase(catalogue)
    for _ in range(2):  # whoever does a part again has written its file again
        catalogue.loads.commit_part(lease, DonePart(0, "document", 1, 1, 0))
        assert outcomes(catalogue) == {(rid("r"), "march/0")}
        erase(catalogue)


def test_undo_takes_back_records_without_a_tombstone(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    apply(catalogue, write("mine", ["m"]))
    before = shown(catalogue.get(rid("mine")))
    apply(catalogue, of_load(lease, "r", {"p": 0, "q": 1}), of_load(lease, "s", {"p": 2}), lease=lease)
    apply(catalogue, of_load(lease, "empty", {}), lease=lease)
    assert undo(catalogue, lease, limit=2) == 3
    assert shown(catalogue.get(rid("mine"))) == before
    with pytest.raises(NotFound):
        catalogue.get(rid("r"))
    assert catalogue.tombstone(rid("r")) is None
    counts = catalogue.counts()
    assert (counts.records, counts.photos, counts.faces, counts.tombstones) == (1, 1, 1, 0)
    gone = {item.item for item in catalogue.pending_erasures(Store.GALLERY)}
    assert gone == {
        face_id(rid(record), sha(name), MODEL, 0) for record, name in [("r", "p"), ("r", "q"), ("s", "p")]
    }
    assert {(item.agency, item.item) for item in catalogue.pending_erasures(Store.PHOTOS)} == {
        (AGENCY, sha("p")),
        (AGENCY, sha("q")),
    }
    check_consistent(catalogue, [rid("r"), rid("s"), rid("empty")])
    apply(catalogue, of_load(lease, "r", {"p": 0}), lease=lease)  # nothing forbids the archive once more


def test_undo_again_does_nothing(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    apply(catalogue, of_load(lease, "r", {"p": 0}), lease=lease)
    assert undo(catalogue, lease) == 1
    rev = catalogue.rev()
    assert undo(catalogue, lease) == 0
    assert catalogue.rev() == rev


def test_each_step_of_an_undo_is_in_the_change_log(catalogue: Catalogue) -> None:
    apply(catalogue, write("kept", ["m"]))
    lease = loading(catalogue)
    apply(catalogue, of_load(lease, "r", {"p": 0}), of_load(lease, "kept", {"q": 1}), lease=lease)
    rev = catalogue.rev()
    some = catalogue.loads.undo_some(lease)
    assert (some.records, some.rev) == (2, rev + 2)
    assert {(change.record_id, change.deleted) for change in catalogue.changes_since(rev)} == {
        (rid("r"), True),
        (rid("kept"), False),
    }


def test_of_a_record_of_other_origin_undo_takes_what_the_load_added(catalogue: Catalogue) -> None:
    apply(catalogue, replace(write("r", ["m"]), attributes=ATTRIBUTES), write("blank", {"none": 0}))
    before = {record: shown(catalogue.get(rid(record))) for record in ("r", "blank")}
    lease = loading(catalogue)
    apply(
        catalogue,
        replace(of_load(lease, "r", {"p": 0}), attributes=ATTRIBUTES),
        of_load(lease, "blank", {"q": 1}),
        lease=lease,
    )
    assert catalogue.get(rid("blank")).searchable
    assert undo(catalogue, lease) == 2
    assert {record: shown(catalogue.get(rid(record))) for record in ("r", "blank")} == before
    assert catalogue.get(rid("blank")).unsearchable_reason == "NO_FACE"
    check_consistent(catalogue)


def test_a_record_of_the_load_that_got_a_photo_since_stays_with_that_one(catalogue: Catalogue) -> None:
    lease = loading(catalogue)
    apply(catalogue, of_load(lease, "r", {"p": 0}), of_load(lease, "s", {"p": 1}), lease=lease)
    apply(catalogue, replace(write("r", ["m"]), attributes=ATTRIBUTES))
    apply(catalogue, write("s", ["p"]))  # the same photo was enrolled: it is the enrolment's now
    undo(catalogue, lease)
    record = catalogue.get(rid("r"))
    assert [photo.sha256 for photo in record.photos] == [sha("m")]
    assert (record.load, record.searchable, record.attributes) == ("", True, ATTRIBUTES)
    other = catalogue.get(rid("s"))
    assert ([photo.sha256 for photo in other.photos], other.load) == ([sha("p")], "")
    assert undo(catalogue, lease) == 0
    check_consistent(catalogue)


def test_photo_bytes_stay_as_long_as_another_record_of_the_agency_has_them(catalogue: Catalogue) -> None:
    apply(catalogue, write("mine", ["p"]))
    lease = loading(catalogue)
    apply(catalogue, of_load(lease, "r", {"p": 0}), lease=lease)
    apply(catalogue, of_load(lease, "r", {"q": 0}, agency="other"), write("s", ["q"]), lease=lease)
    undo(catalogue, lease)
    assert {(item.agency, item.item) for item in catalogue.pending_erasures(Store.PHOTOS)} == {
        ("other", sha("q"))
    }
    assert catalogue.photo_referenced(AGENCY, sha("p"))
    check_consistent(catalogue, [rid("r"), rid("r", agency="other")])


def test_undoing_one_load_leaves_another_loads_records_to_that_one(catalogue: Catalogue) -> None:
    """Also a record of which the other load kept no photo, and one that the other only added to."""
    march, april = loading(catalogue), loading(catalogue, "april")
    apply(catalogue, of_load(march, "bare", {}), of_load(march, "r", {"p": 0}), lease=march)
    apply(catalogue, of_load(april, "bare", {"x": 0}), of_load(april, "r", {"y": 1}), lease=april)
    undo(catalogue, april)
    assert {catalogue.get(rid(name)).load for name in ("bare", "r")} == {"march"}
    apply(catalogue, of_load(april, "r", {"y": 1}), lease=april)
    undo(catalogue, march)
    with pytest.raises(NotFound):
        catalogue.get(rid("bare"))
    assert [photo.sha256 for photo in catalogue.get(rid("r")).photos] == [sha("y")]
    undo(catalogue, april)
    with pytest.raises(NotFound):
        catalogue.get(rid("r"))
    assert catalogue.counts().photos == 0
    check_consistent(catalogue, [rid("bare"), rid("r")])


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Catalogue]:
    """One catalogue for many small examples."""
    from pathlib import Path

    with TemporaryDirectory() as folder:
        opened = open_catalogue(CatalogueSettings(), Path(folder))
        yield opened
        opened.close()


_examples = iter(range(10**6))


@given(
    st.integers(0, 3),
    st.permutations(range(5)),
    st.lists(st.integers(1, 3), min_size=5, max_size=5),
)
@settings(max_examples=8, deadline=None)
def test_a_records_photos_come_in_the_order_of_the_input_however_its_parts_arrive(
    sqlite: Catalogue, before: int, arrival: list[int], sizes: list[int]
) -> None:
    name = f"r{next(_examples)}"
    mine = [f"{name} mine {at}" for at in range(before)]
    if mine:
        apply(sqlite, write(name, mine))
    parts: list[dict[str, int]] = []
    place = 0
    for size in sizes:
        parts.append({f"{name} {place + at}": place + at for at in range(size)})
        place += size
    for part in [*arrival, arrival[0]]:  # one comes again
        apply(sqlite, of_load("any", name, parts[part]))
    expected = [sha(one) for one in mine] + [sha(f"{name} {at}") for at in range(place)]
    assert [photo.sha256 for photo in sqlite.get(rid(name)).photos] == expected


def test_an_undo_between_updates_leaves_what_was_changed_by_hand_elsewhere(catalogue: Catalogue) -> None:
    apply(catalogue, write("r", ["m"]))
    lease = loading(catalogue)
    apply(catalogue, of_load(lease, "r", {"p": 0}), lease=lease)
    catalogue.update(RecordUpdate(rid("r"), ATTRIBUTES))
    undo(catalogue, lease)
    assert catalogue.get(rid("r")).attributes == ATTRIBUTES


def test_an_apply_under_way_when_the_load_is_taken_is_committed_before_or_refused(place: Place) -> None:
    """Whatever the two do at once: nothing of the older lease is committed after the newer one is had."""
    worker, taker = place.open(), place.open()
    lease = loading(worker)
    batches = 0
    stop = threading.Event()

    def work() -> str:
        nonlocal batches
        while not stop.is_set():
            try:
                apply(worker, of_load(lease, f"r{batches}", {"p": batches}), lease=lease)
            except HomewardError as error:
                return error.code
            batches += 1
        return "never refused"

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while batches < 3:
            assert not running.done()
        taken = taker.loads.take("march", "two", LAPSE_S, dead=lease.fence)
        seen = taker.rev()
        try:
            assert running.result(20) == "LEASE_LOST"
        finally:
            stop.set()
    assert taker.rev() == seen == batches
    taker.loads.renew(taken)
    worker.close()
    taker.close()


def test_a_load_that_is_being_taken_waits_for_the_commit_that_holds_it(place: Place) -> None:
    if not place.settings.uri:
        pytest.skip("SQLite has one writer at a time")
    worker, taker = place.open(), place.open()
    lease = loading(worker)
    with ThreadPoolExecutor(1) as pool:
        with worker._database.committing() as revs:
            query = sa.select(loads.c.fence).where(loads.c.name == "march").with_for_update(read=True)
            assert revs.connection.execute(query).scalar_one() == lease.fence
            taking = pool.submit(lambda: taker.loads.take("march", "two", LAPSE_S, dead=lease.fence))
            with pytest.raises(TimeoutError):
                taking.result(0.3)
        assert taking.result(20).fence > lease.fence
    worker.close()
    taker.close()
