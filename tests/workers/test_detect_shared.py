"""What the default detector must find on the photographs kept for measurements: `make prove detection`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image

from homeward.types import UInt8
from tests.shared import SHARED, needs_shared
from tests.workers.real_faces import default_model, tensor
from workers.model import Detections

pytestmark = [needs_shared, pytest.mark.prove, pytest.mark.timeout(900)]
BATCH = 32


def photos_of(folder: str) -> list[UInt8]:
    assert SHARED is not None
    paths = [path for path in sorted((SHARED / "photos" / folder).rglob("*")) if path.is_file()]
    return [pixels(path.read_bytes()) for path in paths if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]


def pixels(photo: bytes) -> UInt8:
    return np.array(Image.open(io.BytesIO(photo)).convert("RGB"))


def first_photos(archive: Path) -> Iterator[UInt8]:
    """The first photo of each person of a tar of `<person>/<photo>`."""
    first: dict[str, tuple[str, bytes]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".jpg") else None
            person = Path(member.name).parent.name
            if file is not None and member.name < first.get(person, ("~", b""))[0]:
                first[person] = member.name, file.read()
    return (pixels(photo) for _, photo in first.values())


def find(photos: Iterable[UInt8]) -> Iterator[tuple[UInt8, Detections]]:
    batch: list[UInt8] = []
    for photo in photos:
        batch.append(photo)
        if len(batch) == BATCH:
            yield from zip(batch, _found(batch), strict=True)
            batch = []
    yield from zip(batch, _found(batch), strict=True)


def _found(batch: list[UInt8]) -> list[Detections]:
    return default_model().detector.detect([tensor(photo) for photo in batch], 40)


def holds(found: Detections, x: float, y: float) -> bool:
    """Whether a face lies over that point."""
    return any(
        left <= x <= left + width and top <= y <= top + height
        for left, top, width, height in found.boxes.tolist()
    )


def test_detection_finds_the_central_face_of_first_photos() -> None:
    assert SHARED is not None
    central = [
        holds(found, photo.shape[1] / 2, photo.shape[0] / 2)
        for photo, found in find(first_photos(SHARED / "photos/lfw_dev.tar"))
    ]
    assert len(central) > 2000
    assert sum(central) / len(central) >= 0.993


@pytest.mark.parametrize("folder", ["london", "canada"])
def test_detection_finds_every_portrait(folder: str) -> None:
    photos = photos_of(folder)
    assert photos
    assert all(len(found.scores) for _, found in find(photos))


@pytest.mark.parametrize("enlarged", [0, 1])
def test_detection_finds_in_groups_what_hog_finds(enlarged: int) -> None:
    hog = dlib.get_frontal_face_detector()
    held = [
        holds(found, (box.left() + box.right()) / 2, (box.top() + box.bottom()) / 2)
        for photo, found in find(photos_of("odd/dlib_group"))
        for box in hog(photo, enlarged)
    ]
    assert len(held) > 30
    assert sum(held) / len(held) >= 0.95
