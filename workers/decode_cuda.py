"""JPEGs decoded on the GPU (nvJPEG), a batch at a time; every other photo goes through the sandbox.

This needs an NVIDIA GPU to be exercised: elsewhere the choice of photos and the fall-back run, and nvJPEG is
stood in for by libjpeg. nvJPEG reads the entropy-coded data inside this process, where a child could not
contain it: headers are checked in the sandbox first, but a caller opts in, and does so for photos whose
source it trusts. Its chroma upsampling differs from libjpeg's by a few levels, so one load should keep to one
decoder.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL.JpegImagePlugin import JpegImageFile
from torchvision.io import ImageReadMode, decode_jpeg

from homeward.errors import PhotoReason, PhotoRejected
from workers.decode import DecodedPhoto, DecodeLimits, check_size, orientation
from workers.decode_formats import PhotoFormat, sniff
from workers.device_photo import DevicePhoto, turned
from workers.sandbox import DecodePool

_END_OF_IMAGE = b"\xff\xd9"  # nvJPEG fills what is missing with grey: a JPEG without an end is not for it
HEADER_DECODER = "workers.decode_cuda:jpeg_header"


def jpeg_header(data: bytes, limits: DecodeLimits) -> DecodedPhoto:
    """Runs in the sandbox: the size of a JPEG that nvJPEG may have, as stored, and as its only pixel
    (orientation, 0, 0). Raises `PhotoRejected` for any other photo; it is for the sandbox to decode.
    """
    if sniff(data) is not PhotoFormat.JPEG or data[-2:] != _END_OF_IMAGE:
        raise PhotoRejected(PhotoReason.FORMAT_REFUSED, "not a whole JPEG")
    try:
        image = JpegImageFile(io.BytesIO(data))
    except Exception as error:
        raise PhotoRejected(PhotoReason.CORRUPT, "the JPEG's headers are damaged") from error
    check_size(image.size, limits)
    if image.mode not in ("L", "RGB"):
        raise PhotoRejected(PhotoReason.FORMAT_REFUSED, "not a grey or colour JPEG")
    turned = np.array([[[orientation(image), 0, 0]]], np.uint8)
    return DecodedPhoto(turned, *image.size, PhotoFormat.JPEG.value, "")


class CudaDecoder:
    """Decodes like the `DecodePool` it is given, but JPEGs on `device`, where they stay. Owns and closes both
    pools."""

    def __init__(self, pool: DecodePool, headers: DecodePool, device: torch.device) -> None:
        """`headers` is a pool whose decoder is `HEADER_DECODER`."""
        self._pool = pool
        self._headers = headers
        self._device = device

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | DevicePhoto | PhotoRejected]:
        """Each photo's pixels or its refusal, in order. Raises what `DecodePool.decode_many` raises."""
        headers = self._headers.decode_many(photos)
        answers: list[DecodedPhoto | DevicePhoto | PhotoRejected | None] = [None] * len(photos)
        chosen = [at for at, header in enumerate(headers) if isinstance(header, DecodedPhoto)]
        for at, planes in zip(chosen, self._on_device([photos[at] for at in chosen]), strict=True):
            header = headers[at]
            assert isinstance(header, DecodedPhoto)
            if planes is None or planes.shape[1:] != (header.height, header.width):
                continue
            seen = turned(planes, int(header.pixels[0, 0, 0]))
            height, width = seen.shape[1:]
            digest = hashlib.sha256(photos[at]).hexdigest()
            answers[at] = DevicePhoto(seen, width, height, header.media_type, digest)
        rest = [at for at, answer in enumerate(answers) if answer is None]
        for at, answer in zip(rest, self._pool.decode_many([photos[at] for at in rest]), strict=True):
            answers[at] = answer
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """End the children of both pools."""
        self._pool.close()
        self._headers.close()

    def _on_device(self, jpegs: Sequence[bytes]) -> list[torch.Tensor | None]:
        """(3, h, w) uint8 RGB each; None for what nvJPEG refuses, and for all without a GPU."""
        if not jpegs:
            return []
        encoded = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        try:
            return list(decode_jpeg(encoded, mode=ImageReadMode.RGB, device=self._device))
        except RuntimeError:  # one that it refuses fails all: each on its own then
            if len(jpegs) == 1:
                return [None]
        return [self._on_device([jpeg])[0] for jpeg in jpegs]
