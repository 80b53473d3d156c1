"""Photos decoded on the device: the same faces, templates and hashes as of those that the sandbox decodes.

A CPU stands for the GPU here, and libjpeg for nvJPEG: what is tested is what happens to the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.io import decode_jpeg as torchvision_decode_jpeg

from cluster.load.picture import SAME_PICTURE_BITS, bits_apart, picture_hash
from homeward.config import Settings, WorkerSettings
from homeward.types import PhotoFaces, UInt8
from tests.workers.photo_bytes import LIMITS, encode, exif
from workers import decode_cuda
from workers.bulk import BulkEmbedding
from workers.decode import DecodedPhoto, decode
from workers.decode_cuda import HEADER_DECODER, CudaDecoder
from workers.decode_modes import upright
from workers.device import own_stream
from workers.device_photo import DevicePhoto, small_pixels, turned
from workers.open import open_pipeline
from workers.pipeline import Pipeline
from workers.sandbox import DecodePool

CPU = torch.device("cpu")
ASTRONAUT: UInt8 = skimage.data.astronaut()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def decoder() -> Iterator[CudaDecoder]:
    pools = (DecodePool(LIMITS, processes=1), DecodePool(LIMITS, processes=1, decoder=HEADER_DECODER))
    decoder = CudaDecoder(*pools, CPU)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline(Settings(workers=WorkerSettings(device="cpu")))


@given(orientation=st.integers(0, 9), height=st.integers(1, 5), width=st.integers(1, 5))
def test_tensors_are_turned_as_arrays_are(orientation: int, height: int, width: int) -> None:
    stored = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    planes = turned(torch.from_numpy(stored).permute(2, 0, 1), orientation)
    assert (planes.permute(1, 2, 0).numpy() == upright(stored, orientation)).all()


@pytest.mark.parametrize("scale", [0.4, 1, 3])
def test_a_photo_on_the_device_has_the_hash_of_the_same_photo_in_memory(scale: float) -> None:
    planes = torch.from_numpy(ASTRONAUT).permute(2, 0, 1)[None].to(torch.float32)
    grown = torch.nn.functional.interpolate(planes, scale_factor=scale, mode="bilinear")[0]
    planes = grown.round().clamp(0, 255).to(torch.uint8)
    whole = picture_hash(planes.permute(1, 2, 0).contiguous().numpy())
    small = small_pixels(planes)
    assert min(small.shape[:2]) < 512
    assert bits_apart(picture_hash(small), whole) <= SAME_PICTURE_BITS // 4


def test_faces_of_a_photo_on_the_device_are_those_of_the_sandbox(
    decoder: CudaDecoder, pipeline: Pipeline
) -> None:
    photos = [encode(ASTRONAUT, "JPEG", quality=95, exif=exif(orientation)) for orientation in (1, 3)]
    found = [one for one in decoder.decode_many(photos) if isinstance(one, DevicePhoto)]
    for photo, one in zip(photos, pipeline.embed_each(found), strict=True):
        (other,) = pipeline.embed_each([decode(photo, LIMITS)])
        assert isinstance(one, PhotoFaces)
        assert isinstance(other, PhotoFaces)
        assert (one.sha256, one.width, one.height) == (other.sha256, other.width, other.height)
        assert len(one.faces) == len(other.faces)
        for mine, theirs in zip(one.faces, other.faces, strict=True):
            assert float(mine.template @ theirs.template) > 0.999


def test_a_bulk_load_takes_photos_from_either_place(decoder: CudaDecoder, pipeline: Pipeline) -> None:
    entered = []

    def in_lane() -> object:
        entered.append(1)
        return own_stream("cpu")

    seen: list[type] = []

    def look(photo: DecodedPhoto | DevicePhoto) -> bytes:
        seen.append(type(photo))
        return b"hash"

    bulk = BulkEmbedding(
        pipeline,
        Lent(decoder),
        lanes=1,
        use_threads=lambda _: None,
        hash_picture=look,
        in_lane=in_lane,  # type: ignore[arg-type]
    )
    jpeg, png = (encode(ASTRONAUT, kind) for kind in ("JPEG", "PNG"))
    batch = bulk.submit([jpeg, png, b"no photo"]).result()
    bulk.close()
    assert seen == [DevicePhoto, DecodedPhoto]
    assert [type(one.faces) is PhotoFaces for one in batch.photos] == [True, True, False]
    assert entered


def test_a_jpeg_that_the_device_refuses_is_decoded_in_the_sandbox_and_costs_no_other(
    decoder: CudaDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpegs = [encode(ASTRONAUT, "JPEG", quality=quality) for quality in (80, 90, 95)]
    refused = torch.frombuffer(bytearray(jpegs[1]), dtype=torch.uint8)
    real = torchvision_decode_jpeg

    def decode_jpeg(encoded: list[torch.Tensor], **given: Any) -> Any:
        if any(torch.equal(one, refused) for one in encoded):
            raise RuntimeError("nvjpegDecodeBatched failed")
        return real(encoded, **given)

    monkeypatch.setattr(decode_cuda, "decode_jpeg", decode_jpeg)
    found = decoder.decode_many(jpegs)
    assert [type(one) for one in found] == [DevicePhoto, DecodedPhoto, DevicePhoto]


class Lent:
    """A decoder that its user does not close."""

    def __init__(self, decoder: CudaDecoder) -> None:
        self.decode_many = decoder.decode_many

    def close(self) -> None:
        """It is another's."""
