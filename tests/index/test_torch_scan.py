"""The scan on a torch device ("cpu" here) against the reference, in every history a shard can have."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeward.types import FaceRow, Filter, Query
from index import reference, scan, torch_sieve
from index.columns import Bool, UInt64, from_rows, id_words
from index.encode import decode_row
from index.merge import merge
from index.origins import FilterTables, filter_tables
from index.placement import SLOTS, slot_of
from index.probe_codes import encode_probes
from index.scan import Batch, stacked
from index.shard import Shard
from index.synthetic import unit_rows
from index.torch_mirror import Mirror, photo_words
from index.torch_scan import TorchScan
from index.torch_sieve import kth_of_each
from index.view import View
from tests.index.random_rows import World, crowded, hex_id, photo_id
from tests.index.test_shard import _SHAPES, Model
from tests.index.worse_shown import LOST, check_worse_shown

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_REPOSITORY = Path(__file__).parents[2]


class Devices:
    """Puts a `TorchScan` in the place of the compiled scan."""

    def __init__(self) -> None:
        self.now = TorchScan(DEVICE)
        self.scans = 0

    def bounded(
        self, view: View, batch: Batch, tables: FilterTables, *_: object, **__: object
    ) -> tuple[Any, Any]:
        """As `index.scan._bounded`."""
        self.scans += 1
        return self.now.bounded(view, batch, tables)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    found = Devices()
    monkeypatch.setattr(scan, "_bounded", found.bounded)
    yield found
    assert found.scans


def _differ(devices: Devices, seed: int, steps: int) -> int:
    """One random history, checked at every step; returns the number of queries compared."""
    with pytest.MonkeyPatch.context() as patch:
        chance = Random(seed)
        first = chance.choice((64, 512))  # rows that all pass: of few, others do not
        patch.setattr(torch_sieve, "_FIRST_ROWS", (first, max(first, chance.choice((64, 16_384)))))
        return _compared(devices, chance, steps)


def _compared(devices: Devices, chance: Random, steps: int) -> int:
    world = World(
        chance,
        dimension=chance.choice((1, 2, 8, 33)),
        records=chance.choice((1, 3, 12, 60)),
        faces=chance.choice((5, 40, 200)),
        templates=chance.choice((1, 3, 12, 40)),
    )
    devices.now = TorchScan(DEVICE, memory=chance.choice((1, 10_000, 1 << 20)))
    model = Model(world.dimension)
    index = Shard(world.dimension, block_rows=chance.choice((1, 2, 5, 16, 64, 300)))
    compared = 0
    start = world.rows(chance.choice((0, 5, 60, 300)))
    index.upsert(start)
    model.rows.update({row.face_id: row for row in start})
    for _ in range(steps):
        queries = [world.query() for _ in range(chance.choice((1, 4, 9)))]
        model.check(index, queries)
        _check_slots(index, model, queries, chance)
        compared += 2 * len(queries)
        model.change(index, world)
    index.close()
    return compared


def _check_slots(index: Shard, model: Model, queries: list[Query], chance: Random) -> None:
    """The parts of some slots and of the others together say what the rows say."""
    some: Bool = np.random.default_rng(chance.randrange(2**32)).random(SLOTS) < chance.choice((0.1, 0.5))
    columns = from_rows(list(model.rows.values()), model.dimension)
    ones, rev = index.parts(queries, some)
    others, _ = index.parts(queries, ~some)
    for query, one, other in zip(queries, ones, others, strict=True):
        wanted = replace(reference.search(query, columns, rev=rev), method="exact")
        assert merge([one, other], query, rev=rev, method="exact") == wanted
        assert all(some[slot_of(candidate.record_id)] for candidate in one.plausible)


@given(st.integers(0, 2**63))
@_EXAMPLES
def test_every_answer_equals_the_reference_after_every_change(devices: Devices, seed: int) -> None:
    _differ(devices, seed, steps=4)


@pytest.mark.prove
def test_exactness_of_the_device_over_ten_thousand_random_searches(devices: Devices) -> None:
    compared, seed = 0, 70_000
    while compared < 12_000:
        compared += _differ(devices, seed, steps=12)
        seed += 1


def test_many_rows_of_real_size_equal_the_reference(devices: Devices) -> None:
    generator = np.random.default_rng(5)
    mean = generator.standard_normal(128) * 0.5
    templates = unit_rows(mean + generator.standard_normal((9_000, 128)) * 0.3)
    templates[5_000:6_000] = templates[:1_000]  # whole runs of exact ties
    rows = _rows(templates, 2_000)
    index = Shard(128, block_rows=3_000)
    index.upsert(rows)
    index.apply(delete_faces=[(row.record_id, row.face_id) for row in rows[1::3]])
    columns = from_rows([row for number, row in enumerate(rows) if number % 3 != 1], 128)
    queries = [Query(templates[start : start + width], k) for start, width, k in _SHAPES]
    wanted = [replace(reference.search(query, columns), method="exact") for query in queries]
    assert index.search_many(queries) == wanted


@pytest.mark.parametrize("lost", LOST)
def test_a_row_that_codes_show_as_worse_than_it_is_is_found(
    lost: str, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_sieve, "_FIRST_ROWS", (64, 64))
    with closing(Shard(64)) as index:
        check_worse_shown(index, lost)


def test_one_record_with_every_best_row_does_not_hide_the_others(devices: Devices) -> None:
    template = World(Random(1)).pool()
    rows = crowded(3_000)
    index = Shard(8, block_rows=64)
    index.upsert(rows)
    wanted = reference.search(Query(template[:1], k=4), from_rows(rows, 8))
    assert index.search(Query(template[:1], k=4)).candidates == wanted.candidates


def test_it_keeps_as_few_rows_as_the_compiled_scan() -> None:
    generator = np.random.default_rng(8)
    templates = unit_rows(generator.standard_normal(128) + generator.standard_normal((30_000, 128)) * 0.3)
    index = Shard(128, block_rows=7_000)
    index.upsert(_rows(templates, 20_000))
    queries = [Query(templates[start : start + 2], k) for start, k in ((0, 10), (50, 1), (999, 100))]
    batch, tables = _batch(index, queries)
    compiled, _ = scan._bounded(index._view, batch, tables, 512, threads=1, run=index._run_all)
    found, _ = TorchScan(DEVICE).bounded(index._view, batch, tables)
    for one, other in zip(found, compiled, strict=True):
        assert len(one[0]) <= len(other[0]) + 2
        assert set(one[0].tolist()) >= set(other[0].tolist()[:1])


def test_readers_of_older_states_and_a_writer_share_the_device(devices: Devices) -> None:
    """Rows are killed, written and moved while searches run: each sees one state, whole."""
    pool = World(Random(2), templates=12).pool()
    blank = World(Random(2)).row(0)
    record = hex_id("record", 1)

    def state(number: int) -> list[FaceRow]:
        faces = [hex_id("face", number % 2 * 100 + one) for one in range(9)]
        return [
            replace(blank, face_id=face, record_id=record, ordinal=number, template=pool[one])
            for one, face in enumerate(faces)
        ]

    index = Shard(8, block_rows=16)
    index.replace_record(record, state(0), rev=0)
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            found = index.search(Query(pool[:2], k=2, evidence=100))
            evidence = found.candidates[0].evidence
            if {each.ordinal for each in evidence} != {found.rev} or len(evidence) != 9:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 150):
        index.replace_record(record, state(number), rev=number)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_an_older_state_is_searched_after_a_newer_one() -> None:
    world = World(Random(9), records=40, templates=40)
    rows = world.distinct_rows(200)
    index = Shard(8, block_rows=64)
    index.upsert(rows)
    device = TorchScan(DEVICE)
    queries = [Query(world.pool()[number : number + 1], 50) for number in range(5)]
    with index._readers.reading():  # keeps what is deleted from being overwritten
        views = [index._view]
        for row in rows[:60:7]:
            index.delete_record(row.record_id)
            index.upsert([replace(world.row(0), face_id=hex_id("new", len(views)))])
            views.append(index._view)
        for view in (views[-1], views[0], views[4], views[-1], views[1]):
            batch = Batch(queries, encode_probes(stacked(queries)[0]), stacked(queries)[1], [_NONE] * 5)
            tables = filter_tables(queries, view.origins)
            found, _ = device.bounded(view, batch, tables)
            compiled, _ = scan._bounded(view, batch, tables, 512, threads=1, run=index._run_all)
            for one, other in zip(found, compiled, strict=True):
                assert sorted(one[0].tolist()) == sorted(other[0].tolist())


def test_the_device_holds_the_codes_of_live_rows_and_of_no_others() -> None:
    world = World(Random(4), records=60, templates=40)
    rows = world.distinct_rows(300)
    index = Shard(8, block_rows=64)
    index.upsert(rows)
    mirror = Mirror(torch.device(DEVICE))
    for number in range(0, 60, 3):
        _check_codes(index, mirror)
        index.delete_record(hex_id("record", number))
        index.delete_record(hex_id("record", number + 1))
    _check_codes(index, mirror)
    for number in range(60):
        index.delete_record(hex_id("record", number))
    index.tidy()
    mirror.follow(index._view)
    assert all(not slab.codes.any() for slab in mirror._slabs)


def test_unchanged_blocks_are_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Random(4), records=60)
    index = Shard(8, block_rows=64)
    index.upsert(world.distinct_rows(300))
    mirror = Mirror(torch.device(DEVICE))
    mirror.follow(index._view)
    sent: list[int] = []
    moved = mirror._moved

    def watched(array: npt.NDArray[Any]) -> torch.Tensor:
        sent.append(array.nbytes)
        return moved(array)

    monkeypatch.setattr(mirror, "_moved", watched)
    mirror.follow(index._view)
    assert not sent
    index.upsert([replace(world.row(5), face_id=hex_id("late", 1), record_id=hex_id("late", 1))])
    mirror.follow(index._view)
    assert 0 < sum(sent) < 20 * 64


def test_photos_that_agree_in_their_first_bits_are_told_apart(devices: Devices) -> None:
    world = World(Random(6))
    twin = photo_id(1)[:40] + photo_id(2)[40:]
    rows = [
        replace(row, photo_sha256=twin if at % 2 else photo_id(1))
        for at, row in enumerate(world.distinct_rows(40))
    ]
    words: UInt64 = id_words([twin, photo_id(1)], 4)
    assert len(set(photo_words(words[:, 0]).tolist())) == 1
    index = Shard(8)
    index.upsert(rows)
    query = Query(world.pool()[:1], 5, without_photos=frozenset({twin}))
    wanted = replace(reference.search(query, from_rows(rows, 8)), method="exact")
    assert index.search(query) == wanted


def test_an_empty_index_and_a_filter_that_lets_nothing_through(devices: Devices) -> None:
    world = World(Random(7))
    index = Shard(8)
    assert not index.search(Query(world.pool()[:1], 3)).candidates
    index.upsert(world.distinct_rows(20))
    found = index.search(Query(world.pool()[:1], 3, Filter(agencies=frozenset({99}))))
    assert (found.candidates, found.rows_searched, found.records_searched) == ((), 0, 0)
    assert devices.now.memory_bytes() > 20 * 16


def test_the_kth_value_of_each_query() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 7.0, -torch.inf, 5.0], dtype=torch.float64)
    queries = torch.tensor([0, 0, 0, 2, 2, 2])
    found = kth_of_each(values, queries, torch.tensor([2, 1, 3, 1]))
    assert found.tolist() == [2.0, -torch.inf, -torch.inf, -torch.inf]


@pytest.mark.parametrize("case", ["interpreted", "compiled"])
def test_the_fused_kernel(case: str) -> None:
    """In a process of its own: Triton reads how it is to run when it is imported."""
    pytest.importorskip("triton")
    interpret = {"TRITON_INTERPRET": "1"} if case == "interpreted" else {}
    done = subprocess.run(
        [sys.executable, "-m", "tests.index.triton_cases", case],
        cwd=_REPOSITORY,
        env={**os.environ, **interpret},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


_NONE = np.empty(0, np.int64)


def _rows(templates: np.ndarray, records: int) -> list[FaceRow]:
    chance = Random(5)
    blank = World(Random(6), records=records, templates=1).row(0)
    return [
        replace(
            blank,
            face_id=hex_id("face", number),
            record_id=hex_id("record", chance.randrange(records)),
            template=template,
        )
        for number, template in enumerate(templates)
    ]


def _batch(index: Shard, queries: list[Query]) -> tuple[Batch, FilterTables]:
    templates, query_of = stacked(queries)
    batch = Batch(queries, encode_probes(templates), query_of, [_NONE] * len(queries))
    return batch, filter_tables(queries, index._view.origins)


def _check_codes(index: Shard, mirror: Mirror) -> None:
    view = index._view
    lying = {}
    for stretch in mirror.follow(view):
        for at, member in enumerate(stretch.members):
            lying[member] = stretch.slab.codes[stretch.slots.start + at].cpu().numpy()
    for member, block in enumerate(view.blocks):
        codes: Any = block.held[0]
        for row in range(len(lying[member])):
            live = row < len(block) and block.flags[row] & 1
            wanted = decode_row(codes, row, 8) if live else np.zeros(8)
            assert (lying[member][row, :8] == wanted).all()
