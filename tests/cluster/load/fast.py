"""Whole loads in little time: a model that is none, a gallery in memory, and faults where one wants them."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogue.engine import Database
from catalogue.load_types import Load
from catalogue.store import Catalogue
from cluster.load.counters import Progress
from cluster.load.drive import Driver, Ended, open_driver
from cluster.load.load_documents import LoadDocuments
from cluster.load.report import summarise
from cluster.load.report_types import Sums
from cluster.load.spec import LoadSpec
from cluster.load.undo import Taken, undo
from homeward.config import LoadSettings, Settings
from homeward.errors import HomewardError, PhotoReason, PhotoRejected, StoreUnavailable
from homeward.face_message import SeenFace
from homeward.types import FaceRow, Float32, PhotoFaces
from index.columns import Columns, from_rows
from photos.folder import FolderPhotoStore
from tests.cluster.fakes import DIMENSION, MODEL_ID, fake_face
from workers.bulk import BulkEmbedding, Photo
from workers.decode import DecodedPhoto

SETTINGS = LoadSettings(lapse_s=20.0, patience_s=3.0)


class FakeDecoder:
    """Takes what begins with FAKE for a photo, as `FakeEmbedding` does."""

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | PhotoRejected]:
        """The bytes are the pixels."""
        return [self._decode(photo) for photo in photos]

    def close(self) -> None:
        """Nothing to end."""

    def _decode(self, photo: bytes) -> DecodedPhoto | PhotoRejected:
        if photo.startswith(b"CUT"):
            return PhotoRejected(PhotoReason.TRUNCATED, "the photo ends early")
        if photo[:4] != b"FAKE":
            return PhotoRejected(PhotoReason.FORMAT_UNKNOWN, "no photo")
        pixels = np.frombuffer(photo, np.uint8).reshape(1, -1, 1)
        return DecodedPhoto(pixels, 100, 120, "image/png", hashlib.sha256(photo).hexdigest())


class FakeModel:
    """Faces by the digit behind FAKE. As of a real model, a template's last digits hang on the batch."""

    model_id = MODEL_ID
    dimension = DIMENSION
    device = "cpu"

    def __init__(self) -> None:
        self.photos = 0
        self.before: Callable[[list[bytes]], object] = lambda _: None

    def embed_each(self, photos: Sequence[Photo]) -> list[PhotoFaces | HomewardError]:
        """As `Pipeline`'s."""
        contents = [content_of(photo) for photo in photos]
        self.before(contents)
        self.photos += len(photos)
        batch = hashlib.sha256(b"".join(contents)).digest()
        return [self._faces(photo, batch) for photo in contents]

    def embed_known(self, photo: Photo, known: Sequence[SeenFace]) -> PhotoFaces | HomewardError:
        """As `Pipeline`'s."""
        content = content_of(photo)
        faces = tuple(fake_face(content, ordinal) for ordinal in range(len(known)))
        return PhotoFaces(hashlib.sha256(content).hexdigest(), "image/png", 100, 120, MODEL_ID, faces)

    def _faces(self, photo: bytes, batch: bytes) -> PhotoFaces:
        count = int(photo[4:5])
        faces = tuple(fake_face(photo, ordinal) for ordinal in range(count))
        for face in faces:
            face.template[:] = _stirred(face.template, batch)
        return PhotoFaces(hashlib.sha256(photo).hexdigest(), "image/png", 100, 120, MODEL_ID, faces)


def _stirred(template: Float32, batch: bytes) -> Float32:
    noise = np.random.default_rng(int.from_bytes(batch[:8], "big")).standard_normal(len(template)) * 1e-6
    moved = template + noise
    return (moved / np.linalg.norm(moved)).astype(np.float32)


def content_of(photo: Photo) -> bytes:
    """The bytes that `FakeDecoder` was given."""
    assert isinstance(photo, DecodedPhoto)
    return photo.pixels.tobytes()


def fake_hash(photo: Photo) -> bytes:
    """Of other bytes another picture."""
    return hashlib.sha256(content_of(photo)).digest()


class MemoryGallery:
    """What of `MilvusGallery` is used; rows outlive its being closed."""

    def __init__(self) -> None:
        self.rows: dict[str, FaceRow] = {}

    def upsert(self, rows: Sequence[FaceRow]) -> None:
        """As `MilvusGallery.upsert`."""
        for row in rows:
            self.rows[row.face_id] = row

    def delete(self, face_ids: Sequence[str]) -> None:
        """As `MilvusGallery.delete`."""
        for face in face_ids:
            self.rows.pop(face, None)

    def get(self, face_ids: Sequence[str]) -> Columns:
        """As `MilvusGallery.get`."""
        return from_rows([self.rows[face] for face in face_ids if face in self.rows], DIMENSION)

    def iterate(self) -> Iterator[Columns]:
        """As `MilvusGallery.iterate`."""
        yield self.get(sorted(self.rows))

    def close(self) -> None:
        """Keeps everything."""


class Silent:
    """A display that nobody looks at, and what was held back."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def show(self, progress: Progress) -> None:
        """Note what is waited for."""
        self.held.add(progress.counters.held_back)

    def close(self, final: Progress, said: str) -> None:
        """Nothing to close."""


class Killed(BaseException):
    """The process is dead: whatever it tries, nothing comes of it."""


class Faults:
    """Counts the calls of each step, raises in one of them, and lets a killed process do nothing more."""

    STEPS = (
        (Catalogue, "begin_intents"),
        (FolderPhotoStore, "put"),
        (MemoryGallery, "upsert"),
        (Catalogue, "apply"),
        (LoadDocuments, "put_part"),
        (LoadDocuments, "put_outcome"),
        (LoadDocuments, "drop_part"),
        (LoadDocuments, "sweep_outcomes"),
    )
    LEDGER = ("add_parts", "planned", "settle_model", "commit_part", "release")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from catalogue.ledger import LoadLedger

        self.calls: Counter[str] = Counter()
        self.error: Callable[[], BaseException] = Killed
        self.fails: Callable[[str, int, str], bool] = lambda _step, _call, _when: False
        self.dead = False
        self._lock = threading.Lock()
        for owner, step in (*self.STEPS, *((LoadLedger, step) for step in self.LEDGER)):
            self._wrap(monkeypatch, owner, step)
        for name in ("writing", "reading"):
            self._guard(monkeypatch, name)

    def kill_at(self, step: str, call: int, when: str) -> None:
        """Die before or after the n-th call of a step."""
        self.fails = lambda *now: now == (step, call, when)
        self.error = Killed

    def heal(self) -> None:
        """As a new process."""
        self.dead = False
        self.fails = lambda _step, _call, _when: False
        self.calls.clear()

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str) -> None:
        real = getattr(owner, step)

        def called(*given: Any, **named: Any) -> Any:
            with self._lock:
                self.calls[step] += 1
                call = self.calls[step]
            self._look(step, call, "before")
            answer = real(*given, **named)
            self._look(step, call, "after")
            return answer

        monkeypatch.setattr(owner, step, called)

    def _look(self, step: str, call: int, when: str) -> None:
        if self.dead:
            raise Killed
        if self.fails(step, call, when):
            error = self.error()
            self.dead = isinstance(error, Killed)
            raise error

    def _guard(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(Database, name)

        @contextmanager
        def guarded(database: Database) -> Iterator[Any]:
            if self.dead and threading.current_thread().name in ("progress", "lease"):
                raise StoreUnavailable("the process is dead")  # nobody waits for what these raise
            if self.dead:
                raise Killed
            with real(database) as connection:
                yield connection

        monkeypatch.setattr(Database, name, guarded)


class World:
    """Data folders with the fake model; `gallery` in memory or Milvus Lite."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, in_memory: bool = True) -> None:
        self.settings = Settings(data_dir=folder, loads=SETTINGS)
        self.model = FakeModel()
        self.gallery = MemoryGallery()
        self.display = Silent()
        monkeypatch.setattr("cluster.load.open_loader.open_bulk", self._open_bulk)
        if in_memory:
            for module in ("cluster.load.open_loader", "cluster.load.undo", "tests.cluster.load.exported"):
                monkeypatch.setattr(f"{module}.open_gallery", lambda *_: self.gallery)

    def start(self, name: str, source: Path, **spec: Any) -> Ended:
        """A load from its beginning, to its end."""
        with self.open() as (driver, _, _):
            return driver.start(name, spec_of(source, **spec), self.display)

    def resume(self, name: str) -> Ended:
        """Go on with a load."""
        with self.open() as (driver, _, _):
            return driver.resume(name, self.display, lambda _: None)

    def undo(self, name: str) -> Taken:
        """Take a load back."""
        with self.open() as (driver, catalogue, documents):
            return undo(name, self.settings, driver, catalogue, documents, tell=lambda _: None)

    def load(self, name: str) -> Load:
        """What the ledger says of it."""
        with self.open() as (_, catalogue, _):
            return catalogue.loads.get(name)

    def sums(self, name: str) -> Sums:
        """The load's report in numbers, once every photo has exactly one outcome."""
        with self.open() as (_, catalogue, documents):
            load = catalogue.loads.get(name)
            parts = catalogue.loads.parts(name)
            with summarise(documents.get_outcome(part.document) for part in parts) as report:
                assert load.photos is not None
                assert report.unaccounted(load.photos).everything_is_there
                assert sum(part.photos for part in parts) == load.photos == report.sums.photos
                return report.sums

    @contextmanager
    def open(self) -> Iterator[tuple[Driver, Catalogue, LoadDocuments]]:
        """A driver with its stores."""
        with ExitStack() as stack:
            yield stack.enter_context(open_driver(self.settings))

    def _open_bulk(self, _settings: Settings, _hash: object) -> BulkEmbedding:
        return BulkEmbedding(
            self.model, FakeDecoder(), lanes=2, use_threads=lambda _: None, hash_picture=fake_hash
        )


def spec_of(source: Path, **more: Any) -> LoadSpec:
    """A load of one source in small parts."""
    given: dict[str, Any] = {"agency": "agency", "gallery": "missing", "part_photos": 3}
    return LoadSpec(sources=(str(source),), **(given | more))
