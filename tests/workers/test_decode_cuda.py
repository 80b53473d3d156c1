from __future__ import annotations

import numpy as np
import pytest
import torch

from homeward.errors import PhotoReason, PhotoRejected
from tests.workers.photo_bytes import LIMITS, blocks, encode, exif
from workers.decode import DecodedPhoto, decode
from workers.decode_cuda import HEADER_DECODER, CudaDecoder, jpeg_header
from workers.device_photo import DevicePhoto, small_pixels
from workers.sandbox import DecodePool


def test_nvjpeg_gets_whole_grey_and_colour_jpegs_only() -> None:
    jpeg = encode(blocks(), "JPEG", exif=exif(6))
    header = jpeg_header(jpeg, LIMITS)
    assert (header.width, header.height, int(header.pixels[0, 0, 0])) == (96, 64, 6)
    for other in (jpeg[:-2], encode(blocks(), "PNG"), b"\xff\xd8\xff\xd9", b"no photo"):
        with pytest.raises(PhotoRejected):
            jpeg_header(other, LIMITS)


def test_every_photo_gets_its_answer_with_or_without_a_gpu() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu:0")
    photos = [encode(blocks(96, 64, seed), "JPEG", quality=95, exif=exif(6)) for seed in range(5)]
    photos += [encode(blocks(), "PNG"), photos[0][:-40], b""]
    pool = DecodePool(LIMITS, processes=1)
    decoder = CudaDecoder(pool, DecodePool(LIMITS, processes=1, decoder=HEADER_DECODER), device)
    try:
        answers = decoder.decode_many(photos)
    finally:
        decoder.close()
    for photo, answer in zip(photos[:6], answers, strict=False):
        expected = decode(photo, LIMITS)
        assert isinstance(answer, DecodedPhoto | DevicePhoto)
        assert (answer.width, answer.height, answer.sha256) == (
            expected.width,
            expected.height,
            expected.sha256,
        )
        pixels = small_pixels(answer.planes) if isinstance(answer, DevicePhoto) else answer.pixels
        assert np.abs(pixels.astype(int) - expected.pixels)[8::16, 8::16].max() <= 8
    reasons = [answer.reason for answer in answers if isinstance(answer, PhotoRejected)]
    assert reasons == [PhotoReason.TRUNCATED, PhotoReason.EMPTY]
