"""Small pictures of stored photos, whose bytes are as untrusted as on the first day: decoded apart."""

from __future__ import annotations

import io
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

from cluster.load.report_types import PhotoRow
from homeward.errors import Corrupt, InvalidInput, NotFound, Unavailable
from photos.store import PhotoStore
from workers.decode import DecodedPhoto
from workers.sandbox import DecodePool

if TYPE_CHECKING:
    from homeward.config import WorkerSettings

SIDE_PX = 160
_QUALITY = 80


class Thumbnails:
    """Thumbnails of one agency's photos. A context: it holds a decoder process. For one thread."""

    def __init__(self, photos: PhotoStore, agency: str, settings: WorkerSettings) -> None:
        self._photos = photos
        self._agency = agency
        self._pool = DecodePool.from_settings(settings, processes=1, scale_to_px=SIDE_PX)
        self._down = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def __call__(self, row: PhotoRow) -> bytes | None:
        """The photo as a JPEG of at most 160 x 160 pixels; None for one that was not kept, is gone since, or
        cannot be decoded. A report must not fail for want of a picture: once the store or the decoder does
        not answer, it is not asked again."""
        if not row.kept or self._down:
            return None
        try:
            found = self._pool.decode_many([self._photos.get(self._agency, row.sha256)])[0]
        except (NotFound, Corrupt, InvalidInput):
            return None
        except Unavailable:
            self._down = True
            return None
        return _jpeg(found) if isinstance(found, DecodedPhoto) else None


def _jpeg(photo: DecodedPhoto) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo.pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
