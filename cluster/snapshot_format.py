"""The bytes of a snapshot's pack: two lines of text that say what it is, then its columns.

    homeward-snapshot 1 <SHA-256 of the second line>
    {"model_id": ..., "rows": ..., "bytes": <of the columns>, "sha256": <of the columns>, ...}
    one array after the other in numpy's .npy format, in the order of `index.columns.COLUMN_NAMES`

So every byte is under a checksum, and the first `HEAD_BYTES` of a pack are enough to know what it holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from homeward.errors import Corrupt, InvalidInput
from index.columns import COLUMN_NAMES, Bool, Columns, empty
from index.placement import SLOTS, slots_of

FORMAT = 1
GROUP_SLOTS = 64
GROUPS = SLOTS // GROUP_SLOTS
HEAD_BYTES = 16_384  # the two lines have fewer

_MAGIC = b"homeward-snapshot "
_FIRST = re.compile(rb"homeward-snapshot (\d{1,9}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class PackHead:
    """What a pack says of itself."""

    model_id: str
    dimension: int
    group: int
    slots: Bool  # (SLOTS,)
    rev: int
    rows: int


@dataclass(frozen=True, slots=True)
class Pack:
    """All rows of some slots of one group, such that whoever applies the changes after `rev` has them as
    they are. It may contain later changes too."""

    group: int  # slots 64 group .. 64 group + 63
    slots: Bool  # (SLOTS,)
    rev: int  # of the catalogue
    columns: Columns
    model_id: str
    dimension: int


_DIMENSION_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class _Parsed:
    head: PackHead
    start: int  # of the columns
    size: int
    sha256: str


def group_slots(group: int) -> slice:
    """The slots of a group."""
    return slice(group * GROUP_SLOTS, (group + 1) * GROUP_SLOTS)


def encode(pack: Pack) -> bytes:
    """The pack's bytes. Raises `InvalidInput` on one that contradicts itself."""
    problem = _problem(pack)
    if problem:
        raise InvalidInput(f"no pack for a snapshot: {problem}", code="SNAPSHOT_INVALID")
    body = [part for name in COLUMN_NAMES for part in _npy(getattr(pack.columns, name))]
    checksum = hashlib.sha256()
    for part in body:
        checksum.update(part)
    second = json.dumps(
        {
            "model_id": pack.model_id,
            "dimension": pack.dimension,
            "group": pack.group,
            "slots": np.packbits(pack.slots[group_slots(pack.group)]).tobytes().hex(),
            "rev": pack.rev,
            "rows": len(pack.columns),
            "bytes": sum(len(part) for part in body),
            "sha256": checksum.hexdigest(),
        }
    ).encode()
    first = b"%s%d %s" % (_MAGIC, FORMAT, hashlib.sha256(second).hexdigest().encode())
    if len(first) + len(second) + 2 > HEAD_BYTES:
        raise InvalidInput("no pack for a snapshot: the model's id is too long", code="SNAPSHOT_INVALID")
    return b"".join((first, b"\n", second, b"\n", *body))


def read_head(data: bytes) -> PackHead:
    """What a pack is, from its first `HEAD_BYTES`. Raises `Corrupt`."""
    return _parse(data).head


def decode(data: bytes, model_id: str | None = None, dimension: int | None = None) -> Pack:
    """The pack of these bytes, whose arrays are its own. Raises `Corrupt` if they are not exactly what
    `encode` gave, or of another model or dimension than the given ones."""
    parsed = _parse(data)
    head = parsed.head
    check_model(head, model_id, dimension)
    held = memoryview(data)[parsed.start :]
    if len(held) != parsed.size:
        what = "cut off" if len(held) < parsed.size else "too long"
        raise _corrupt(f"it is {what}: {len(held)} bytes of columns, not {parsed.size}")
    if hashlib.sha256(held).hexdigest() != parsed.sha256:
        raise _corrupt("its columns do not have their checksum")
    columns = _columns(data, parsed.start)
    pack = Pack(head.group, head.slots, head.rev, columns, head.model_id, head.dimension)
    problem = _problem(pack)
    if problem or len(columns) != head.rows:
        raise _corrupt(problem or f"it has {len(columns)} rows, not {head.rows}")
    return pack


def check_model(head: PackHead, model_id: str | None, dimension: int | None) -> None:
    """Raise `Corrupt` if the pack is of another model or dimension than the given ones."""
    if model_id is not None and head.model_id != model_id:
        raise _corrupt(f"it is of model {head.model_id!r}, not {model_id!r}")
    if dimension is not None and head.dimension != dimension:
        raise _corrupt(f"its templates have {head.dimension} components, not {dimension}")


def _parse(data: bytes) -> _Parsed:
    end = data.find(b"\n", 0, HEAD_BYTES)
    first = _FIRST.fullmatch(data[:end]) if end >= 0 else None
    if first is None:
        raise _corrupt("it does not begin as one does")
    if int(first[1]) != FORMAT:
        raise _corrupt(f"it has format {int(first[1])}; this Homeward reads {FORMAT}")
    stop = data.find(b"\n", end + 1, HEAD_BYTES)
    if stop < 0:
        raise _corrupt("it is cut off in its second line")
    second = data[end + 1 : stop]
    if hashlib.sha256(second).hexdigest().encode() != first[2]:
        raise _corrupt("its second line does not have its checksum")
    try:
        said = json.loads(second)
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(said["slots"]), np.uint8))
        slots = np.zeros(SLOTS, np.bool_)
        slots[group_slots(said["group"])] = bits
        numbers = [int(said[name]) for name in ("dimension", "group", "rev", "rows", "bytes")]
        head = PackHead(str(said["model_id"]), numbers[0], numbers[1], slots, numbers[2], numbers[3])
        parsed = _Parsed(head, stop + 1, numbers[4], str(said["sha256"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _corrupt(f"its second line makes no sense ({type(error).__name__})") from error
    if not 1 <= head.dimension <= _DIMENSION_MAX:
        raise _corrupt(f"its templates have {head.dimension} components")
    return parsed


def _npy(array: npt.NDArray[Any]) -> tuple[bytes, memoryview]:
    """What `numpy.save` writes, without copying the array's bytes."""
    whole = np.ascontiguousarray(array)
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(whole))
    return head.getvalue(), whole.reshape(-1).view(np.uint8).data


def _columns(data: bytes, start: int) -> Columns:
    body = BytesIO(data)  # shares the bytes
    body.seek(start)
    arrays = []
    for name in COLUMN_NAMES:
        try:
            arrays.append(_read_npy(body, len(data)))
        except Exception as error:
            raise _corrupt(f"its column {name!r} cannot be read ({type(error).__name__})") from error
    if body.read(1):
        raise _corrupt("it has more columns than a row of the index")
    return Columns(*arrays)


def _read_npy(body: BytesIO, total: int) -> npt.NDArray[Any]:
    """What `_npy` wrote. (`numpy.load` makes room for whatever a header asks for, bytes or none.)"""
    if np.lib.format.read_magic(body) != (1, 0):
        raise ValueError("version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(body)
    size = math.prod(shape) * dtype.itemsize
    if is_fortran or dtype.hasobject or size > total - body.tell():
        raise ValueError("shape or type")
    room = bytearray(size)
    body.readinto(room)
    return np.frombuffer(room, dtype).reshape(shape)


def _problem(pack: Pack) -> str:
    """How a pack contradicts itself; "" if it does not."""
    if not 0 <= pack.group < GROUPS or pack.rev < 0 or pack.slots.shape != (SLOTS,):
        return f"group {pack.group}, rev {pack.rev} or its slots are out of range"
    outside = pack.slots.copy()
    outside[group_slots(pack.group)] = False
    if outside.any():
        return f"slot {int(outside.argmax())} is not in group {pack.group}"
    count = len(pack.columns.face)
    model = empty(pack.dimension)
    for name in COLUMN_NAMES:
        array, like = getattr(pack.columns, name), getattr(model, name)
        if array.dtype != like.dtype or array.shape != (count, *like.shape[1:]):
            return f"its column {name!r} is {array.dtype} {array.shape}"
    if not pack.slots[slots_of(pack.columns.record)].all():
        return "it has rows of other slots"
    return ""


def _corrupt(what: str) -> Corrupt:
    return Corrupt(f"a snapshot cannot be read: {what}", code="SNAPSHOT_CORRUPT")
