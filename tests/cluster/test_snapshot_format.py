"""A pack comes back bit for bit or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.snapshot_format import (
    GROUP_SLOTS,
    GROUPS,
    HEAD_BYTES,
    Pack,
    check_model,
    decode,
    encode,
    group_slots,
    read_head,
)
from homeward.errors import Corrupt, InvalidInput
from index.columns import COLUMN_NAMES, Columns, empty
from index.placement import SLOTS


def make_pack(seed: int = 0, rows: int = 20, dimension: int = 8, group: int = 5) -> Pack:
    """A pack whose every byte is chance, NaNs and infinities among the templates."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(GROUP_SLOTS, size=int(generator.integers(1, GROUP_SLOTS + 1)), replace=False)
    slots = np.zeros(SLOTS, np.bool_)
    slots[group * GROUP_SLOTS + chosen] = True
    arrays = {}
    for field in fields(Columns):
        like = getattr(empty(dimension, rows), field.name)
        arrays[field.name] = np.frombuffer(generator.bytes(like.nbytes), like.dtype).reshape(like.shape)
    wanted = generator.choice(np.flatnonzero(slots), rows).astype(np.uint64)
    record = arrays["record"].copy()
    record[:, 0] = record[:, 0] >> np.uint64(12) | wanted << np.uint64(52)
    arrays["record"] = record
    return Pack(group, slots, int(generator.integers(0, 2**50)), Columns(**arrays), "model é", dimension)


def same(one: Pack, other: Pack) -> bool:
    return (
        (one.group, one.rev, one.model_id, one.dimension)
        == (other.group, other.rev, other.model_id, other.dimension)
        and np.array_equal(one.slots, other.slots)
        and all(
            getattr(one.columns, name).tobytes() == getattr(other.columns, name).tobytes()
            and getattr(one.columns, name).dtype == getattr(other.columns, name).dtype
            and getattr(one.columns, name).shape == getattr(other.columns, name).shape
            for name in COLUMN_NAMES
        )
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(0, 40), st.sampled_from([1, 8, 128, 512]), st.integers(0, GROUPS - 1)
)
def test_a_pack_comes_back_bit_for_bit(seed: int, rows: int, dimension: int, group: int) -> None:
    pack = make_pack(seed, rows, dimension, group)
    data = encode(pack)
    back = decode(data, pack.model_id, dimension)
    assert same(back, pack)
    assert encode(back) == data
    head = read_head(data[:HEAD_BYTES])
    assert (head.group, head.rev, head.rows, head.dimension) == (group, pack.rev, rows, dimension)
    assert np.array_equal(head.slots, pack.slots)
    back.columns.template[:] = 0  # its arrays are its own


def test_columns_may_lie_in_memory_as_they_like() -> None:
    pack = make_pack(rows=30)
    apart = pack.columns.take(slice(None, None, 3))
    assert same(decode(encode(replace(pack, columns=apart))), replace(pack, columns=apart))


PACK = make_pack()
DATA = encode(PACK)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_byte_can_change(at: int, change: int) -> None:
    altered = bytearray(DATA)
    altered[at] ^= change
    with pytest.raises(Corrupt):
        decode(bytes(altered))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_nothing_can_be_cut_off(length: int) -> None:
    with pytest.raises(Corrupt):
        decode(DATA[:length])


def forged(change: dict[str, Any], body: bytes | None = None, line: bytes | None = None) -> bytes:
    """A pack with another second line, or other columns, whose checksums fit."""
    _, second, held = DATA.split(b"\n", 2)
    held = held if body is None else body
    said = {**json.loads(second), "bytes": len(held), "sha256": hashlib.sha256(held).hexdigest(), **change}
    line = line or json.dumps(said).encode()
    return b"homeward-snapshot 1 %s\n%s\n%s" % (hashlib.sha256(line).hexdigest().encode(), line, held)


def npy(shape: str, order: str = "False") -> bytes:
    """A column that says so of itself, and 64 bytes."""
    header = f"{{'descr': '<u8', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


def arrays(**other: np.ndarray[Any, Any]) -> bytes:
    """The bytes of the columns with some of them replaced."""
    body = BytesIO()
    for name in COLUMN_NAMES:
        np.save(body, other.get(name, getattr(PACK.columns, name)), allow_pickle=True)
    return body.getvalue()


SECOND = DATA.index(b"\n") + 1
BODY = DATA.index(b"\n", SECOND) + 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "does not begin"),
        (b"{}" * 20_000, "does not begin"),
        (b"PK\x03\x04" + DATA, "does not begin"),
        (DATA.replace(b"snapshot 1 ", b"snapshot 2 ", 1), "has format 2; this Homeward reads 1"),
        (DATA[: SECOND + 10], "cut off in its second line"),
        (DATA.replace(b'"rev": ', b'"rev":  ', 1), "second line does not have its checksum"),
        (DATA[:-3], f"cut off: {len(DATA) - BODY - 3} bytes of columns, not {len(DATA) - BODY}"),
        (DATA + b"x", "too long"),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), "columns do not have their checksum"),
        (forged({"group": 64}), "second line makes no sense"),
        (forged({"slots": "zz"}), "second line makes no sense"),
        (forged({"rows": None}), "second line makes no sense"),
        (forged({"rows": 19}), "20 rows, not 19"),
        (forged({"rev": -1}), "out of range"),
        (forged({"dimension": 9}), "column 'template' is float32"),
        (forged({"slots": "0" * 15 + "1"}), "rows of other slots"),
        (forged({}, b""), "column 'face' cannot be read"),
        (forged({}, arrays(sex=np.array([print], object))), "column 'sex' cannot be read"),
        (forged({}, arrays(sex=PACK.columns.sex.astype(np.int64))), "column 'sex' is int64"),
        (forged({}, arrays(place=PACK.columns.place[:5])), "column 'place' is int32"),
        (forged({}, arrays() + b"more"), "more columns"),
        (forged({}, b"PK\x05\x06" + bytes(18)), "column 'face' cannot be read"),
        (forged({}, b"PK\x03\x04" + bytes(18)), "column 'face' cannot be read"),
        (forged({}, npy("(68719476736, 2)")), "column 'face' cannot be read"),
        (forged({}, npy("(1180591620717411303424, 2)")), "column 'face' cannot be read"),
        (forged({}, npy("(2, 2)", order="True")), "column 'face' cannot be read"),
        (forged({}, npy("(2, " + "(" * 200)), "column 'face' cannot be read"),
        (forged({}, npy('"""')), "column 'face' cannot be read"),
        (forged({"dimension": -1}), "have -1 components"),
        (forged({"dimension": 2**63}), "components"),
        (forged({"rows": float("inf")}), "second line makes no sense"),
        (forged({}, line=b"[" * 15_000), "second line makes no sense"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, text: str) -> None:
    with pytest.raises(Corrupt) as caught:
        decode(data)
    assert text in caught.value.message
    assert caught.value.code == "SNAPSHOT_CORRUPT"


def test_other_models_are_refused() -> None:
    decode(DATA, PACK.model_id, 8)
    with pytest.raises(Corrupt, match="it is of model 'model é', not 'another'"):
        decode(DATA, "another", 8)
    with pytest.raises(Corrupt, match="its templates have 8 components, not 128"):
        decode(DATA, PACK.model_id, 128)
    check_model(read_head(DATA), None, None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"group": 6}, "is not in group 6"),
        ({"group": GROUPS}, "out of range"),
        ({"rev": -1}, "out of range"),
        ({"slots": np.zeros(SLOTS, np.bool_)}, "rows of other slots"),
        ({"slots": np.ones(64, np.bool_)}, "out of range"),
        ({"dimension": 9}, "column 'template'"),
        ({"columns": replace(PACK.columns, sex=PACK.columns.sex[:3])}, "column 'sex'"),
        ({"model_id": "m" * HEAD_BYTES}, "id is too long"),
    ],
)
def test_a_pack_that_contradicts_itself_is_not_written(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        encode(replace(PACK, **change))


def test_groups_are_all_slots() -> None:
    covered = np.zeros(SLOTS, np.int64)
    for group in range(GROUPS):
        covered[group_slots(group)] += 1
    assert (covered == 1).all()
