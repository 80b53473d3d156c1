"""The innermost step of a scan: 64 rows' codes against one probe, as LLVM instructions.

Codes are unsigned bytes (code + 128) in groups of 16 rows: the four bytes of components 4j..4j+3 of the 16
rows lie side by side, 64 bytes per j. A probe is two signed bytes per component (w = 128 h + l). So one
instruction that multiplies unsigned by signed bytes and adds four of them to a 32-bit lane (VPDPBUSD,
AVX512-VNNI; Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2) serves 16 rows at once,
every lane is a row, and nothing is ever summed across lanes. All of it is integer arithmetic: exact.

Processors without the instruction get the same arithmetic in plain vector operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from index.probe_codes import COMPONENT_STEP

GROUP = 16  # rows whose bytes are interleaved
TILE = 64  # rows of one kernel call: four groups

_config: Any = numba.config
_GROUPS = TILE // GROUP
_UNROLL = COMPONENT_STEP // 4

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_I32, 16), ir.VectorType(_F32, 16)
_DOT = "llvm.x86.avx512.vpdpbusd.512"


def has_byte_dot() -> bool:
    """Whether this processor multiplies and adds bytes in one instruction, and numba compiles for it: it can
    be told another one (NUMBA_CPU_NAME)."""
    if _config.CPU_NAME or _config.CPU_FEATURES:
        return False
    features = llvmlite.binding.get_host_cpu_features()
    return bool(features.get("avx512f") and features.get("avx512vnni"))


def _ints(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * 16)


def _spread(builder: ir.IRBuilder, scalar: Any, kind: ir.VectorType) -> Any:
    """The scalar in all 16 lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, nothing, _ints(0))


def _dot_instruction(builder: ir.IRBuilder, total: Any, rows: Any, four: Any) -> Any:
    kind = ir.FunctionType(_INTS, [_INTS] * 3)
    dot = cgutils.get_or_insert_function(builder.module, kind, _DOT)
    return builder.call(dot, [total, rows, _spread(builder, four, _INTS)])


def _dot_portable(builder: ir.IRBuilder, total: Any, rows: Any, four: Any) -> Any:
    for byte in range(4):
        codes = builder.and_(builder.lshr(rows, _ints(8 * byte)), _ints(255))
        # Shifted up and down again: the byte with its sign.
        high = builder.shl(four, ir.Constant(_I32, 24 - 8 * byte))
        component = builder.ashr(high, ir.Constant(_I32, 24))
        total = builder.add(total, builder.mul(codes, _spread(builder, component, _INTS)))
    return total


def _bound(dot: Any) -> Any:
    """The intrinsic around one way of multiplying; see `bounds` for what it does."""

    def bounds(
        _context: Any,
        codes: Any,
        scales: Any,
        errors: Any,
        probe: Any,
        quads: Any,
        unit: Any,
        biases: Any,
        leasts: Any,
        centres: Any,
    ) -> Any:
        word, single = types.int64, types.float32
        two_words, two_singles = types.UniTuple(types.int32, 2), types.UniTuple(single, 2)
        signature = types.uint64(word, word, word, word, word, single, two_words, two_singles, word)

        def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
            return _generate(builder, dot, *given)

        return signature, generate

    return intrinsic(bounds)


def _generate(
    builder: Any,
    dot: Any,
    codes: Any,
    scales: Any,
    errors: Any,
    probe: Any,
    quads: Any,
    unit: Any,
    biases: Any,
    leasts: Any,
    centres: Any,
) -> Any:
    def number(value: int) -> ir.Constant:
        return ir.Constant(_I64, value)

    def pointer(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def load(base: Any, index: Any) -> Any:
        value = builder.load(builder.gep(base, [index]))
        value.align = 4
        return value

    stride = builder.mul(quads, number(TILE))  # bytes of one group's codes
    rows = [pointer(builder.add(codes, builder.mul(stride, number(g))), _INTS) for g in range(_GROUPS)]
    units = _spread(builder, unit, _FLOATS)

    def products(piece: int) -> list[Any]:
        """Each group's products with one of the probe's pieces. Two sums for each: an addition has to wait
        for the one before."""
        words = pointer(builder.add(probe, builder.mul(quads, number(4 * piece))), _I32)
        sums = [[cgutils.alloca_once(builder, _INTS) for _ in range(2)] for _ in range(_GROUPS)]
        for group in sums:
            for one in group:
                builder.store(_ints(0), one)
        with cgutils.for_range(builder, builder.sdiv(quads, number(_UNROLL)), intp=_I64) as loop:
            for step in range(_UNROLL):
                at = builder.add(builder.mul(loop.index, number(_UNROLL)), number(step))
                four = load(words, at)
                for g in range(_GROUPS):
                    place = sums[g][step % 2]
                    builder.store(dot(builder, builder.load(place), load(rows[g], at), four), place)
        return [builder.add(builder.load(one), builder.load(two)) for one, two in sums]

    def centre(whole: Any, which: int, group: int) -> Any:
        off = _spread(builder, builder.extract_value(biases, which), _INTS)
        known = builder.sitofp(builder.sub(whole, off), _FLOATS)
        return builder.fmul(builder.fmul(known, units), load(pointer(scales, _FLOATS), number(group)))

    def reaching(middle: Any, which: int, group: int) -> Any:
        """Bits of the group's rows that may reach the threshold."""
        upper = builder.fadd(middle, load(pointer(errors, _FLOATS), number(group)))
        least = _spread(builder, builder.extract_value(leasts, which), _FLOATS)
        return builder.zext(builder.bitcast(builder.fcmp_ordered(">=", upper, least), _I16), _I64)

    found = cgutils.alloca_once_value(builder, number(0))
    high = [builder.shl(one, _ints(7)) for one in products(0)]
    roughly: Any = number(0)
    for g in range(_GROUPS):
        roughly = builder.or_(roughly, reaching(centre(high[g], 0, g), 0, g))
    with builder.if_then(builder.icmp_unsigned("!=", roughly, number(0)), likely=False):
        bits: Any = number(0)
        for g, low in enumerate(products(1)):
            middle = centre(builder.add(high[g], low), 1, g)
            kept = builder.store(middle, builder.gep(pointer(centres, _FLOATS), [number(g)]))
            kept.align = 4
            bits = builder.or_(bits, builder.shl(reaching(middle, 1, g), number(16 * g)))
        builder.store(bits, found)
    return builder.load(found)


# bounds(codes, scales, errors, probe, quads, unit, biases, leasts, centres) -> bits of the 64 rows whose
# centre + error >= leasts[1]. All but numbers and pairs are addresses: of the tile's codes, its float32
# scales and errors, the probe's two pieces (4 * quads bytes each), and room for the 64 float32 centres,
# unit * scale * (128 h.c + l.c - biases[1]), where the bias takes the codes' + 128 back out (modulo 2^32).
# At first it looks at the high piece alone: where no row's unit * scale * (128 h.c - biases[0]) + error
# reaches leasts[0], which makes up for the low piece, it finds none and writes no centre.
bounds_portable: Any = _bound(_dot_portable)
bounds: Any = _bound(_dot_instruction) if has_byte_dot() else bounds_portable


def _cast(_context: Any, _address: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        return builder.inttoptr(given[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def _take(_context: Any, _address: Any, _count: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        place = builder.inttoptr(given[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, given[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


def _fetch(_context: Any, _address: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _I32, _I32, _I32])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        to_read, keep, data = (ir.Constant(_I32, value) for value in (0, 3, 1))
        builder.call(hint, [builder.inttoptr(given[0], cgutils.voidptr_t), to_read, keep, data])
        return ir.Constant(_I64, 0)

    return types.int64(types.int64), generate


def _trailing(_context: Any, _bits: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        return builder.cttz(given[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def _packed(_context: Any, _bytes: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        kind = ir.VectorType(ir.IntType(8), TILE)
        values = builder.load(builder.inttoptr(given[0], kind.as_pointer()))
        values.align = 1
        return builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(kind, [0] * TILE)), _I64)

    return types.uint64(types.int64), generate


def _population(_context: Any, _bits: Any) -> Any:
    def generate(_target: Any, builder: ir.IRBuilder, _signature: Any, given: Sequence[Any]) -> Any:
        return builder.ctpop(given[0])

    return types.uint64(types.uint64), generate


array_at: Any = vars(numba)["carray"]  # (pointer, shape, dtype) as an array
at_address: Any = intrinsic(_cast)  # an int64 address as a pointer, for `numba.carray`
take: Any = intrinsic(
    _take
)  # (address of an int64, count) -> its value before the count was added, atomically
fetch: Any = intrinsic(_fetch)  # have the cache line at this address brought near; any address will do
lowest_bit: Any = intrinsic(_trailing)  # number of the lowest set bit; undefined for 0
packed: Any = intrinsic(_packed)  # (address of 64 bytes) -> bits of those that are not 0
bit_count: Any = intrinsic(_population)  # set bits
