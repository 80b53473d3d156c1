"""How far apart the same picture's hashes are, and how near those of different pictures.

    .venv/bin/python -m benchmarks.pictures --json FILE

All portraits of lfw_dev.tar, london and canada. `same` gives for each way to save a photo anew the most bits
by which its hash moved, and how many of the tried photos stayed within the limit of `cluster.load.picture`;
`different` the bits between the closest photos of different people and of one person. `milliseconds` is
the time of one hash by side length.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.reporting import say, surroundings
from cluster.load.picture import SAME_PICTURE_BITS, bits_apart, picture_hash
from homeward.types import UInt8

_TRIED = 450
_ROWS = 256  # hashes compared with all others at a time
_SHOWN = 5
_SIDES = (250, 1024, 2048)
_REPEATS = 20


@dataclass(frozen=True, slots=True)
class _Portrait:
    person: str
    name: str
    pixels: UInt8


def _portraits(photos: Path) -> Iterator[_Portrait]:
    with tarfile.open(photos / "lfw_dev.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                yield _Portrait(member.name.split("/")[-2], member.name, _pixels(file.read()))
    for folder in ("london", "canada"):
        for path in sorted((photos / folder).rglob("*.jp*g")):
            name = str(path.relative_to(photos))
            yield _Portrait(str(path.parent), name, _pixels(path.read_bytes()))


def _pixels(photo: bytes) -> UInt8:
    with Image.open(io.BytesIO(photo)) as image:
        return np.asarray(image.convert("RGB"))


def _saved(image: Image.Image, kind: str, quality: int) -> UInt8:
    stream = io.BytesIO()
    image.save(stream, kind, quality=quality)
    return _pixels(stream.getvalue())


def _scaled(image: Image.Image, factor: float) -> UInt8:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def _cut(image: Image.Image, share: float) -> UInt8:
    x, y = max(1, round(image.width * share)), max(1, round(image.height * share))
    return np.asarray(image.crop((x, y, image.width - x, image.height - y)))


_WAYS: dict[str, Callable[[Image.Image], UInt8]] = {
    **{f"JPEG of quality {q}": lambda image, q=q: _saved(image, "JPEG", q) for q in (30, 50, 75, 95)},  # type: ignore[misc]
    "WebP of quality 80": lambda image: _saved(image, "WEBP", 80),
    **{f"scaled by {f}": lambda image, f=f: _scaled(image, f) for f in (0.25, 0.5, 2.0)},  # type: ignore[misc]
    "brightened by 15 %": lambda image: np.asarray(ImageEnhance.Brightness(image).enhance(1.15)),
    "1 % cut off at every side": lambda image: _cut(image, 0.01),
}


def _same(portraits: list[_Portrait], hashes: list[bytes]) -> dict[str, dict[str, int]]:
    step = max(1, len(portraits) // _TRIED)
    tried = [(one, hashed) for one, hashed in zip(portraits, hashes, strict=True) if hashed][::step]
    found = {}
    for name, way in _WAYS.items():
        moved = [bits_apart(picture_hash(way(Image.fromarray(one.pixels))), was) for one, was in tried]
        within = sum(bits <= SAME_PICTURE_BITS for bits in moved)
        found[name] = {"photos": len(moved), "most_bits": max(moved), "within_limit": within}
    return found


def _different(portraits: list[_Portrait], hashes: list[bytes]) -> dict[str, Any]:
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    people = np.unique([one.person for one in portraits], return_inverse=True)[1]
    closest: dict[bool, list[int]] = {True: [], False: []}
    for begin in range(0, len(portraits), _ROWS):
        rows = slice(begin, begin + _ROWS)
        apart = ((bits.shape[1] - signs[rows] @ signs.T) / 2).astype(np.int32)
        later = np.arange(len(portraits)) > np.arange(len(portraits))[rows, None]
        one_person = people[rows, None] == people
        for same in (True, False):
            counted = np.where(later & (one_person == same), apart, bits.shape[1])
            closest[same] += np.sort(counted, axis=None)[:_SHOWN].tolist()
    return {
        "pairs": len(portraits) * (len(portraits) - 1) // 2,
        "closest_of_different_people": sorted(closest[False])[:_SHOWN],
        "closest_of_one_person": sorted(closest[True])[:_SHOWN],
    }


def _milliseconds(portrait: _Portrait) -> dict[int, float]:
    found = {}
    for side in _SIDES:
        pixels = np.asarray(Image.fromarray(portrait.pixels).resize((side, side)))
        picture_hash(pixels)
        begun = time.perf_counter()
        for _ in range(_REPEATS):
            picture_hash(pixels)
        found[side] = 1e3 * (time.perf_counter() - begun) / _REPEATS
    return found


def main() -> int:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    options = parser.parse_args()
    before = machine()
    say("hashing all portraits")
    portraits, hashes = [], []
    for portrait in _portraits(shared_photos()):
        hashed = picture_hash(portrait.pixels)
        if hashed:
            portraits.append(portrait)
            hashes.append(hashed)
    say("saving some anew")
    same = _same(portraits, hashes)
    say("comparing all pairs")
    figures = {
        "benchmark": "pictures",
        "photos": len(portraits),
        "limit_bits": SAME_PICTURE_BITS,
        "same": same,
        "different": _different(portraits, hashes),
        "milliseconds": _milliseconds(portraits[0]),
    }
    write_json(options.json, figures | surroundings(before))
    most = max(way["most_bits"] for way in same.values())
    closest = figures["different"]["closest_of_different_people"]  # type: ignore[index]
    print(f"pictures: saved anew at most {most} bits apart; of different people the closest are {closest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
