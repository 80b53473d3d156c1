"""A load of twelve photos that meets most of what can become of one, and what tests ask of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.types import FaceWrite, PhotoWrite, RecordWrite
from cluster.erasing import Eraser
from cluster.open_snapshots import open_snapshots
from cluster.prepare import face_writes
from homeward.clock import SystemClock
from homeward.ids import record_id
from homeward.types import Attributes, DateRange, FaceRow, RecordKey, Sex
from photos.folder import FolderPhotoStore
from tests.cluster.fakes import DIMENSION, MODEL_ID, fake_face, fake_photo
from tests.cluster.load.archives import Tree
from tests.cluster.load.exported import Export, export, outcomes
from tests.cluster.load.fast import World

CUT = b"CUT a photo that ends early"
TREE: Tree = {
    "A/0.png": fake_photo("a0"),
    "A/1.png": fake_photo("a1"),
    "A/2.png": fake_photo("a0"),  # again, in the same part
    "A/3.png": fake_photo("a0"),  # again, in the next part
    "A/4.png": fake_photo("a4"),
    "B/0.png": fake_photo("b0"),
    "B/1.txt": b"not a photo",
    "B/2.png": CUT,
    "C/0.png": fake_photo("c0", 2),
    "D/0.png": fake_photo("d0", 0),
    "E/0.png": fake_photo("a0"),  # of another record
    "stray.png": fake_photo("stray"),
}
PARTS = 5
BORN = Attributes(born=DateRange(date(2008, 1, 1), date(2008, 12, 31)), sex=Sex.FEMALE)


def id_of(reference: str) -> str:
    return record_id(RecordKey("agency", "missing", reference))


def held(world: World) -> Export:
    return export(world.settings, MODEL_ID, DIMENSION)


def enrol(world: World, reference: str, *contents: bytes, attributes: Attributes = BORN) -> None:
    """A live enrolment of photos with one face each."""
    catalogue = open_catalogue(world.settings.catalogue, world.settings.data_dir)
    _enrol(world, catalogue, reference, *contents, attributes=attributes)
    catalogue.close()


def _enrol(
    world: World, catalogue: Catalogue, reference: str, *contents: bytes, attributes: Attributes
) -> None:
    key = RecordKey("agency", "missing", reference)
    photos = FolderPhotoStore(world.settings.data_dir / "photos")
    writes = []
    for content in contents:
        sha256 = photos.put("agency", content)
        face = fake_face(content, 0)
        (own,) = face_writes(record_id(key), sha256, MODEL_ID, [face])
        world.gallery.rows[own.face_id] = _row(record_id(key), sha256, own, content)
        writes.append(PhotoWrite(sha256, "image/png", 100, 120, len(content), faces_seen=1, faces=(own,)))
    (result,) = catalogue.apply([RecordWrite(key, attributes, tuple(writes), MODEL_ID)])
    assert not isinstance(result, Exception)


def _row(record: str, sha256: str, face: FaceWrite, content: bytes) -> FaceRow:
    zeros = dict.fromkeys(
        ["agency", "gallery", "load", "sex", "born_from", "born_to", "event_from", "event_to"], 0
    )
    return FaceRow(
        face_id=face.face_id,
        record_id=record,
        photo_sha256=sha256,
        ordinal=0,
        taken_from=0,
        taken_to=0,
        place=0,
        template=fake_face(content, 0).template,
        **zeros,
    )


def became(world: World, name: str) -> dict[str, tuple[str, str]]:
    """What became of each photo by its name."""
    return {
        photo.photo: (photo.became, photo.code)
        for part in outcomes(world.settings, name)
        for photo in part.photos
    }


class Interfering:
    """Does something once, while a batch that begins with this photo is in the model."""

    def __init__(self, world: World, first: bytes, act: Callable[[], object]) -> None:
        self._first = first
        self._act = act
        self._lock = threading.Lock()
        self.done = False
        world.model.before = self

    def __call__(self, batch: list[bytes]) -> None:
        with self._lock:
            mine = not self.done and batch[0] == self._first
            self.done = self.done or mine
        if mine:
            self._act()


def erase(world: World, catalogue: Catalogue, documents: object) -> None:
    """What a server's sweeper does."""
    Eraser(
        catalogue,
        FolderPhotoStore(world.settings.data_dir / "photos"),
        world.gallery,  # type: ignore[arg-type]
        SystemClock(),
        open_snapshots(world.settings, catalogue, MODEL_ID, DIMENSION),
        loads=documents,  # type: ignore[arg-type]
    ).sweep()


def named(world: World, reference: str) -> bool:
    """Whether an outcome speaks of the record."""
    for part in outcomes(world.settings, "march"):
        said = [*((one.reference, one.record_id) for one in part.photos)]
        said += [(one.reference, one.record_id) for one in part.records]
        if any(reference == of or id_of(reference) == record for of, record in said):
            return True
    return False
