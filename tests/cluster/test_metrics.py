"""What a running Homeward exports is what the chart's dashboards and alerts ask for, and little enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from prometheus_client.metrics_core import Metric

from cluster.load.counters import Progress
from homeward.v1 import search_pb2
from tests.cluster.children import enrolling
from tests.cluster.fakes import MODEL_ID, fake_photo, fake_template
from tests.cluster.load import fast
from tests.cluster.load.archives import as_folder
from tests.cluster.serving import CASE
from tests.cluster.watched import Watched, names, page, watched
from tests.promql import Selector, queries, selectors

# Exported where there is a GPU, which machines of tests have not.
ON_GPUS = {"homeward_gpu_memory_bytes", "homeward_gpu_busy_ratio"}
CHILDREN = 12
SERIES_MAX = 2500  # of one server with three shards' worth of everything


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """After a bit of everything."""
    async with watched(tmp_path_factory.mktemp("watched")) as running:
        client = running.client
        await asyncio.gather(
            *(client.enrol(enrolling(f"child {one}", [fake_photo(f"{one}")])) for one in range(CHILDREN))
        )
        await client.enrol(enrolling("no photo", [b"no photo", fake_photo("nobody", faces=0)]))
        for one in range(CHILDREN):
            await client.found(fake_photo(f"{one}"))
        with pytest.raises(grpc.aio.AioRpcError):
            await client.search.Search(search_pb2.SearchRequest(photo=b"without a case"))
        await asyncio.sleep(0.5)  # the stores are checked meanwhile
        yield running


@pytest.fixture(scope="module")
def of_a_load(tmp_path_factory: pytest.TempPathFactory, server: Watched) -> dict[str, Metric]:
    """The page while a load runs."""
    pages: list[dict[str, Metric]] = []

    class Looking(fast.Silent):
        def show(self, progress: Progress) -> None:
            if progress.counters.rejected and len(pages) < 2:
                pages.append(page(server.address))

    source = tmp_path_factory.mktemp("archive")
    tree = {f"{one}/0.png": fake_photo(f"load {one}") for one in range(12)} | {"0/bad.png": b"no photo"}
    as_folder(tree, source)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("cluster.load.drive._SHOW_S", 0.01)
        world = fast.World(monkeypatch, tmp_path_factory.mktemp("loaded"))
        world.display = Looking()
        world.model.before = lambda _: time.sleep(0.2)
        world.start("march", source)
    assert pages
    return pages[-1]


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_that_is_asked_for_is_exported(
    server: Watched, of_a_load: dict[str, Metric]
) -> None:
    families = await server.page() | {
        name: family for name, family in of_a_load.items() if name.startswith("homeward_load_")
    }
    exported = names(families)
    labels = {name: _labels(families, name) for name in exported}
    for place, query in queries().items():
        asked = selectors(query)
        assert asked, place
        for one in asked:
            if one.metric not in ON_GPUS:
                assert one.metric in exported, f"{place} asks for {one.metric}, which nobody exports"
                _check_labels(one, labels[one.metric], place)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_says_what_happened(server: Watched) -> None:
    families = await server.page()

    def value(name: str, **wanted: str) -> float:
        found = [
            sample.value
            for family in families.values()
            for sample in family.samples
            if sample.name == name and wanted.items() <= sample.labels.items()
        ]
        assert found, f"{name} {wanted}"
        return sum(found)

    search = "rpc /homeward.v1.SearchService/Search"
    assert value("homeward_operation_seconds_count", operation=search, outcome="OK") == CHILDREN
    assert value("homeward_operation_failures_total", operation=search, reason="CASE_REQUIRED") == 1
    assert value("homeward_unused_photos_total", reason="PHOTO_FORMAT_UNKNOWN") == 1
    assert value("homeward_unused_photos_total", reason="NO_FACE") == 1
    assert value("homeward_batch_items_sum", queue="search") == CHILDREN
    assert value("homeward_ready", process="server") == 1
    assert value("homeward_shards", state="up") == 2
    assert value("homeward_slots", state="covered") == 4096
    assert value("homeward_index_slots", state="ready") == 2 * 4096
    assert value("homeward_index_rows", state="ready") == 2 * CHILDREN
    assert value("homeward_embedding_workers", state="up") == 1
    assert value("homeward_store_up") == 3
    assert value("homeward_queue_limit_items", queue="search") > 0
    assert value("homeward_index_lag_seconds") < 60


@pytest.mark.asyncio(loop_scope="module")
async def test_no_label_holds_what_a_caller_wrote(server: Watched, of_a_load: dict[str, Metric]) -> None:
    families = [*(await server.page()).values(), *of_a_load.values()]
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    for secret in (CASE.case_reference, CASE.requester, CASE.purpose, "agency", "child", "march", MODEL_ID):
        assert not any(secret in value for value in values), secret


@pytest.mark.asyncio(loop_scope="module")
async def test_series_do_not_grow_with_calls(server: Watched) -> None:
    async def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        families = await server.page()
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in families.values()
            for sample in family.samples
        }

    async def search(number: int) -> None:
        context = search_pb2.SearchContext(
            case_reference=f"case-{number}", purpose="identification", requester=f"officer {number}"
        )
        values = fake_template(fake_photo(str(number)), 0).tolist()
        template = search_pb2.Template(values=values, model_id=MODEL_ID)
        metadata = (("x-request-id", f"caller-{number}"),)
        await server.client.search.Search(
            search_pb2.SearchRequest(context=context, template=template), metadata=metadata
        )

    before = await series()
    await asyncio.gather(*(search(number) for number in range(40)))
    after = await series()
    assert {name for name, _ in after} == {name for name, _ in before}
    # Whether searches meet in a batch, a shard is asked twice, and how the slower call ends, is chance: a few
    # words of fixed sets. Whatever came of a call would come with each of them.
    assert len(_values(after) - _values(before)) < 10
    assert len(after) < SERIES_MAX


def _values(series: set[tuple[str, tuple[tuple[str, str], ...]]]) -> set[str]:
    return {value for _, labels in series for _, value in labels}


def _labels(families: dict[str, Metric], name: str) -> set[str]:
    found: set[str] = set()
    for family in families.values():
        for sample in family.samples:
            if sample.name == name:
                found |= set(sample.labels)
    return found


def _check_labels(asked: Selector, there: set[str], place: Any) -> None:
    missing = set(asked.labels) - there
    assert not there or not missing, f"{place}: {asked.metric} has no label {missing}"
