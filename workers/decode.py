"""One photo's bytes to upright 8-bit RGB, or a typed refusal.

`decode` is pure and single-threaded; run it on untrusted bytes only inside `workers.sandbox`. JPEG
goes through libjpeg-turbo's own interface (twice as fast as Pillow, the same pixels), or through Pillow where
its scaled inverse DCT saves the work or the file is an odd one; every other format goes through one named
Pillow plug-in. Nothing here needs torch: the decoders' processes start at once.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from homeward.errors import PhotoReason, PhotoRejected
from homeward.types import UInt8
from workers.decode_formats import PhotoFormat, Refused, ends_early, sniff, webp_size
from workers.decode_modes import to_rgb, upright

if TYPE_CHECKING:
    from homeward.config import WorkerSettings

_ORIENTATION = 0x0112
_PLUGINS: dict[PhotoFormat, type[ImageFile.ImageFile]] = {
    PhotoFormat.JPEG: JpegImagePlugin.JpegImageFile,
    PhotoFormat.PNG: PngImagePlugin.PngImageFile,
    PhotoFormat.WEBP: WebPImagePlugin.WebPImageFile,
    PhotoFormat.GIF: GifImagePlugin.GifImageFile,
    PhotoFormat.BMP: BmpImagePlugin.BmpImageFile,
    PhotoFormat.TIFF: TiffImagePlugin.TiffImageFile,
    PhotoFormat.JPEG2000: Jpeg2KImagePlugin.Jpeg2KImageFile,
    PhotoFormat.PNM: PpmImagePlugin.PpmImageFile,
    PhotoFormat.AVIF: AvifImagePlugin.AvifImageFile,
}
_TURBO_MODES = ("RGB", "L")  # of CMYK there are two kinds, which Pillow tells apart
# Their plug-ins hand out pixels that are upright already; the tag they leave behind is spent.
_TURNED_BY_PLUGIN = frozenset((PhotoFormat.TIFF, PhotoFormat.HEIF))


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a photo may cost. Checked from its headers, before memory is taken for its pixels."""

    max_bytes: int
    max_pixels: int  # width x height at full size
    min_side_px: int = 16
    scale_to_px: int = 0  # longest side of the pixels returned at most; 0: full size

    @staticmethod
    def from_settings(settings: WorkerSettings) -> DecodeLimits:
        """The limits an operator set."""
        return DecodeLimits(max_bytes=settings.max_photo_bytes, max_pixels=settings.max_photo_pixels)


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """One photo, upright (EXIF orientation applied), its first frame, without its colour profile."""

    pixels: UInt8  # (H, W, 3) RGB, C-contiguous
    width: int  # of the upright photo at full size; `pixels` is smaller when scaled at decode
    height: int
    media_type: str  # "image/jpeg", ...
    sha256: str  # of the photo's bytes, 64 hex digits


def decode(data: bytes, limits: DecodeLimits) -> DecodedPhoto:
    """Decode one photo. Raises `PhotoRejected` with the reason, and nothing else.

    A photo that ends early is refused (TRUNCATED), never returned with a grey rest.
    """
    check_bytes(data, limits)
    kind = sniff(data)
    if kind is None:
        raise PhotoRejected(
            PhotoReason.FORMAT_UNKNOWN, "not a photo format we know; send JPEG, PNG, WebP or HEIC"
        )
    if isinstance(kind, Refused):
        raise PhotoRejected(
            PhotoReason.FORMAT_REFUSED,
            f"{kind.name} files are not decoded; send JPEG, PNG, WebP or HEIC",
            format=kind.name,
        )
    try:
        pixels, width, height = _decode(data, kind, limits)
    except PhotoRejected:
        raise
    except Exception as error:
        raise _refusal(error, data, kind) from error
    return DecodedPhoto(pixels, width, height, kind.value, hashlib.sha256(data).hexdigest())


def check_bytes(data: bytes, limits: DecodeLimits) -> None:
    """Raises `PhotoRejected` for no bytes and for too many. Looks at nothing but their number."""
    if not data:
        raise PhotoRejected(PhotoReason.EMPTY, "the photo has no bytes")
    if len(data) > limits.max_bytes:
        raise PhotoRejected(
            PhotoReason.TOO_MANY_BYTES,
            f"the photo has {len(data)} bytes, more than {limits.max_bytes}; send it smaller",
            bytes=len(data),
            limit=limits.max_bytes,
        )


def _decode(data: bytes, kind: PhotoFormat, limits: DecodeLimits) -> tuple[UInt8, int, int]:
    """Upright pixels, and width and height of the upright photo at full size."""
    if kind is PhotoFormat.WEBP and (canvas := webp_size(data)) is not None:
        check_size(canvas, limits)
    with _plugin(kind)(io.BytesIO(data)) as image:
        size = image.size
        check_size(size, limits)
        if kind is PhotoFormat.JPEG and 0 < limits.scale_to_px < max(size):
            # A smaller inverse DCT, several times as fast: of those that libjpeg has the smallest that still
            # comes to three quarters of what is allowed.
            least = 0.75 * limits.scale_to_px / max(size)
            image.draft(None, (max(1, int(size[0] * least)), max(1, int(size[1] * least))))
            image.thumbnail((limits.scale_to_px, limits.scale_to_px))
            pixels = np.array(to_rgb(image))
        elif (
            kind is PhotoFormat.JPEG
            and image.mode in _TURBO_MODES
            and (found := _jpeg_pixels(data, size)) is not None
        ):
            pixels = found
        else:
            image.load()
            if image.size != size:  # only a header that contradicts the data does this
                check_size(image.size, limits)
                size = image.size
            pixels = _scaled(to_rgb(image), limits)
        turned = 1 if kind in _TURNED_BY_PLUGIN else orientation(image)
    width, height = size if turned < 5 else size[::-1]
    return upright(pixels, turned), width, height


def _plugin(kind: PhotoFormat) -> type[ImageFile.ImageFile]:
    if kind is not PhotoFormat.HEIF:
        return _PLUGINS[kind]
    import pillow_heif

    plugin: type[ImageFile.ImageFile] = pillow_heif.HeifImageFile
    return plugin


def check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    """Raises `PhotoRejected` for a (width, height) with too many pixels or too short a side."""
    width, height = size
    if width * height > limits.max_pixels:
        raise PhotoRejected(
            PhotoReason.TOO_MANY_PIXELS,
            f"the photo has {width} x {height} pixels, more than {limits.max_pixels}; send it smaller",
            width=width,
            height=height,
            limit=limits.max_pixels,
        )
    if min(width, height) < limits.min_side_px:
        raise PhotoRejected(
            PhotoReason.TOO_SMALL,
            f"the photo has {width} x {height} pixels; no face shows below {limits.min_side_px} a side",
            width=width,
            height=height,
        )


def _jpeg_pixels(data: bytes, size: tuple[int, int]) -> UInt8 | None:
    """None for a file of which libjpeg complains: Pillow knows which complaints cost a photo."""
    try:
        pixels: UInt8 = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    if pixels.shape != (size[1], size[0], 3):
        raise PhotoRejected(PhotoReason.CORRUPT, "the JPEG's headers contradict each other")
    return pixels


def _scaled(rgb: Image.Image, limits: DecodeLimits) -> UInt8:
    if 0 < limits.scale_to_px < max(rgb.size):
        rgb.thumbnail((limits.scale_to_px, limits.scale_to_px))
    return np.array(rgb)


def orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation 1..8; a broken tag turns nothing and costs no photo."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow's EXIF reader raises anything at all on hostile tags
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _refusal(error: Exception, data: bytes, kind: PhotoFormat) -> PhotoRejected:
    """The reason code for whatever a codec raised."""
    said = str(error).lower()
    if isinstance(error, MemoryError) or "memory" in said or "alloc" in said:
        return PhotoRejected(
            PhotoReason.DECODE_MEMORY, "decoding took more memory than allowed; send the photo as JPEG"
        )
    if isinstance(error, Image.DecompressionBombError):
        return PhotoRejected(PhotoReason.TOO_MANY_PIXELS, "the photo holds too many pixels; send it smaller")
    name = kind.value
    if "truncated" in said or isinstance(error, EOFError) or ends_early(data, kind):
        return PhotoRejected(PhotoReason.TRUNCATED, f"the {name} ends early; send the whole file")
    return PhotoRejected(PhotoReason.CORRUPT, f"the {name} is damaged; save it again from the original")
