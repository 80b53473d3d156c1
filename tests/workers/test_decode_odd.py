from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from homeward.errors import PhotoReason, PhotoRejected
from tests.shared import SHARED, needs_shared
from tests.workers.photo_bytes import LIMITS
from workers.decode import DecodedPhoto
from workers.sandbox import DecodePool

SLOWEST_S = 10.0
GROWTH_BYTES = 128 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(LIMITS, processes=2, timeout_s=8.0) as opened:
        yield opened


def _odd_files() -> list[Path]:
    assert SHARED is not None
    return sorted(path for path in (SHARED / "photos" / "odd").rglob("*") if path.is_file())


def _through_the_pool(pool: DecodePool, paths: list[Path]) -> list[PhotoReason | None]:
    """One call per file, as a server gets them: why each was refused, None when it was decoded."""
    reasons: list[PhotoReason | None] = []
    me = psutil.Process()
    pool.decode_many([paths[0].read_bytes()])
    before = me.memory_info().rss
    for path in paths:
        data = path.read_bytes()
        start = time.monotonic()
        answer = pool.decode_many([data])[0]
        assert time.monotonic() - start <= SLOWEST_S, path
        if isinstance(answer, PhotoRejected):
            assert answer.message
            reasons.append(answer.reason)
        else:
            assert answer.pixels.shape == (answer.height, answer.width, 3)
            reasons.append(None)
        del answer
    assert me.memory_info().rss - before < GROWTH_BYTES
    return reasons


@needs_shared
def test_odd_photos_get_an_answer_or_a_typed_refusal(pool: DecodePool) -> None:
    paths = _odd_files()
    reasons = _through_the_pool(pool, random.Random(1).sample(paths, min(300, len(paths))))
    assert reasons.count(None) > 150


@needs_shared
@pytest.mark.prove
def test_prove_odd_every_photo_gets_an_answer_or_a_typed_refusal(pool: DecodePool) -> None:
    reasons = _through_the_pool(pool, _odd_files())
    assert PhotoReason.DECODER_DIED not in reasons
    assert PhotoReason.DECODE_TIMEOUT not in reasons
    assert reasons.count(None) > 700


@needs_shared
def test_a_face_in_every_orientation_comes_out_the_same(pool: DecodePool) -> None:
    assert SHARED is not None
    folder = SHARED / "photos" / "odd" / "pillow"
    photos = [folder / f"hopper_orientation_{number}.jpg" for number in range(2, 9)]
    answers = pool.decode_many([path.read_bytes() for path in photos])
    first = answers[0]
    assert isinstance(first, DecodedPhoto)
    for answer in answers[1:]:
        assert isinstance(answer, DecodedPhoto)
        assert answer.pixels.shape == first.pixels.shape
        difference = abs(answer.pixels.astype(int) - first.pixels)
        assert difference.mean() < 4
