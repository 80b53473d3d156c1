"""`Diagnose` names what disagrees, `Diagnose(mend)` puts it right, and then there is nothing to name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalogue.types import Deletion, Item, Store
from cluster.compose import Parts
from homeward.ids import face_id, photo_sha256
from homeward.types import FaceRow
from homeward.v1 import operations_pb2, records_pb2
from tests.cluster.children import check_agreement, enrolling, rows_of, serving, upload
from tests.cluster.fakes import MODEL_ID, fake_photo, fake_template

OK = operations_pb2.CHECK_STATE_OK
MENDED = operations_pb2.CHECK_STATE_MENDED
FAILED = operations_pb2.CHECK_STATE_FAILED
AGENCY = "agency-a"
COMPARED = ("deletions", "photos", "gallery", "facts", "index")


def _rows(parts: Parts) -> list[FaceRow]:
    return list(rows_of(parts.gallery.iterate()).values())


def _orphan(parts: Parts) -> FaceRow:
    """A row of a face that the catalogue does not know."""
    row, photo = _rows(parts)[0], fake_photo("nobody")
    sha256 = photo_sha256(photo)
    return replace(
        row,
        face_id=face_id(row.record_id, sha256, MODEL_ID, 0),
        photo_sha256=sha256,
        template=fake_template(photo, 0),
    )


def orphan_rows(parts: Parts) -> None:
    parts.gallery.upsert([_orphan(parts)])


def orphan_photos(parts: Parts) -> None:
    parts.photos.put(AGENCY, fake_photo("nobody"))
    parts.photos.put("agency of nobody", fake_photo("nobody"))


def missing_rows(parts: Parts) -> None:
    lost = _rows(parts)[:3]
    parts.gallery.delete([row.face_id for row in lost])
    parts.index.apply(delete_faces=[(row.record_id, row.face_id) for row in lost])


def missing_rows_in_the_gallery_alone(parts: Parts) -> None:
    parts.gallery.delete([row.face_id for row in _rows(parts)[:3]])


def stale_columns(parts: Parts) -> None:
    rows = [replace(row, sex=3 - row.sex, born_from=5) for row in _rows(parts)[:2]]
    parts.gallery.upsert(rows)
    parts.index.upsert(rows)


def pending_erasures(parts: Parts) -> None:
    record = _rows(parts)[0].record_id
    parts.catalogue.delete(Deletion(record, reason="test", requester="test"))


def pending_orphans(parts: Parts) -> None:
    parts.photos.put(AGENCY, fake_photo("nobody"))
    parts.catalogue.add_pending([Item(Store.PHOTOS, "0" * 32, photo_sha256(fake_photo("nobody")), AGENCY)])


def index_rows_too_many(parts: Parts) -> None:
    parts.index.upsert([_orphan(parts)])


def index_rows_too_few(parts: Parts) -> None:
    parts.index.apply(delete_faces=[(row.record_id, row.face_id) for row in _rows(parts)[:2]])


def index_rows_exchanged(parts: Parts) -> None:
    parts.index.upsert([_orphan(parts)])
    row = _rows(parts)[0]
    parts.index.apply(delete_faces=[(row.record_id, row.face_id)])


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (orphan_rows, "gallery"),
        (orphan_photos, "photos"),
        (missing_rows, "gallery"),
        (missing_rows_in_the_gallery_alone, "gallery"),
        (stale_columns, "facts"),
        (pending_erasures, "deletions"),
        (pending_orphans, "deletions"),
        (index_rows_too_many, "index"),
        (index_rows_too_few, "index"),
        (index_rows_exchanged, "index"),
    ],
)
async def test_damage_is_named_and_mended(tmp_path: Path, damage: object, check: str) -> None:
    assert callable(damage)
    facts = records_pb2.Attributes(sex=records_pb2.SEX_FEMALE, sex_verified=True)
    async with serving(tmp_path) as (server, client):
        for number in range(6):
            shown = upload(fake_photo(f"c{number}", 2), choice=records_pb2.FACE_CHOICE_COMPOSITE)
            await client.enrol(enrolling(f"c{number}", [shown], attributes=facts))
        clean = await client.checks()
        assert [clean[name].state for name in COMPARED] == [OK] * len(COMPARED)
        damage(server.parts)
        found = await client.checks()
        assert found[check].state not in (OK, MENDED)
        assert "mend" in found[check].remedy
        before = check_damage(server.parts)
        assert not before
        mended = await client.checks(mend=True)
        assert not [one for one in mended.values() if one.state == FAILED]
        again = await client.checks()
        assert [again[name].state for name in COMPARED] == [OK] * len(COMPARED)
        assert check_agreement(server.parts) == (10 if damage is pending_erasures else 12)


def check_damage(parts: Parts) -> bool:
    """Whether all agree (they must not: the damage was done, and diagnosing repairs nothing)."""
    try:
        check_agreement(parts)
    except AssertionError:
        return False
    return True


async def test_a_lost_photo_is_reported_and_nothing_is_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        kept, lost = fake_photo("kept"), fake_photo("lost")
        record = (await client.enrol(enrolling("c", [kept, lost]))).record.record_id
        server.parts.photos.delete(AGENCY, photo_sha256(lost))
        face = face_id(record, photo_sha256(lost), MODEL_ID, 0)
        server.parts.gallery.delete([face])
        for mend in (True, False):
            checks = await client.checks(mend=mend)
            assert checks["photos"].state == FAILED
            assert checks["gallery"].state == FAILED
        assert len((await client.get(record)).photos) == 2
        assert (await client.found(kept))[record] > 0.999
        again = await client.enrol(enrolling("c", [lost]))
        assert again.outcomes[0].code == "ENROLLED"
        assert check_agreement(server.parts) == 2
