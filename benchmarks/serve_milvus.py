"""The same searches sent straight to Milvus, as those do who use it alone: FLAT (exact), and HNSW."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymilvus import AsyncMilvusClient, DataType, MilvusClient

from benchmarks.reporting import say
from benchmarks.serve_clients import K, percentiles
from homeward.types import Float32

M, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128
CONSISTENCIES = ("Bounded", "Strong")  # what Milvus does unless told, and what shows every write
_INSERT_ROWS = 10_000
_INDEX_S = 4 * 3600.0
_LOAD_S = 600.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection to search: its number or id field, and what a search needs beside the metric."""

    uri: str
    name: str
    rows: int
    returned: str  # field that a caller wants back
    params: dict[str, int]


async def search(
    collection: Collection, templates: Float32, clients: int, budget_s: float, consistency: str
) -> dict[str, object]:
    """Search by as many clients, each with a connection of its own, that each wait for their answer."""
    probes = [one.tolist() for one in templates]
    seconds: list[float] = []
    await asyncio.to_thread(_load, collection)
    # Two searches each do not count: Milvus is slow when it has had nothing to do.
    await _searches(collection, probes[: 2 * clients], clients, _TIMEOUT_S, consistency, [])
    started = time.perf_counter()
    await _searches(collection, _endless(probes), clients, budget_s, consistency, seconds)
    wall_s = time.perf_counter() - started
    return {
        "searches": len(seconds),
        "per_s": len(seconds) / wall_s,
        **percentiles(seconds),
        "consistency": consistency,
    }


async def recall(collection: Collection, rows: Float32, templates: Float32) -> float:
    """Share of the K nearest rows that the collection of numbered rows finds."""
    hits = 0
    client = AsyncMilvusClient(uri=collection.uri, timeout=_TIMEOUT_S)
    try:
        for template in templates:
            products = rows @ template
            nearest = set(np.argpartition(-products, K)[:K].tolist())
            found = await _one(client, collection, template.tolist(), "Bounded")
            hits += len(nearest & {int(hit["id"]) for hit in found})
    finally:
        await client.close()
    return hits / (K * len(templates))


@contextmanager
def hnsw(uri: str, rows: Float32) -> Iterator[tuple[Collection, dict[str, object]]]:
    """The rows, numbered and indexed by HNSW, in a collection of their own that goes at the end; and how
    long it took to build."""
    client = MilvusClient(uri=uri, timeout=_TIMEOUT_S)
    name = f"hnsw_{len(rows)}"
    say(f"Milvus HNSW: writing {len(rows):,} rows")
    started = time.perf_counter()
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("number", DataType.INT64, is_primary=True)
    schema.add_field("template", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    client.create_collection(name, schema=schema)
    try:
        for start in range(0, len(rows), _INSERT_ROWS):
            some = rows[start : start + _INSERT_ROWS]
            client.insert(
                name, [{"number": number, "template": row} for number, row in enumerate(some, start)]
            )
        client.flush(name, timeout=_LOAD_S)
        say("Milvus HNSW: building the index")
        asked = MilvusClient.prepare_index_params()
        asked.add_index(
            "template",
            index_name="template",
            metric_type="IP",
            index_type="HNSW",
            params={"M": M, "efConstruction": EF_CONSTRUCTION},
        )
        client.create_index(name, asked, timeout=_INDEX_S)
        _wait_for_index(client, name, len(rows), _INDEX_S)
        client.load_collection(name, timeout=_LOAD_S)
        build_s = time.perf_counter() - started
        parameters = {"M": M, "efConstruction": EF_CONSTRUCTION, "efSearch": EF_SEARCH}
        yield (
            Collection(uri, name, len(rows), "number", {"ef": EF_SEARCH}),
            {"build_s": build_s, "parameters": parameters},
        )
    finally:
        client.drop_collection(name)
        client.close()


def _wait_for_index(client: MilvusClient, name: str, rows: int, timeout_s: float) -> None:
    """Return when the index on `template` holds so many rows; raise `TimeoutError` otherwise."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        state: dict[str, Any] = client.describe_index(name, "template")
        if int(state["indexed_rows"]) >= rows and not int(state["pending_index_rows"]):
            return
        time.sleep(1.0)
    raise TimeoutError(f"Milvus has not indexed {rows} rows within {timeout_s:.0f} s")


def _load(collection: Collection) -> None:
    """After a start Milvus refuses searches until the collection is in memory again."""
    client = MilvusClient(uri=collection.uri, timeout=_TIMEOUT_S)
    try:
        client.load_collection(collection.name, timeout=_LOAD_S)
        _wait_for_index(client, collection.name, collection.rows, _LOAD_S)
    finally:
        client.close()


def _endless(probes: list[list[float]]) -> Iterator[list[float]]:
    while True:
        yield from probes


async def _searches(
    collection: Collection,
    probes: Any,
    clients: int,
    budget_s: float,
    consistency: str,
    seconds: list[float],
) -> None:
    waiting = iter(probes)
    end = time.perf_counter() + budget_s

    async def client() -> None:
        own = AsyncMilvusClient(uri=collection.uri, timeout=_TIMEOUT_S)
        try:
            while (started := time.perf_counter()) < end and (probe := next(waiting, None)) is not None:
                await _one(own, collection, probe, consistency)
                seconds.append(time.perf_counter() - started)
        finally:
            await own.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def _one(
    client: AsyncMilvusClient, collection: Collection, probe: list[float], consistency: str
) -> list[dict[str, Any]]:
    answers = await client.search(
        collection.name,
        data=[probe],
        anns_field="template",
        limit=K,
        output_fields=[collection.returned],
        search_params={"metric_type": "IP", "params": collection.params},
        consistency_level=consistency,
    )
    found: list[dict[str, Any]] = answers[0]
    if len(found) != K:
        raise RuntimeError(f"Milvus found {len(found)} rows, not {K}")
    return found
