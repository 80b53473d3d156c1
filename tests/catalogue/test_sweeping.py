"""Writers, deletions, crashes and sweepers: the other stores lose nothing and keep nothing too long."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogue.store import Catalogue
from catalogue.types import Deletion, Item, Store, WriteResult
from homeward.errors import HomewardError, NotFound, RecordDeleted
from tests.catalogue.builders import AGENCY, check_consistent, done, items_of, request, rid, sha, write
from tests.catalogue.conftest import Place


class Stores:
    """A photo store and a gallery in memory, as slow as it takes for races to happen."""

    def __init__(self) -> None:
        self.held: set[tuple[Store, str, str]] = set()
        self.lock = threading.Lock()

    def put(self, items: Sequence[Item]) -> None:
        """Like a store that writes nothing when the item is there."""
        for item in items:
            place_ = (item.store, item.agency, item.item)
            with self.lock:
                there = place_ in self.held
            time.sleep(random.random() / 200)
            if not there:
                with self.lock:
                    self.held.add(place_)

    def delete(self, items: Sequence[Item]) -> None:
        time.sleep(random.random() / 1000)
        with self.lock:
            self.held -= {(item.store, item.agency, item.item) for item in items}


def wanted(catalogue: Catalogue) -> set[tuple[Store, str, str]]:
    """What the stores must hold: no less, and after the sweep no more."""
    return {(Store.PHOTOS, AGENCY, sha256) for sha256 in catalogue.referenced_photos(AGENCY)} | {
        (Store.GALLERY, "", place_.face_id) for place_ in catalogue.all_faces()
    }


def test_writers_and_the_sweeper_never_lose_or_leave_anything(place: Place) -> None:
    """Few records share few photos while enrolments, deletions, reinstatements, crashes of writers
    and two sweepers run at once."""
    openers = [place.open(), place.open()]
    stores = Stores()
    stop = threading.Event()

    def enrol(seed: int) -> None:
        rng = random.Random(seed)
        catalogue = openers[seed % 2]
        for _ in range(30):
            record = f"r{rng.randrange(3)}"
            if rng.random() < 0.45:
                with suppress(NotFound):
                    catalogue.delete(Deletion(rid(record), "", ""))
                continue
            chosen = rng.sample(["p", "q"], rng.randint(1, 2))
            made = write(record, {name: rng.randrange(3) for name in chosen}, reinstate=rng.random() < 0.8)
            (intent,) = catalogue.begin_intents([items_of(made)])
            stores.put(items_of(made))
            if rng.random() < 0.15:
                continue  # this writer died here
            result = catalogue.apply([replace(made, intent=intent)])[0]
            assert isinstance(result, WriteResult | RecordDeleted)

    def sweep(catalogue: Catalogue) -> None:
        while not stop.is_set():
            for store in Store:
                catalogue.erase(store, stores.delete, limit=3)

    with ThreadPoolExecutor(6) as pool:
        sweepers = [pool.submit(sweep, catalogue) for catalogue in openers]
        writers = [pool.submit(enrol, seed) for seed in range(4)]
        try:
            for writer in writers:
                writer.result()
        finally:
            stop.set()
        for sweeper in sweepers:
            sweeper.result()
    catalogue = openers[0]
    assert wanted(catalogue) <= stores.held
    catalogue.expire_intents(datetime.now(UTC) + timedelta(days=1))
    for store in Store:
        while catalogue.erase(store, stores.delete):
            pass
    assert wanted(catalogue) == stores.held
    assert catalogue.pending_erasures() == []
    for record in (f"r{at}" for at in range(3)):
        stone = catalogue.tombstone(rid(record))
        assert stone is None or (stone.gallery_erased_at and stone.photos_erased_at)
    check_consistent(catalogue)
    for opened in openers:
        opened.close()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["enrol", "reinstate", "delete", "crash", "erase", "again"]),
            st.integers(0, 2),
            st.dictionaries(st.sampled_from("pqs"), st.integers(0, 2), max_size=2),
        ),
        max_size=14,
    )
)
def test_any_history_agrees_with_a_simple_model(
    place: Place, steps: list[tuple[str, int, dict[str, int]]]
) -> None:
    """The tombstone wins, requests are done once, and the stores end up with what is referenced."""
    catalogue = place.open()
    stores = Stores()
    prefix = f"{catalogue.rev()}-{random.random()}"
    model: dict[str, dict[str, int] | None] = {}  # None: deleted
    before = wanted(catalogue)
    stores.held |= before
    last: list[tuple[str, dict[str, int]]] = []
    try:
        for number, (what, at, faces_) in enumerate(steps):
            name = f"{prefix}-{at}"
            if what == "delete":
                if name not in model:
                    continue
                catalogue.delete(Deletion(rid(name), "", ""))
                model[name] = None
            elif what == "erase":
                for store in Store:
                    catalogue.erase(store, stores.delete, limit=2)
            elif what == "again" and last:
                old_name, old_faces = last[-1]
                made = write(old_name, old_faces, request=request(f"{prefix}-{len(last)}"))
                rev = catalogue.rev()
                result = catalogue.apply([made])[0]
                assert catalogue.rev() == rev
                if model[old_name] is not None and not isinstance(result, HomewardError):
                    assert result.replayed
            elif what in ("enrol", "reinstate", "crash"):
                made = write(
                    name, faces_, reinstate=what == "reinstate", request=request(f"{prefix}-{len(last) + 1}")
                )
                (intent,) = catalogue.begin_intents([items_of(made)])
                stores.put(items_of(made))
                if what == "crash":
                    continue
                result = catalogue.apply([replace(made, intent=intent)])[0]
                if name in model and model[name] is None and what == "enrol":
                    assert isinstance(result, RecordDeleted), number
                    continue
                assert done(result).created is (model.get(name) is None)
                model[name] = {**(model.get(name) or {}), **faces_}
                last.append((name, faces_))
        found = {
            name: {held.sha256: len(held.faces) for held in catalogue.get(rid(name)).photos}
            for name, photos_ in model.items()
            if photos_ is not None
        }
        assert found == {
            name: {sha(photo): count for photo, count in photos_.items()}
            for name, photos_ in model.items()
            if photos_ is not None
        }
        assert wanted(catalogue) <= stores.held
        catalogue.expire_intents(datetime.now(UTC) + timedelta(days=1))
        for store in Store:
            while catalogue.erase(store, stores.delete):
                pass
        assert wanted(catalogue) == stores.held
        check_consistent(catalogue)
    finally:
        catalogue.close()


def test_a_writer_waits_while_its_photo_is_being_erased(place: Place) -> None:
    catalogue, other = place.open(), place.open()
    catalogue.apply([write("r", {"p": 1})])
    catalogue.delete(Deletion(rid("r"), "", ""))
    again = write("s", {"p": 1})
    order: list[str] = []

    def begin() -> None:
        other.begin_intents([items_of(again)])
        order.append("begun")

    writer = threading.Thread(target=begin)

    def remove(items: Sequence[Item]) -> None:
        assert [item.item for item in items] == [sha("p")]
        writer.start()
        writer.join(0.3)
        order.append("erased")

    assert catalogue.erase(Store.PHOTOS, remove) == 1
    writer.join()
    assert order == ["erased", "begun"]
    catalogue.close()
    other.close()
