"""Photo formats: told apart by their first bytes, with what a cheap look at the bytes can say.

Nothing here calls a codec. Pillow's own guessing is not used: it would try some forty plug-ins on
hostile bytes, one of which took 1.3 GB for a few kilobytes and one of which starts Ghostscript.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PhotoFormat(StrEnum):
    """The formats that are decoded; the value is the media type."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    WEBP = "image/webp"
    GIF = "image/gif"
    BMP = "image/bmp"
    TIFF = "image/tiff"
    JPEG2000 = "image/jp2"
    PNM = "image/x-portable-anymap"
    AVIF = "image/avif"
    HEIF = "image/heif"


@dataclass(frozen=True, slots=True)
class Refused:
    """Bytes that are recognised but not decoded: `name` tells the caller what they sent."""

    name: str


_ALLOWED: tuple[tuple[bytes, PhotoFormat], ...] = (
    (b"\xff\xd8\xff", PhotoFormat.JPEG),
    (b"\x89PNG\r\n\x1a\n", PhotoFormat.PNG),
    (b"GIF87a", PhotoFormat.GIF),
    (b"GIF89a", PhotoFormat.GIF),
    (b"BM", PhotoFormat.BMP),
    (b"II*\0", PhotoFormat.TIFF),
    (b"MM\0*", PhotoFormat.TIFF),
    (b"II+\0", PhotoFormat.TIFF),  # BigTIFF
    (b"MM\0+", PhotoFormat.TIFF),
    (b"\xff\x4f\xff\x51", PhotoFormat.JPEG2000),  # a bare codestream
    (b"\0\0\0\x0cjP  \r\n\x87\n", PhotoFormat.JPEG2000),
)
_PNM_KINDS = b"123456f"

_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"8BPS", "Photoshop"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"DDS ", "DDS"),
    (0, b"FTEX", "FTEX"),
    (0, b"\0\0\1\0", "Windows icon"),
    (0, b"\0\0\2\0", "Windows cursor"),
    (0, b"icns", "Apple icon"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (4, b"\x11\xaf", "FLI"),
    (4, b"\x12\xaf", "FLC"),
    (0, b"\xb1\x68\xde\x3a", "DCX"),
    (0, b"SIMPLE", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\n\5\1", "PCX"),
    (0, b"/* XPM */", "XPM"),
    (0, b"DanM", "MSP"),
    (0, b"LinS", "MSP"),
    (0, b"GRIB", "GRIB"),
    (0, b"BUFR", "BUFR"),
    (0, b"\0\0\1\xb3", "MPEG video"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska video"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FlashPix or an Office document"),
    (0, b"RIFF", "RIFF, not WebP"),
)
_END_MARKS = {PhotoFormat.JPEG: b"\xff\xd9", PhotoFormat.PNG: b"IEND", PhotoFormat.GIF: b"\0;"}
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def sniff(data: bytes) -> PhotoFormat | Refused | None:
    """What the first bytes say: a decoded format, a known refused one, or None (unknown)."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return PhotoFormat.WEBP
    if data[4:8] == b"ftyp":
        return _sniff_ftyp(data)
    for magic, kind in _ALLOWED:
        if data.startswith(magic):
            return kind
    if len(data) > 2 and data[:1] == b"P" and data[1] in _PNM_KINDS and data[2:3].isspace():
        return PhotoFormat.PNM
    for offset, magic, name in _REFUSED:
        if data[offset : offset + len(magic)] == magic:
            return Refused(name)
    return None


def _sniff_ftyp(data: bytes) -> PhotoFormat | Refused:
    """ISO base media: the brands tell HEIF and AVIF from video (ISO/IEC 14496-12, 4.3)."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}
    if brands & _AVIF_BRANDS:
        return PhotoFormat.AVIF
    if brands & _HEIF_BRANDS:
        return PhotoFormat.HEIF
    return Refused("MP4 or another video")


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas, None where the header is broken (RFC 9649, 2.5-2.7).

    libwebp's animation decoder, which Pillow uses for every WebP, takes two canvases of memory when
    it is opened, so the size has to be known before that.
    """
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L" and len(data) >= 25 and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and len(data) >= 30 and data[23:26] == b"\x9d\x01\x2a":
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return width & 0x3FFF, height & 0x3FFF
    return None


def ends_early(data: bytes, kind: PhotoFormat) -> bool:
    """Whether bytes that a codec refused lack their own end: names the refusal, decides nothing."""
    if kind in (PhotoFormat.AVIF, PhotoFormat.HEIF, PhotoFormat.JPEG2000):
        return _boxes_end_early(data)
    if kind is PhotoFormat.WEBP:
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind is PhotoFormat.BMP:
        return int.from_bytes(data[2:6], "little") > len(data)
    end = _END_MARKS.get(kind)
    return end is not None and end not in data[-4096:]


def _boxes_end_early(data: bytes) -> bool:
    """Whether a top-level ISO box reaches past the end of the bytes."""
    if data[:2] == b"\xff\x4f":  # a bare JPEG 2000 codestream has no boxes
        return b"\xff\xd9" not in data[-16:]
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:  # up to the end of the file
            return False
        if size < 8:
            return False
        at += size
    return at != len(data)
