"""Approximate and served peers of the exact index: faiss's HNSW, and a real Milvus server's FLAT and HNSW."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import psutil
from pymilvus import DataType, MilvusClient

from benchmarks.search_scale import K, Subject
from benchmarks.search_timing import alternate, anonymous_bytes, say
from homeward.types import Float32
from tests.servers.milvus import Milvus, milvus

M, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128
_HNSW: dict[str, Any] = {"index_type": "HNSW", "params": {"M": M, "efConstruction": EF_CONSTRUCTION}}
_BATCHES = (1, 64)
_RECALL_PROBES = 256
_INSERT_ROWS = 10_000
_INDEX_S = 4 * 3600.0
_CONSISTENCY = "Eventually"  # the fastest that Milvus offers

Ids = npt.NDArray[np.int64]
Find = Callable[[Float32], Ids]  # (p, d) probes -> (p, K) row numbers


def measure_peers(subject: Subject, budget_s: float) -> dict[str, dict[str, object]]:
    """Each peer over the subject's rows, in turns with ours; recall is of the exact K nearest rows."""
    probes = subject.batch(0, _RECALL_PROBES)
    nearest: Ids = subject.flat.search(probes, K)[1]
    found: dict[str, dict[str, object]] = {}

    def measure(key: str, name: str, find: Find, more: dict[str, object]) -> None:
        say(f"searching {name}")
        found[key] = {
            "name": name,
            "rows": len(subject.columns),
            "recall": recall(nearest, np.concatenate([find(one) for one in np.array_split(probes, 4)])),
            "batches": {str(batch): _turns(subject, find, batch, budget_s) for batch in _BATCHES},
            **more,
        }

    measure("faiss_hnsw", "faiss HNSW", *_faiss_hnsw(subject))
    with milvus() as server:
        for key, name, index in (
            ("milvus_flat", "Milvus FLAT", {"index_type": "FLAT", "params": {}}),
            ("milvus_hnsw", "Milvus HNSW", _HNSW),
        ):
            with _collection(server, subject.columns.template, key, index) as (find, built):
                measure(key, name, find, built | {"consistency": _CONSISTENCY, "over": "gRPC on loopback"})
    return found


def recall(nearest: Ids, found: Ids) -> float:
    """Share of the nearest rows (p, k) that are among those found (p, k)."""
    hits = [len(set(a) & set(b)) for a, b in zip(nearest.tolist(), found.tolist(), strict=True)]
    return sum(hits) / nearest.size


def _turns(subject: Subject, find: Find, batch: int, budget_s: float) -> dict[str, float]:
    sides = {
        "ours": subject.sides(batch)["ours"],
        "peer": lambda number: find(subject.batch(number, batch)),
    }
    times = alternate(sides, calls=5 if batch == 1 else 1, budget_s=budget_s)
    return {
        "latency_ms": times["peer"].ms,
        "ours_ms": times["ours"].ms,
        "speedup": times["peer"].ms / times["ours"].ms,
        "probes_per_s": 1e3 * batch / times["peer"].ms,
    }


def _faiss_hnsw(subject: Subject) -> tuple[Find, dict[str, object]]:
    rows = subject.columns.template
    say(f"building faiss HNSW of {len(rows):,} rows")
    before, started = anonymous_bytes(), time.perf_counter()
    graph = faiss.IndexHNSWFlat(rows.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    for start in range(0, len(rows), 50_000):
        graph.add(rows[start : start + 50_000])
        say(f"faiss HNSW: {graph.ntotal:,} rows")
    build_s = time.perf_counter() - started
    graph.hnsw.efSearch = EF_SEARCH
    return lambda probes: np.asarray(graph.search(probes, K)[1]), {
        "build_s": build_s,
        "bytes_per_row": (anonymous_bytes() - before) / len(rows),
        "parameters": {"M": M, "efConstruction": EF_CONSTRUCTION, "efSearch": EF_SEARCH},
    }


@contextmanager
def _collection(
    server: Milvus, rows: Float32, name: str, index: dict[str, Any]
) -> Iterator[tuple[Find, dict[str, object]]]:
    """The rows in a collection of the server: number and vector, nothing else."""
    say(f"{name}: writing {len(rows):,} rows")
    client = MilvusClient(uri=f"http://127.0.0.1:{server.port}", timeout=120.0)
    before, started = _resident_bytes(server), time.perf_counter()
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("number", DataType.INT64, is_primary=True)
    schema.add_field("template", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    client.create_collection(name, schema=schema)
    for start in range(0, len(rows), _INSERT_ROWS):
        some = rows[start : start + _INSERT_ROWS]
        client.insert(name, [{"number": number, "template": row} for number, row in enumerate(some, start)])
    client.flush(name, timeout=600.0)
    written_s = time.perf_counter() - started
    say(f"{name}: building the index")
    asked = MilvusClient.prepare_index_params()
    asked.add_index("template", index_name="template", metric_type="IP", **index)
    client.create_index(name, asked, timeout=_INDEX_S)
    _wait_for_index(client, name, len(rows))
    client.load_collection(name, timeout=600.0)
    build_s = time.perf_counter() - started
    search: dict[str, Any] = {"metric_type": "IP", "params": {"ef": EF_SEARCH} if index["params"] else {}}

    def find(probes: Float32) -> Ids:
        answers = client.search(
            name, data=list(probes), anns_field="template", limit=K, search_params=search,
            consistency_level=_CONSISTENCY,
        )  # fmt: skip
        return np.array([[hit["id"] for hit in hits] for hits in answers], np.int64)

    try:
        yield (
            find,
            {
                "build_s": build_s,
                "written_s": written_s,
                "bytes_per_row": (_resident_bytes(server) - before) / len(rows),
                "parameters": {**index["params"], **search["params"]},
            },
        )
    finally:
        client.drop_collection(name)
        client.close()


def _wait_for_index(client: MilvusClient, name: str, rows: int) -> None:
    """Return when the index holds all rows; raise `TimeoutError` otherwise."""
    end = time.monotonic() + _INDEX_S
    while time.monotonic() < end:
        state: dict[str, Any] = client.describe_index(name, "template")
        if int(state["indexed_rows"]) >= rows and not int(state["pending_index_rows"]):
            return
        time.sleep(1.0)
    raise TimeoutError(f"Milvus has not indexed {rows} rows within {_INDEX_S:.0f} s")


def _resident_bytes(server: Milvus) -> int:
    """Of the server's processes: what it needs for the rows and all that it does beside them."""
    whole = psutil.Process(server.server.pid)
    return sum(each.memory_info().rss for each in (whole, *whole.children(recursive=True)))
