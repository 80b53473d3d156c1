from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from homeward.config import WorkerSettings
from homeward.errors import PhotoReason, PhotoRejected
from homeward.ids import photo_sha256
from tests.workers.photo_bytes import LIMITS, STORED, blocks, encode, exif
from workers.decode import DecodedPhoto, DecodeLimits, decode
from workers.decode_formats import PhotoFormat

pillow_heif.register_heif_opener()

LOSSLESS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "image/png", {}),
    ("WEBP", "image/webp", {"lossless": True}),
    ("BMP", "image/bmp", {}),
    ("TIFF", "image/tiff", {}),
    ("TIFF", "image/tiff", {"compression": "tiff_lzw"}),
    ("TIFF", "image/tiff", {"big_tiff": True}),
    ("JPEG2000", "image/jp2", {"irreversible": False}),
    ("PPM", "image/x-portable-anymap", {}),
]
LOSSY: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "image/jpeg", {"quality": 95, "subsampling": 0}),
    ("JPEG", "image/jpeg", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("WEBP", "image/webp", {"quality": 95}),
    ("HEIF", "image/heif", {"quality": 95, "chroma": 444}),
    ("AVIF", "image/avif", {"quality": 95, "subsampling": "4:4:4"}),
]


def refused(data: bytes, limits: DecodeLimits = LIMITS) -> PhotoReason:
    with pytest.raises(PhotoRejected) as caught:
        decode(data, limits)
    assert caught.value.message
    return caught.value.reason


def off(photo: DecodedPhoto, expected: Any) -> int:
    """The largest difference of any sample, ignoring the two pixels around each square's edge."""
    assert photo.pixels.shape == expected.shape
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.flags.c_contiguous
    return int(np.abs(photo.pixels.astype(int) - expected)[8::16, 8::16].max())


@pytest.mark.parametrize(("kind", "media_type", "options"), LOSSLESS)
def test_lossless_formats_give_the_very_pixels(kind: str, media_type: str, options: dict[str, Any]) -> None:
    data = encode(blocks(), kind, **options)
    photo = decode(data, LIMITS)
    np.testing.assert_array_equal(photo.pixels, blocks())
    assert (photo.width, photo.height, photo.media_type) == (96, 64, media_type)
    assert photo.sha256 == photo_sha256(data)


@pytest.mark.parametrize(("kind", "media_type", "options"), LOSSY)
def test_lossy_formats_give_nearly_the_pixels(kind: str, media_type: str, options: dict[str, Any]) -> None:
    photo = decode(encode(blocks(), kind, **options), LIMITS)
    assert photo.media_type == media_type
    assert off(photo, blocks()) <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](blocks()))
    quality = {"quality": 95} if kind not in ("PNG", "TIFF") else {}
    photo = decode(encode(stored, kind, exif=exif(orientation), **quality), LIMITS)
    assert (photo.width, photo.height) == (96, 64)
    assert off(photo, blocks()) <= 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_broken_exif_costs_no_photo(kind: str) -> None:
    photo = decode(encode(blocks(), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"), LIMITS)
    assert (photo.width, photo.height) == (96, 64)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("adobe", [True, False])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_equals_pillow(mode: str, adobe: bool, subsampling: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (70, 93, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    data = encode(picture, "JPEG", quality=90, **({} if mode == "L" else {"subsampling": subsampling}))
    if not adobe:
        data = _without_segment(data, 0xEE)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data, LIMITS).pixels - expected).max() == 0


def _without_segment(jpeg: bytes, marker: int) -> bytes:
    at = jpeg.find(bytes((0xFF, marker)))
    return jpeg if at < 0 else jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (Image.fromarray(blocks()).convert("L"), "PNG"),
        (Image.fromarray(blocks()).convert("1"), "PNG"),
        (Image.fromarray(blocks()).convert("1"), "TIFF"),
        (Image.fromarray(blocks()).convert("P"), "GIF"),
        (Image.fromarray(blocks()).convert("P"), "PNG"),
        (Image.fromarray(blocks()).convert("CMYK"), "TIFF"),
        (Image.fromarray(blocks()).convert("YCbCr"), "TIFF"),
    ],
)
def test_other_layouts_equal_pillows_conversion(picture: Image.Image, kind: str) -> None:
    data = encode(picture, kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, LIMITS).pixels, expected)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")]
)
def test_transparency_shows_white_paper(mode: str, kind: str) -> None:
    picture = Image.fromarray(blocks()).convert(mode)
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    picture.putalpha(Image.fromarray(alpha))
    pixels = decode(encode(picture, kind, **({"lossless": True} if kind == "WEBP" else {})), LIMITS).pixels
    assert (pixels[:, :48] == 255).all()
    np.testing.assert_array_equal(pixels[:, 48:], np.asarray(picture.convert("RGB"))[:, 48:])


def test_a_transparent_palette_entry_shows_white_paper() -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.paste(0, (0, 0, 16, 32))
    for kind in ("GIF", "PNG"):
        pixels = decode(encode(picture, kind, transparency=0), LIMITS).pixels
        assert (pixels[:, :16] == 255).all()
        assert (pixels[:, 16:] == (40, 50, 60)).all()


def test_a_half_transparent_pixel_mixes_with_white() -> None:
    pixels = decode(encode(Image.new("RGBA", (20, 20), (0, 100, 200, 128)), "PNG"), LIMITS).pixels
    assert np.abs(pixels.astype(int) - (127, 177, 227)).max() <= 1


RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    pixels = decode(encode(Image.fromarray(RAMP), kind), LIMITS).pixels
    assert np.abs(pixels.astype(int) - (RAMP / 257)[..., None]).max() <= 1


def test_a_sixteen_bit_png_not_written_by_pillow_is_scaled() -> None:
    pixels = decode(_raw_png16(RAMP), LIMITS).pixels
    assert np.abs(pixels.astype(int) - (RAMP / 257)[..., None]).max() <= 1


def test_twelve_bit_samples_use_the_whole_range() -> None:
    samples = (RAMP >> 4).astype(np.uint32).reshape(-1, 2)  # two samples are packed into three bytes
    packed = (samples[:, 0] << 12 | samples[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    tags = [(256, 64), (257, 32), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 32), (279, 3072)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed.tobytes()
    pixels = decode(data, LIMITS).pixels
    assert np.abs(pixels.astype(int) - (RAMP / 257)[..., None]).max() <= 1


def _raw_png16(grey: Any) -> bytes:
    """A 16-bit grey PNG written by hand, so that Pillow's writer is not its own judge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = grey.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (0.0, 65535.0), (-300.0, 1e9)])
def test_float_samples_are_scaled_whatever_their_unit(low: float, high: float) -> None:
    samples = np.tile(np.linspace(low, high, 64, dtype=np.float32), (32, 1))
    samples[0, 0] = np.nan
    pixels = decode(encode(Image.fromarray(samples), "TIFF"), LIMITS).pixels
    expected = np.rint(np.linspace(0, 255, 64))[None, :, None]
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_thirty_two_bit_integers_are_scaled() -> None:
    samples = np.tile(np.linspace(0, 65535, 64).astype(np.int32), (32, 1))
    pixels = decode(encode(Image.fromarray(samples), "TIFF"), LIMITS).pixels
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_lab_is_converted() -> None:
    grey = Image.merge("LAB", [Image.new("L", (20, 20), value) for value in (255, 128, 128)])
    assert decode(encode(grey, "TIFF"), LIMITS).pixels.min() >= 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = (Image.new("RGB", (48, 32), colour) for colour in ((200, 40, 40), (40, 40, 200)))
    data = encode(first, kind, save_all=True, append_images=[second])
    assert np.abs(decode(data, LIMITS).pixels.astype(int) - (200, 40, 40)).max() <= 8


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "HEIF"])
def test_scaled_photos_keep_their_full_size_in_numbers(kind: str, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](blocks(640, 320)))
    limits = DecodeLimits(LIMITS.max_bytes, LIMITS.max_pixels, scale_to_px=160)
    photo = decode(encode(stored, kind, exif=exif(orientation)), limits)
    assert (photo.width, photo.height) == (640, 320)
    assert photo.pixels.shape == (80, 160, 3)
    small = np.asarray(Image.fromarray(blocks(640, 320)).resize((160, 80), Image.Resampling.BOX))
    assert np.abs(photo.pixels.astype(int) - small)[2::4, 2::4].max() <= 30


def test_a_photo_below_the_scale_is_not_enlarged() -> None:
    limits = DecodeLimits(LIMITS.max_bytes, LIMITS.max_pixels, scale_to_px=500)
    assert decode(encode(blocks(), "JPEG"), limits).pixels.shape == (64, 96, 3)


def test_no_bytes_are_refused_as_empty() -> None:
    assert refused(b"") is PhotoReason.EMPTY


def test_limits_on_bytes_and_pixels_and_sides() -> None:
    data = encode(blocks(), "PNG")
    assert refused(data, DecodeLimits(len(data) - 1, 10**6)) is PhotoReason.TOO_MANY_BYTES
    assert refused(data, DecodeLimits(10**6, 96 * 64 - 1)) is PhotoReason.TOO_MANY_PIXELS
    assert refused(data, DecodeLimits(10**6, 10**6, min_side_px=65)) is PhotoReason.TOO_SMALL
    decode(data, DecodeLimits(len(data), 96 * 64, min_side_px=64))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF", "HEIF"]
)
def test_every_format_is_refused_by_its_headers_alone(kind: str) -> None:
    limits = DecodeLimits(10**6, 96 * 64 - 1)
    assert refused(encode(blocks(), kind), limits) is PhotoReason.TOO_MANY_PIXELS


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    assert refused(png + chunk(b"IDAT", zlib.compress(bytes(1000)))) is PhotoReason.TOO_MANY_PIXELS
    assert refused(b"P6 60000 60000 255\n" + bytes(100)) is PhotoReason.TOO_MANY_PIXELS
    webp = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2
    assert refused(webp) is PhotoReason.TOO_MANY_PIXELS
    gif = bytearray(encode(Image.new("P", (20, 20)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    assert refused(bytes(gif)) is PhotoReason.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n", PhotoReason.FORMAT_REFUSED),
        (b"BLP1" + bytes(200), PhotoReason.FORMAT_REFUSED),
        (b"8BPS\0\x01" + bytes(200), PhotoReason.FORMAT_REFUSED),
        (b"%PDF-1.7\n", PhotoReason.FORMAT_REFUSED),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", PhotoReason.FORMAT_REFUSED),
        (b"RIFF\x24\0\0\0WAVEfmt ", PhotoReason.FORMAT_REFUSED),
        (b"hello, this is no photo", PhotoReason.FORMAT_UNKNOWN),
        (b"\0", PhotoReason.FORMAT_UNKNOWN),
    ],
)
def test_what_is_not_decoded_says_so(data: bytes, reason: PhotoReason) -> None:
    assert refused(data) is reason


def _samples() -> dict[str, bytes]:
    random = np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return {
        **{kind: encode(random, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM")},
        "GIF": encode(Image.fromarray(random).convert("P"), "GIF"),
        "AVIF": encode(random, "AVIF", speed=10),
        "HEIF": encode(random, "HEIF"),
        "progressive": encode(random, "JPEG", progressive=True),
    }


SAMPLES = _samples()


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_cut_photo_is_refused_never_half_grey(kind: str) -> None:
    whole = SAMPLES[kind]
    expected = decode(whole, LIMITS).pixels
    cuts = sorted({len(whole) * part // 40 for part in range(1, 40)} | {len(whole) - 60, len(whole) - 200})
    reasons = set()
    for cut in cuts:
        try:
            photo = decode(whole[:cut], LIMITS)
        except PhotoRejected as error:
            reasons.add(error.reason)
        else:  # what was cut off held no pixels
            np.testing.assert_array_equal(photo.pixels, expected)
    assert PhotoReason.TRUNCATED in reasons
    assert reasons <= {
        PhotoReason.TRUNCATED,
        PhotoReason.CORRUPT,
        PhotoReason.FORMAT_UNKNOWN,
        PhotoReason.TOO_SMALL,
    }


def test_a_jpeg_without_its_last_bytes_is_truncated() -> None:
    for cut in (1, 2, 3, 10, 500):
        assert refused(SAMPLES["JPEG"][:-cut]) is PhotoReason.TRUNCATED
        assert refused(SAMPLES["progressive"][:-cut]) is PhotoReason.TRUNCATED


def decodes_or_refuses(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            photo = decode(data, DecodeLimits(10**6, 10**6))
        except PhotoRejected:
            return
    assert photo.pixels.shape == (photo.height, photo.width, 3)
    assert photo.pixels.size <= 3 * 10**6


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_are_refused_by_type(data: bytes) -> None:
    decodes_or_refuses(data)


@given(
    st.sampled_from(sorted(set(SAMPLES) - {"AVIF", "HEIF"})),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_photos_decode_or_are_refused_by_type(kind: str, edits: list[tuple[float, int]]) -> None:
    data = bytearray(SAMPLES[kind])
    for place, value in edits:
        data[int(place**2 * (len(data) - 1))] = value  # squared: headers are hit more often
    decodes_or_refuses(bytes(data))


@pytest.mark.parametrize("stray", [b"\0\0\0", b"\xff\xff"])
def test_stray_bytes_between_the_segments_of_a_jpeg_cost_no_photo(stray: bytes) -> None:
    data = encode(blocks(), "JPEG")
    at = data.index(b"\xff\xdb")
    odd = data[:at] + stray + data[at:]
    np.testing.assert_array_equal(decode(odd, LIMITS).pixels, decode(data, LIMITS).pixels)


def test_an_upright_photo_agrees_with_pillows_transpose() -> None:
    for orientation in range(1, 9):
        data = encode(blocks(), "PNG", exif=exif(orientation))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(decode(data, LIMITS).pixels, expected)


def test_limits_come_from_the_settings() -> None:
    limits = DecodeLimits.from_settings(WorkerSettings(max_photo_bytes=2048, max_photo_pixels=20_000))
    assert (limits.max_bytes, limits.max_pixels, limits.scale_to_px) == (2048, 20_000, 0)


def test_media_types_are_those_of_the_formats() -> None:
    assert {kind.value for kind in PhotoFormat} >= {"image/jpeg", "image/png", "image/heif"}
