"""Finds bytes of a child in any file of a folder, also where a column format has compressed them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homeward.types import Float32

_CHUNK = 32  # any 64 consecutive bytes of a photo hold one of its aligned chunks of 32


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file's bytes, and again as columns or uncompressed where it can be read so."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        yield path, raw
        if path.suffix == ".parquet":
            yield from ((path, column) for column in _columns(path))
        elif raw[:2] == b"\x1f\x8b":
            try:
                yield path, gzip.decompress(raw)
            except (OSError, EOFError, zlib.error):
                continue


def files_with_photo(folder: Path, photo: bytes) -> set[Path]:
    """Files that hold 64 consecutive bytes of the photo."""
    chunks = [photo[at : at + _CHUNK] for at in range(0, len(photo) - _CHUNK + 1, _CHUNK)]
    return {path for path, data in contents(folder) if any(chunk in data for chunk in chunks)}


def files_with_template(folder: Path, template: Float32) -> set[Path]:
    """Files that hold the template as float32 or float64, or half of it."""
    half = len(template) // 2
    wanted = [
        part.astype(kind).tobytes()
        for part in (template[:half], template[half:])
        for kind in (np.float32, np.float64)
    ]
    return {path for path, data in contents(folder) if any(one in data for one in wanted)}


def _columns(path: Path) -> Iterator[bytes]:
    table = pq.read_table(path, memory_map=False)
    for column in table.columns:
        for chunk in column.chunks:
            yield b"".join(buffer.to_pybytes() for buffer in _buffers(chunk))


def _buffers(array: pa.Array) -> list[pa.Buffer]:
    return [buffer for buffer in array.buffers() if buffer is not None]
