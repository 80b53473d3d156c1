"""Model upgrades in the catalogue: one driver, what is left to do, and which model may be written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from catalogue.load_types import Lease
from catalogue.store import Catalogue
from catalogue.types import Deletion, Store
from catalogue.upgrade_tables import coverage
from catalogue.upgrade_types import Cover, UpgradeModel, UpgradeState
from homeward.errors import Conflict, NotFound
from tests.catalogue.builders import MODEL, face, items_of, rid, sha, write

OLD, NEW = UpgradeModel("old", MODEL, 8), UpgradeModel("new", "model-2", 16)
READY, SWITCHED = UpgradeState.READY, UpgradeState.SWITCHED
FINISHING, FINISHED = UpgradeState.FINISHING, UpgradeState.FINISHED


def begin(catalogue: Catalogue) -> Lease:
    return catalogue.upgrades.begin(OLD, NEW, "me")


def cover(
    catalogue: Catalogue, reference: str, photo: str, faces: int = 1, *, model: str = "model-2", lost: int = 0
) -> Cover:
    return Cover(
        record_id=rid(reference),
        sha256=sha(photo),
        version=catalogue.get(rid(reference)).version,
        outcome="ENROLLED" if faces else "NO_FACE",
        faces_seen=faces,
        faces=tuple(face(rid(reference), photo, ordinal, model=model) for ordinal in range(faces)),
        lost=lost,
    )


def faces_of(catalogue: Catalogue, reference: str, model: str) -> int:
    return sum(one.model_id == model for one in catalogue.faces_of([rid(reference)]))


def test_one_upgrade_is_under_way_at_a_time_and_the_last_says_which_model_serves(
    catalogue: Catalogue,
) -> None:
    ledger = catalogue.upgrades
    assert ledger.latest() is None
    with pytest.raises(NotFound):
        ledger.under_way()
    lease = begin(catalogue)
    with pytest.raises(Conflict, match="under way"):
        begin(catalogue)
    found = ledger.under_way()
    assert (found.state, found.serving, found.standby) == (UpgradeState.EMBEDDING, OLD, NEW)
    ledger.move(lease, (UpgradeState.EMBEDDING,), READY)
    ledger.switch(lease, (READY,), SWITCHED, NEW.model_id)
    found = ledger.under_way()
    assert (found.serving, found.standby, found.leaving) == (NEW, OLD, None)
    ledger.move(lease, (SWITCHED,), FINISHING)
    found = ledger.under_way()
    assert (found.serving, found.standby, found.leaving) == (NEW, None, OLD)
    ledger.move(lease, (FINISHING,), FINISHED)
    last = ledger.latest()
    assert last is not None
    assert (last.ended, last.serving) == (True, NEW)
    ledger.begin(NEW, OLD, "me")
    assert ledger.under_way().number == 2


def test_a_driver_that_was_taken_over_commits_nothing_any_more(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"])])
    first = begin(catalogue)
    with pytest.raises(Conflict, match="at work") as busy:
        catalogue.upgrades.take("another", 1000.0)
    assert busy.value.code == "UPGRADE_BUSY"
    second = catalogue.upgrades.take("another", 1000.0, dead=first.fence)
    one = cover(catalogue, "a", "p")
    for work in (
        lambda: catalogue.upgrades.cover("model-2", [one], [], first),
        lambda: catalogue.upgrades.renew(first),
        lambda: catalogue.upgrades.move(first, (UpgradeState.EMBEDDING,), READY),
        lambda: catalogue.upgrades.forget_losses(first, "model-2"),
    ):
        with pytest.raises(Conflict) as lost:
            work()
        assert lost.value.code == "LEASE_LOST"
    assert catalogue.upgrades.count_uncovered("model-2") == 1
    assert catalogue.upgrades.cover("model-2", [one], [], second) == 1
    assert catalogue.upgrades.count_uncovered("model-2") == 0


def test_what_is_left_to_do_is_what_neither_was_covered_nor_enrolled_with_the_model(
    catalogue: Catalogue,
) -> None:
    catalogue.apply([write("a", ["p", "q"]), write("b", {"r": 0})])
    lease = begin(catalogue)
    ledger = catalogue.upgrades
    order = sorted([rid("a"), rid("b")])
    assert ledger.uncovered("model-2", photos=100) == order
    assert ledger.uncovered("model-2", photos=1) == order[:1]
    assert ledger.uncovered("model-2", after=order[0]) == order[1:]
    assert (
        ledger.cover("model-2", [cover(catalogue, "a", "p"), cover(catalogue, "b", "r", 0)], [], lease) == 2
    )
    assert ledger.uncovered("model-2") == [rid("a")]
    assert ledger.covered_photos("model-2", [rid("a")]) == {(rid("a"), sha("p"))}
    assert ledger.covered_photos(MODEL, [rid("a")]) == {(rid("a"), sha("p")), (rid("a"), sha("q"))}
    # Again: nothing is written, and of a record that changed meanwhile neither.
    assert ledger.cover("model-2", [cover(catalogue, "a", "p")], [], lease) == 0
    stale = cover(catalogue, "a", "q")
    catalogue.apply([write("a", ["p2"])])
    assert ledger.cover("model-2", [stale], [], lease) == 0
    catalogue.apply([write("c", ["s"], model="model-2")])
    assert rid("c") not in ledger.uncovered("model-2")
    assert rid("c") in ledger.uncovered(MODEL)
    with pytest.raises(Conflict) as early:
        ledger.switch(lease, (UpgradeState.EMBEDDING,), SWITCHED, NEW.model_id)
    assert early.value.code == "UPGRADE_UNCOVERED"


def test_a_photo_enrolled_anew_is_to_be_covered_anew(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"])])
    lease = begin(catalogue)
    catalogue.upgrades.cover("model-2", [cover(catalogue, "a", "p")], [], lease)
    catalogue.apply([write("a", {"p": 2})])
    assert catalogue.upgrades.uncovered("model-2") == [rid("a")]
    catalogue.upgrades.cover("model-2", [cover(catalogue, "a", "p", 2)], [], lease)
    assert faces_of(catalogue, "a", "model-2") == 2


def test_a_deleted_record_is_in_neither_model(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"])])
    lease = begin(catalogue)
    late = cover(catalogue, "a", "p")
    catalogue.upgrades.cover("model-2", [late], [], lease)
    catalogue.delete(Deletion(rid("a"), reason="asked", requester="me"))
    gone = {item.item for item in catalogue.pending_erasures(Store.GALLERY)}
    assert gone == {face(rid("a"), "p", model=model).face_id for model in (MODEL, "model-2")}
    with catalogue._database.reading() as connection:
        assert connection.execute(sa.select(coverage)).all() == []
    intent = catalogue.begin_intents([items_of(write("a", ["p"], model="model-2"))])
    names = [one for one in intent if one is not None]
    assert catalogue.upgrades.cover("model-2", [late], names, lease) == 0
    assert catalogue.intended(Store.GALLERY) == frozenset()


def test_losses_are_listed_and_can_be_tried_again(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"]), write("b", ["q", "r"])])
    lease = begin(catalogue)
    ledger = catalogue.upgrades
    ledger.cover(
        "model-2",
        [
            cover(catalogue, "a", "p", 0, lost=1),
            cover(catalogue, "b", "q", 0, lost=1),
            cover(catalogue, "b", "r"),
        ],
        [],
        lease,
    )
    listed = {loss.external_reference: loss for loss in ledger.losses("model-2")}
    assert {name: (loss.lost, loss.left, loss.outcome) for name, loss in listed.items()} == {
        "a": (1, 0, "NO_FACE"),
        "b": (1, 1, "NO_FACE"),
    }
    has = ledger.coverage("model-2", MODEL)
    assert (has.photos, has.covered, has.faces, has.faces_of_other) == (3, 3, 1, 3)
    assert (has.lost, has.photos_with_losses, has.records_lost) == (2, 2, 1)
    assert ledger.forget_losses(lease, "model-2") == 2
    assert ledger.count_uncovered("model-2") == 2


@pytest.mark.parametrize("ways", [1, 2])
def test_finishing_leaves_nothing_of_the_old_model_and_says_who_cannot_be_found(
    catalogue: Catalogue, ways: int
) -> None:
    catalogue.apply([write("a", ["p"]), write("b", ["q"]), write("c", {"r": 0})])
    lease = begin(catalogue)
    ledger = catalogue.upgrades
    made = [
        cover(catalogue, "a", "p"),
        cover(catalogue, "b", "q", 0, lost=1),
        cover(catalogue, "c", "r"),
    ]
    ledger.cover("model-2", made, [], lease)
    assert catalogue.get(rid("c")).searchable
    ledger.move(lease, (UpgradeState.EMBEDDING,), READY)
    ledger.switch(lease, (READY,), SWITCHED, "model-2")
    with pytest.raises(Conflict):
        ledger.retire_some(lease, "model-2", MODEL, "", 10)
    ledger.move(lease, (SWITCHED,), FINISHING)
    after: str | None = ""
    while after is not None:
        after = ledger.retire_some(lease, "model-2", MODEL, after, ways)
    ledger.move(lease, (FINISHING,), FINISHED)
    assert {one.model_id for one in catalogue.all_faces()} == {"model-2"}
    found = {name: catalogue.get(rid(name)) for name in "abc"}
    assert {name: one.searchable for name, one in found.items()} == {"a": True, "b": False, "c": True}
    assert found["b"].unsearchable_reason == "NO_FACE"
    assert {photo.model_id for one in found.values() for photo in one.photos} == {"model-2"}
    with pytest.raises(Conflict) as late:
        catalogue.apply([write("d", ["s"])])
    assert late.value.code == "MODEL_RETIRED"
    catalogue.apply([replace(write("d", ["s"], model="model-2"))])
    with catalogue._database.reading() as connection:
        assert connection.execute(sa.select(coverage)).all() == []


def test_a_change_is_logged_as_soon_as_an_index_may_follow(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"]), write("b", ["q"])])
    lease = begin(catalogue)
    rev = catalogue.rev()
    version = catalogue.get(rid("b")).version
    catalogue.upgrades.cover("model-2", [cover(catalogue, "a", "p")], [], lease)
    assert catalogue.rev() == rev
    catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
    catalogue.upgrades.cover("model-2", [cover(catalogue, "b", "q")], [], lease)
    assert [change.record_id for change in catalogue.changes_since(rev)] == [rid("b")]
    assert catalogue.get(rid("b")).version == version  # whoever holds an etag may go on with it


def test_a_photo_that_the_new_model_refused_when_it_was_sent_again_is_a_loss(catalogue: Catalogue) -> None:
    catalogue.apply([write("a", ["p"]), write("b", ["q", "r"])])
    lease = begin(catalogue)
    ledger = catalogue.upgrades
    made = [cover(catalogue, "a", "p"), cover(catalogue, "b", "q"), cover(catalogue, "b", "r")]
    ledger.cover("model-2", made, [], lease)
    ledger.move(lease, (UpgradeState.EMBEDDING,), READY)
    ledger.switch(lease, (READY,), SWITCHED, "model-2")
    # Its detector finds no face where the driver had placed one: the old model alone has the child now.
    catalogue.apply([write("a", {"p": 0}, model="model-2"), write("b", {"q": 0}, model="model-2")])
    assert ledger.count_uncovered("model-2") == 0
    listed = {loss.external_reference: loss for loss in ledger.losses("model-2")}
    assert {name: (loss.lost, loss.left) for name, loss in listed.items()} == {"a": (1, 0), "b": (1, 1)}
    has = ledger.coverage("model-2", MODEL)
    assert (has.lost, has.photos_with_losses, has.records_lost) == (2, 2, 1)
    catalogue.apply([write("a", ["p"], model="model-2"), write("b", ["q"], model="model-2")])
    assert list(ledger.losses("model-2")) == []
