"""The same picture has nearly the same hash however it is saved; other pictures have another."""

from __future__ import annotations

import io
import tarfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cluster.load.picture import HASH_BYTES, SAME_PICTURE_BITS, bits_apart, picture_hash
from homeward.types import UInt8
from tests.cluster.load.outcomes import scene
from tests.shared import SHARED, needs_shared
from tests.workers.photo_bytes import encode


def read(data: bytes) -> UInt8:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def resized(pixels: UInt8, times: float) -> UInt8:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).resize((round(width * times), round(height * times)))
    return np.array(image)


def pictures() -> list[UInt8]:
    photos = [
        np.array(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    return [*photos, *(scene(seed) for seed in range(12))]


def variants(pixels: UInt8) -> list[UInt8]:
    """As other people might have saved it."""
    return [
        *(read(encode(pixels, "JPEG", quality=quality)) for quality in (30, 50, 75, 95)),
        read(encode(pixels, "WEBP", quality=60)),
        *(resized(pixels, times) for times in (0.25, 0.5, 0.77, 1.5, 2.0)),
        read(encode(resized(pixels, 0.5), "JPEG", quality=50)),
        np.repeat(np.array(Image.fromarray(pixels).convert("L"))[:, :, None], 3, axis=2),
    ]


def test_a_picture_saved_anew_is_the_same_picture() -> None:
    for pixels in pictures():
        before = picture_hash(pixels)
        assert len(before) == HASH_BYTES
        for after in variants(pixels):
            assert bits_apart(before, picture_hash(after)) <= SAME_PICTURE_BITS


def test_other_pictures_are_not() -> None:
    hashes = [picture_hash(pixels) for pixels in pictures()]
    for one, other in combinations(hashes, 2):
        assert bits_apart(one, other) > 2 * SAME_PICTURE_BITS


def test_a_picture_is_itself_and_its_mirror_image_is_another() -> None:
    pixels = pictures()[0]
    assert picture_hash(pixels) == picture_hash(pixels.copy())
    assert bits_apart(picture_hash(pixels), picture_hash(pixels[:, ::-1].copy())) > SAME_PICTURE_BITS


@pytest.mark.parametrize("grey", [0, 40, 200, 255])
@pytest.mark.parametrize("noise", [0, 2])
def test_a_blank_page_has_no_hash(grey: int, noise: int) -> None:
    random = np.random.default_rng(grey)
    page = np.clip(grey + noise * random.standard_normal((500, 400, 3)), 0, 255).astype(np.uint8)
    assert picture_hash(page) == b""
    assert picture_hash(read(encode(page, "JPEG", quality=40))) == b""


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (16, 5000), (3000, 17), (257, 511)])
def test_pictures_of_every_shape_have_a_hash(size: tuple[int, int]) -> None:
    pixels = resized(scene(1), 1)
    small = np.array(Image.fromarray(pixels).resize(size))
    assert len(picture_hash(small)) in (0, HASH_BYTES)


def test_bits_are_counted() -> None:
    assert bits_apart(b"\x00\xff", b"\x00\xff") == 0
    assert bits_apart(b"\x00\xff", b"\x03\x7f") == 3


@needs_shared
def test_of_real_portraits_only_the_same_photo_is_the_same_picture() -> None:
    assert SHARED is not None
    photos = [Path(path).read_bytes() for path in sorted((SHARED / "photos/london").glob("*/*.jpg"))[:24]]
    with tarfile.open(SHARED / "photos/lfw_dev.tar") as archive:
        for found in archive:
            if len(photos) == 224:
                break
            file = archive.extractfile(found)
            photos += [file.read()] if file and found.name.endswith(".jpg") else []
    hashes = [picture_hash(read(data)) for data in photos]
    for one, other in combinations(hashes, 2):
        assert bits_apart(one, other) > SAME_PICTURE_BITS
    for data, before in list(zip(photos, hashes, strict=True))[::16]:
        small = resized(read(data), 0.5)
        assert bits_apart(before, picture_hash(read(encode(small, "JPEG", quality=50)))) <= SAME_PICTURE_BITS
