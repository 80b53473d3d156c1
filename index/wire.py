"""How ids and templates lie in the bytes of an internal message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from homeward.errors import Corrupt, InvalidInput
from homeward.types import Float32
from index.columns import UInt64


def read_templates(raw: bytes, count: int, dimension: int) -> Float32:
    """(count, dimension) from little-endian float32. Raises `InvalidInput`."""
    if len(raw) != 4 * count * dimension:
        raise wrong("templates", f"{count} of {dimension} components, not {len(raw)} bytes")
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(count, dimension)


def bytes_of(words: UInt64) -> bytes:
    """The bytes of id words (n, w), most significant first."""
    return words.astype(">u8").tobytes()


def read_words(raw: bytes, words: int, field: str) -> UInt64:
    """(n, words) from the bytes of ids. Raises `InvalidInput`."""
    if len(raw) % (8 * words):
        raise wrong(field, f"{8 * words} bytes each")
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(-1, words)


def read_hex(raw: bytes, size: int, field: str) -> list[str]:
    """As hex each id of `size` bytes. Raises `InvalidInput`."""
    if len(raw) % size:
        raise wrong(field, f"{size} bytes each")
    text = raw.hex()
    return [text[start : start + 2 * size] for start in range(0, len(text), 2 * size)]


def read_id(raw: bytes, field: str, size: int = 16) -> str:
    """One id as hex. Raises `InvalidInput`."""
    if len(raw) != size:
        raise wrong(field, f"{size} bytes, not {len(raw)}")
    return raw.hex()


def read_count(value: int, field: str) -> int:
    """The number, if it is none below 0. Raises `InvalidInput`."""
    if value < 0:
        raise wrong(field, f"not negative, as {value} is")
    return value


def wrong(field: str, expected: str) -> InvalidInput:
    """What a message says wrongly."""
    return InvalidInput(f"{field}: expected {expected}", code="MESSAGE_INVALID", field=field)


@contextmanager
def answered() -> Iterator[None]:
    """Within it what is wrong is the shard's fault: `Corrupt` in the place of `InvalidInput`."""
    try:
        yield
    except InvalidInput as error:
        raise Corrupt(f"a shard sent {error.message}", code="SHARD_ANSWER_INVALID") from error
