"""What a scan reads of the index's blocks, once more in the memory of a torch device.

Blocks of as many rows each share a slab, one behind the other, so that one product takes many of them. Blocks
are only appended to: a row is sent once. What a change replaces instead (flags when rows die, codes when a
block is centred anew) is another array, and is sent again. The codes and the photo of a row that is dead in
the state asked for are zeroed here with the next search: nothing of a deleted child stays on the device. A
search of an older state, in which the row lived, sends it again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homeward.errors import Unavailable
from homeward.types import Float32, UInt8
from index.block import HOT_COLUMNS, BlockView
from index.block_table import CODES, FIRST, FLAGS, LIVE, USED
from index.columns import Bool, Columns, Int32
from index.kernel import GROUP
from index.probe_codes import padded
from index.view import View

_SLAB_BYTES = 1 << 29  # codes of a slab at most, unless one block has more
_SLAB_BLOCKS = 64  # at most

# Columns of 32-bit integers beside the codes; `origin` is slot and origin number, `photo` the low half of the
# photo's first word, `start` the number of the first row of the row's record.
COLUMNS = ("origin", *HOT_COLUMNS, "photo", "start")


class Slab:
    """Room for some blocks of as many rows each."""

    def __init__(self, blocks: int, rows: int, width: int, device: torch.device) -> None:
        def room(kind: torch.dtype, *more: int) -> Tensor:
            return torch.zeros((blocks, rows, *more), dtype=kind, device=device)

        self.blocks = blocks
        self.rows = rows
        self.codes = room(torch.int8, width)
        self.scales = room(torch.float32)
        self.errors = room(torch.float32)
        self.flags = room(torch.uint8)
        self.columns = {name: room(torch.int32) for name in COLUMNS}
        self.free = list(range(blocks))[::-1]

    def memory_bytes(self) -> int:
        """Bytes on the device."""
        tensors = (self.codes, self.scales, self.errors, self.flags, *self.columns.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(slots=True)
class _Held:
    """A block on the device."""

    slab: Slab
    slot: int
    codes: weakref.ref[UInt8]  # the block's own array: when that has gone, so has the block
    flags: UInt8  # the array last sent; another one stands for a change
    sent: int  # rows of it
    there: Bool  # (rows,) whether the device has the row's codes


@dataclass(frozen=True, slots=True)
class Stretch:
    """Blocks of a view that lie one behind the other in a slab."""

    slab: Slab
    slots: slice
    members: Sequence[int]  # their numbers in the view


class Mirror:
    """The blocks of one index on one device. Not thread-safe: its owner lets in one search at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slabs: list[Slab] = []
        self._held: dict[int, _Held] = {}  # by the block's number
        self._last: tuple[npt.NDArray[np.int64], list[Stretch]] | None = None

    def memory_bytes(self) -> int:
        """Bytes on the device."""
        return sum(slab.memory_bytes() for slab in self._slabs)

    def follow(self, view: View) -> list[Stretch]:
        """Make the device hold the blocks as this view has them; where they lie."""
        for number, held in list(self._held.items()):
            if held.codes() is None:
                self._drop(number)
        # The flags last sent are kept alive, so equal addresses are the same arrays: nothing has changed.
        state = view.table[:, (CODES, FLAGS, USED)]
        if self._last is not None and np.array_equal(state, self._last[0]):
            return self._last[1]
        self._last = None
        for block in view.blocks:
            self._send(block, padded(view.dimension))
        found = list(self._stretches(view))
        self._last = state, found
        return found

    def _stretches(self, view: View) -> Iterator[Stretch]:
        slabs = {id(slab): number for number, slab in enumerate(self._slabs)}
        places = []
        for member, block in enumerate(view.blocks):
            held = self._held[block.number]
            places.append((slabs[id(held.slab)], held.slot, member))
        places.sort()
        runs = groupby(enumerate(places), key=lambda one: (one[1][0], one[1][1] - one[0]))
        for _, run in runs:
            mine = [place for _, place in run]
            first, last = mine[0][1], mine[-1][1]
            yield Stretch(self._slabs[mine[0][0]], slice(first, last + 1), [place[2] for place in mine])

    def _send(self, block: BlockView, width: int) -> None:
        codes, scales, errors, origins, hot, _ = cast(_Arrays, block.held)
        held = self._held.get(block.number)
        if held is not None and held.codes() is not codes:
            self._drop(block.number)
            held = None
        if held is None:
            slab = self._slab(len(scales), width)
            held = _Held(slab, slab.free.pop(), weakref.ref(codes), block.flags, 0, np.zeros(0, np.bool_))
            held.there = np.zeros(slab.rows, np.bool_)
            self._held[block.number] = held
        flags = block.flags if block.flags.base is None else cast(UInt8, block.flags.base)
        used = len(block)
        if held.flags is flags and held.sent >= used:
            return
        live = (block.flags & LIVE) != 0
        there = held.there[:used]
        missing = np.flatnonzero(live & ~there)
        slab, slot = held.slab, held.slot
        if missing.size:
            some = slice(int(missing[0]), int(missing[-1]) + 1)
            slab.codes[slot, some] = self._unpacked(codes, some, width)
            slab.scales[slot, some] = self._moved(scales[some])
            slab.errors[slot, some] = self._moved(errors[some])
            columns = {name: column[some] for name, column in hot.items()}
            columns["origin"] = origins[some].view(np.int32)
            columns["photo"] = photo_words(block.columns.photo[some, 0])
            columns["start"] = _starts(block.flags)[some]
            for name, column in columns.items():
                slab.columns[name][slot, some] = self._moved(column)
            there[some] = True
        gone = np.flatnonzero(there & ~live)
        if gone.size:
            self._erase(slab, slot, gone)
            there[gone] = False
        slab.flags[slot, :used] = self._moved(block.flags)
        held.flags, held.sent = flags, used

    def _unpacked(self, codes: UInt8, rows: slice, width: int) -> Tensor:
        """(n, width) int8 of the rows, from groups of rows whose bytes are interleaved, + 128."""
        first, last = rows.start // GROUP, -(-rows.stop // GROUP)
        packed = self._moved(codes[first * GROUP * width : last * GROUP * width])
        plain = packed.view(last - first, width // 4, GROUP, 4).transpose(1, 2).reshape(-1, width)
        skipped = rows.start - first * GROUP
        return (plain[skipped : skipped + rows.stop - rows.start] ^ 128).view(torch.int8)

    def _moved(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _erase(self, slab: Slab, slot: int, rows: npt.NDArray[np.int64] | slice) -> None:
        at = rows if isinstance(rows, slice) else self._moved(rows)
        slab.codes[slot, at] = 0
        slab.columns["photo"][slot, at] = 0

    def _slab(self, rows: int, width: int) -> Slab:
        """One with room for a block of so many rows."""
        for slab in self._slabs:
            if slab.rows == rows and slab.free:
                return slab
        # As many blocks as there are, so that room grows with the index.
        blocks = max(1, min(len(self._held), _SLAB_BLOCKS, _SLAB_BYTES // (rows * width)))
        try:
            self._slabs.append(Slab(blocks, rows, width, self._device))
        except torch.OutOfMemoryError as error:
            raise Unavailable(
                f"{blocks} more blocks of {rows} rows do not fit the memory of {self._device}, where the "
                f"index takes {self.memory_bytes():,} bytes: spread it over more shards",
                code="DEVICE_MEMORY",
            ) from error
        return self._slabs[-1]

    def _drop(self, number: int) -> None:
        held = self._held.pop(number)
        slab = held.slab
        self._erase(slab, held.slot, slice(None))
        slab.flags[held.slot] = 0
        slab.free.append(held.slot)
        self._last = None
        if len(slab.free) == slab.blocks:
            self._slabs.remove(slab)


# What `BlockView.held` is: codes, scales, errors, origins, the hot columns by name, the originals.
_Arrays = tuple[UInt8, Float32, Float32, npt.NDArray[np.uint32], dict[str, Int32], Columns]


def photo_words(words: npt.NDArray[np.uint64]) -> Int32:
    """(n,) the low halves of photos' first words, as the device holds them."""
    low: Int32 = words.astype(np.uint32).view(np.int32)
    return low


def _starts(flags: UInt8) -> Int32:
    """(n,) the number of the first row of each row's record."""
    rows = np.arange(len(flags), dtype=np.int32)
    starts: Int32 = np.maximum.accumulate(np.where(flags & FIRST, rows, 0))
    return starts
