"""A decoder that does what its photo says: stands in for codecs that hostile bytes have taken over."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time

import numpy as np

from homeward.errors import PhotoReason, PhotoRejected
from workers.decode import DecodedPhoto, DecodeLimits

SIDE = 20


def decode(data: bytes, limits: DecodeLimits) -> DecodedPhoto:
    """`data` is "WORD NUMBER": a command, and the grey value of the answer or its argument."""
    word, _, number = data.decode().partition(" ")
    match word:
        case "hang":
            time.sleep(3600)
        case "spin":
            while True:
                pass
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            raise SystemExit(0)
        case "grow":
            return _photo(np.ones((int(number) << 20,), np.uint8)[:1])
        case "sleep":
            time.sleep(float(number))
        case "chatter":
            os.write(1, b"codec chatter\n")
            os.write(2, b"codec chatter\n")
            sys.stderr.write("codec chatter\n")
        case "refuse":
            raise PhotoRejected(PhotoReason.CORRUPT, "as asked", detail=number)
        case "oversize":
            return _photo(np.zeros((limits.max_pixels + 4096, 1, 3), np.uint8))
        case "write":
            with tempfile.TemporaryFile() as file:
                file.write(b"x" * 10)
        case "environment":
            return _photo(np.full((SIDE, SIDE, 3), "HOMEWARD_SECRET" in os.environ, np.uint8))
        case _:
            pass
    return _photo(np.full((SIDE, SIDE, 3), int(float(number or 0)) % 256, np.uint8))


def _photo(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> DecodedPhoto:
    pixels = pixels if pixels.ndim == 3 else np.broadcast_to(pixels, (SIDE, SIDE, 3))
    return DecodedPhoto(pixels, SIDE, SIDE, "image/jpeg", "")
