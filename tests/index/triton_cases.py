"""Cases of the fused kernel, for a process of its own: `python -m tests.index.triton_cases interpreted`.

"interpreted" (with TRITON_INTERPRET=1) runs the kernels on the CPU beside plain torch; "compiled" builds them
for a GPU that need not be there.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import torch

from benchmarks import gpu_kernels, gpu_rescore
from homeward.types import Query
from index import triton_scan
from index.origins import filter_tables
from index.probe_codes import encode_probes
from index.scan import Batch, stacked
from index.shard import Shard
from index.torch_product import ProbePieces, ProductSift
from index.torch_scan import TorchScan
from index.torch_sieve import Part, Sieve, Wanted
from tests.index.random_rows import World

_CPU = torch.device("cpu")


def interpreted() -> None:
    """What the kernels find is what plain torch finds."""
    gpu_rescore.check(_CPU, rows=256)
    _blocks_and_kinds()
    _more_than_fits()
    _whole_searches()


def _part(blocks: int, rows: int, probes: int, kinds: int, seed: int = 1) -> tuple[Part, ProbePieces]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((probes, 20), generator=generator)
    drawn = (drawn.double() / drawn.double().norm(dim=1, keepdim=True)).float()
    coded = encode_probes(drawn.numpy())
    shape = (blocks, rows)
    part = Part(
        bases=torch.arange(blocks) << 32,
        first=0,
        codes=torch.randint(-127, 128, (*shape, 32), generator=generator, dtype=torch.int8),
        scales=torch.rand(shape, generator=generator) * 1e-3,
        errors=torch.rand(shape, generator=generator) * 1e-2,
        starts=torch.arange(rows, dtype=torch.int32).expand(shape),
        offsets=torch.rand((blocks, probes), generator=generator).double(),
        slack=torch.full((blocks, probes), 1e-6, dtype=torch.float64),
        allowed=torch.rand((kinds, *shape), generator=generator) < 0.5,
        speaks=None,
    )
    return part, ProbePieces(coded, _CPU)


def _blocks_and_kinds() -> None:
    """Thresholds of several blocks, masks of several kinds of query, pieces of a part."""
    for blocks, rows, probes, kinds in ((3, 64, 2, 2), (2, 128, 20, 3)):
        part, pieces = _part(blocks, rows, probes, kinds)
        kind_of = torch.arange(probes) % kinds
        for some in (part, part.cut(slice(1, 2), slice(0, 64))):
            least = torch.linspace(0.0, 0.04, some.blocks * probes).reshape(some.blocks, probes)
            one = triton_scan.FusedSift(pieces, 1 << 20)(some, kind_of, least)
            other = ProductSift(pieces, 1 << 20)(some, kind_of, least)
            assert one is not None
            assert _pairs(one) == _pairs(other)
            assert len(other[0])


def _more_than_fits() -> None:
    """A part of which more rows are found than there is room for is taken in pieces; nothing is lost."""
    part, pieces = _part(2, 256, 3, 1)
    wanted = Wanted(
        query_of=torch.tensor([0, 0, 1]),
        kind_of=torch.zeros(3, dtype=torch.int64),
        ks=torch.tensor([5, 400]),
        floors=torch.full((2,), -torch.inf, dtype=torch.float64),
        left_out=(torch.empty(0, dtype=torch.int64),) * 2,
    )
    found = []
    for sift in (triton_scan.FusedSift(pieces, 4096, room=300), ProductSift(pieces, 1 << 20)):
        sieve = Sieve(sift, wanted)
        sieve.take(part)
        left = sieve.left()
        found.append((left.queries.tolist(), left.rows.tolist()))
    assert found[0] == found[1]


def _whole_searches() -> None:
    """The whole scan with the fused kernel chooses what it chooses without."""
    world = World(Random(11), records=30, templates=30)
    index = Shard(8, block_rows=64)
    index.upsert(world.distinct_rows(150))
    queries = [world.query() for _ in range(6)]
    templates, query_of = stacked(queries)
    view, left_out = index._state(queries, None)
    batch = Batch(queries, encode_probes(templates), query_of, left_out)
    tables = filter_tables(queries, view.origins)
    one, counts = TorchScan("cpu", fused=True).bounded(view, batch, tables)
    other, wanted = TorchScan("cpu").bounded(view, batch, tables)
    assert (counts == wanted).all()
    for mine, plain in zip(one, other, strict=True):
        assert [column.tolist() for column in mine] == [column.tolist() for column in plain]
    assert sum(len(mine[0]) for mine in one)
    assert isinstance(queries[0], Query)


def _pairs(found: Any) -> set[tuple[int, int]]:
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def compiled() -> None:
    """Both kernels become machine code for an H100."""
    import triton
    from triton.backends.compiler import GPUTarget

    pointers = dict.fromkeys(("codes", "pieces"), "*i8") | dict.fromkeys(("kind_of", "counter"), "*i64")
    pointers |= dict.fromkeys(("found_rows", "found_probes"), "*i32") | {"allowed": "*u8"}
    pointers |= dict.fromkeys(("scales", "errors", "units", "least", "found_upper"), "*fp32")
    numbers = dict.fromkeys(("rows", "probes", "width", "block_rows", "room"), "i32")
    for tile, warps in ((16, 4), (64, 8)):
        fixed = {"tile_rows": 128, "tile_probes": tile, "step": 128}
        _compile(triton, GPUTarget, triton_scan.sift_kernel, pointers | numbers, fixed, warps)
    kinds = {"rows": "*fp32", "probes": "*fp32", "probe_of": "*i64", "found": "*fp64"}
    kinds |= {"count": "i32", "dimension": "i32"}
    _compile(triton, GPUTarget, gpu_kernels.ordered_kernel, kinds, {"tile": 128}, 4)


def _compile(
    triton: Any, target: Any, kernel: Any, kinds: dict[str, str], fixed: dict[str, int], warps: int
) -> None:
    names = list(kernel.arg_names)
    signature = {name: kinds.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in fixed.items()}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    built = triton.compile(source, target=target("cuda", 90, 32), options={"num_warps": warps})
    assert built.asm["cubin"]


if __name__ == "__main__":
    {"interpreted": interpreted, "compiled": compiled}[sys.argv[1]]()
