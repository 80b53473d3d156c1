"""kill -9 at random moments of concurrent enrolments and deletions: nothing acknowledged is lost,
nothing deleted comes back, nothing is half there."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from catalogue.open import open_catalogue
from homeward.config import Settings
from homeward.ids import photo_sha256, record_id
from homeward.types import RecordKey
from homeward.v1 import enrolment_pb2, operations_pb2, records_pb2
from index.open import open_gallery
from photos.open import open_photo_store
from tests.cluster.children import Client, check_stores, deletion, enrolling, upload
from tests.cluster.fakes import DIMENSION, MODEL_ID, fake_photo, fake_template
from tests.cluster.killable import kill, killable

CLIENTS = 6
OUTSIDE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
COMPOSITE = records_pb2.FACE_CHOICE_COMPOSITE


@dataclass(slots=True)
class Child:
    """One child of the workload: enrolled once with all its photos, perhaps deleted later."""

    name: str
    photos: tuple[tuple[bytes, int], ...]  # bytes, number of faces
    leaves: bool
    enrolled: bool = False  # acknowledged
    deleted: bool = False  # acknowledged
    asked_to_enrol: bool = False
    asked_to_delete: bool = False

    @property
    def record_id(self) -> str:
        return record_id(RecordKey("agency-a", "missing", self.name))

    def enrolment(self) -> enrolment_pb2.EnrolRecordRequest:
        photos = [upload(photo, choice=COMPOSITE) for photo, _ in self.photos]
        attributes = records_pb2.Attributes(case_reference=f"case of {self.name}")
        return enrolling(self.name, photos, request_id=f"enrol {self.name}", attributes=attributes)

    def deletion(self) -> enrolment_pb2.DeleteRecordRequest:
        return deletion(self.record_id, f"delete {self.name}")


@dataclass(slots=True)
class Workload:
    """What is asked, what was acknowledged, and what broke off."""

    children: list[Child]
    chance: random.Random
    broken: int = 0
    acknowledged: int = 0
    todo: list[tuple[Child, bool]] = field(default_factory=list)  # bool: delete
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: Client) -> None:
        """Work off what is left, until it is done or the server dies."""
        await asyncio.gather(*(self._worker(client) for _ in range(CLIENTS)))

    async def reach(self, acknowledged: int, work: asyncio.Task[None]) -> None:
        """Wait until so many calls were acknowledged, or the work is done."""
        while self.acknowledged < acknowledged and not work.done():
            self._progress.clear()
            progress = asyncio.create_task(self._progress.wait())
            await asyncio.wait((progress, work), return_when=asyncio.FIRST_COMPLETED)
            progress.cancel()

    async def _worker(self, client: Client) -> None:
        while self.todo:
            child, leaving = self.todo.pop(0)
            if leaving and not child.enrolled:  # its enrolment still runs
                self.todo.append((child, leaving))
                await asyncio.sleep(0.002)
                continue
            try:
                if leaving:
                    child.asked_to_delete = True
                    await client.enrolment.DeleteRecord(child.deletion())
                    child.deleted = True
                else:
                    child.asked_to_enrol = True
                    await client.enrol(child.enrolment())
                    child.enrolled = True
            except grpc.aio.AioRpcError as error:
                if error.code() not in OUTSIDE:
                    raise
                self.broken += 1
                # Half of what broke off is never asked again: it must be wholly there or wholly not.
                if not leaving:
                    self.todo = [one for one in self.todo if one[0] is not child]
                if self.chance.random() < 0.5:
                    self.todo.append((child, leaving))
                    if not leaving and child.leaves:
                        self.todo.append((child, True))
                return
            self.acknowledged += 1
            self._progress.set()


def workload(operations: int, seed: int) -> Workload:
    """Two thirds enrolments; half of the children are deleted again. Some share a photo."""
    chance = random.Random(seed)
    shared = [(fake_photo(f"shared-{seed}-{number}"), 1) for number in range(3)]
    children = []
    for number in range(operations * 2 // 3):
        photos = []
        for shot in range(chance.choice((1, 1, 2))):
            faces = chance.choice((1, 1, 2))
            photos.append((fake_photo(f"{seed}-{number}-{shot}", faces), faces))
        if chance.random() < 0.2:
            photos.append(chance.choice(shared))
        children.append(Child(f"child {seed} {number}", tuple(photos), number % 2 == 0))
    found = Workload(children, chance)
    for position, child in enumerate(children):
        found.todo.append((child, False))
        if position >= 4 and children[position - 4].leaves:
            found.todo.append((children[position - 4], True))
    return found


@contextmanager
def opened(folder: Path) -> Iterator[SimpleNamespace]:
    """The three stores of a server that has stopped."""
    settings = Settings(data_dir=folder)
    catalogue = open_catalogue(settings.catalogue, folder)
    gallery = open_gallery(settings.gallery, folder, MODEL_ID, DIMENSION)
    try:
        yield SimpleNamespace(
            catalogue=catalogue, gallery=gallery, photos=open_photo_store(settings.photos, folder)
        )
    finally:
        gallery.close()
        catalogue.close()


def check(folder: Path, load: Workload) -> tuple[int, int]:
    """The stores against each other and against what was acknowledged; records and rows there are."""
    with opened(folder) as stores:
        rows = check_stores(stores)
        templates: dict[str, set[bytes]] = {}
        for row in rows.values():
            templates.setdefault(row.record_id, set()).add(row.template.tobytes())
        known = stores.catalogue.get_many([child.record_id for child in load.children])
        for child in load.children:
            record = known.get(child.record_id)
            if record is None:
                assert child.record_id not in templates
                assert not child.enrolled or child.asked_to_delete, f"{child.name} was lost"
                continue
            assert child.asked_to_enrol
            assert not child.deleted, f"{child.name} came back"
            assert record.attributes.case_reference == f"case of {child.name}"
            assert {photo.sha256 for photo in record.photos} == {photo_sha256(one) for one, _ in child.photos}
            for photo, _ in child.photos:
                assert stores.photos.get("agency-a", photo_sha256(photo)) == photo
            assert templates[child.record_id] == {
                fake_template(photo, ordinal).tobytes()
                for photo, faces in child.photos
                for ordinal in range(faces)
            }
        assert len(known) == stores.catalogue.counts().records
        return len(known), len(rows)


async def run_kills(folder: Path, *, operations: int, kills: int, seed: int, longest_s: float) -> str:
    """Work under kills until all is done, mend, and check; what happened, in words."""
    load = workload(operations, seed)
    killed = 0
    started = time.monotonic()
    share = max(1, len(load.todo) // (kills + 1))
    while killed < kills:
        async with killable(folder) as (process, client):
            work = asyncio.create_task(load.run(client))
            await load.reach(load.acknowledged + load.chance.randrange(share + 1), work)
            await asyncio.sleep(load.chance.random() * longest_s)
            await kill(process)
            killed += 1
            await work
    async with killable(folder) as (process, client):
        await load.run(client)
        checks = await client.checks(mend=True)
        failed = operations_pb2.CHECK_STATE_FAILED
        assert not [one for one in checks.values() if one.state == failed], checks
        clean = await client.checks()
        for name in ("deletions", "photos", "gallery", "facts", "index", "search log"):
            assert clean[name].state == operations_pb2.CHECK_STATE_OK, clean[name]
    records, rows = check(folder, load)
    enrolled = sum(child.enrolled for child in load.children)
    deleted = sum(child.deleted for child in load.children)
    return (
        f"{killed} kills, {enrolled} enrolments and {deleted} deletions acknowledged, {load.broken} calls "
        f"broken off; {records} records with {rows} rows there; {time.monotonic() - started:.0f} s"
    )


async def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    await run_kills(tmp_path, operations=40, kills=3, seed=1, longest_s=0.03)


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_many_kills_lose_nothing(tmp_path: Path) -> None:
    happened = await run_kills(tmp_path, operations=200, kills=20, seed=2, longest_s=0.03)
    sys.stdout.write(f"\n{happened}\n")
