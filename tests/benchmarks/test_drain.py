"""What `benchmarks.drain` calls failed, different, and during a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from benchmarks import drain
from benchmarks.balanced import published, without_retries
from benchmarks.deployment import Deployment, ServerPod
from benchmarks.headless import Headless
from benchmarks.open_loop import Answer, searching
from benchmarks.release import Release
from homeward.v1 import search_pb2
from tests.helm.sites import NATIONAL, site

TEMPLATE = search_pb2.SearchRequest(template=search_pb2.Template(values=[1.0]))
PHOTO = search_pb2.SearchRequest(photo=b"photo")


def answer(*found: tuple[str, float]) -> search_pb2.SearchResponse:
    candidates = [search_pb2.Candidate(record_id=one, comparison_score=score) for one, score in found]
    return search_pb2.SearchResponse(lists=[search_pb2.CandidateList(candidates=candidates)])


def test_lists_by_template_are_equal_and_those_by_photo_almost() -> None:
    requests = [TEMPLATE, PHOTO]

    def differing(request: int, *answers: search_pb2.SearchResponse) -> int:
        return drain._differing([Answer(request, 0.0, 0.0, 1.0, one) for one in answers], requests)

    assert differing(0, answer(("a", 0.5)), answer(("a", 0.5))) == 0
    assert differing(0, answer(("a", 0.5)), answer(("b", 0.5)), answer(("a", 0.5000001))) == 2
    assert differing(1, answer(("a", 0.5)), answer(("b", 0.5000001))) == 0
    assert differing(1, answer(("a", 0.5)), answer(("a", 0.6)), answer()) == 2


def test_failures_are_counted_and_searches_told_apart_by_when_they_ran(tmp_path: Path) -> None:
    release = Release(NATIONAL, site("national"), {}, {}, tmp_path)
    deployment = Deployment(release, Headless("name"), print)
    deployment.starting += [(0.0, 5.0), (0.0, 6.0), (20.0, 30.0)]  # the first two: before anybody searched
    deployment.ending += [(30.0, 40.0)]
    deployment.ended.append(ServerPod(None, None, stop_s=1.5))  # type: ignore[arg-type]
    right = answer(("a", 0.5))
    asked = [Answer(0, at, at, at + 0.5, right) for at in (10.0, 25.0, 35.0, 50.0)]
    asked.append(Answer(0, 36.0, 36.0, 36.1, None, "UNAVAILABLE: gone"))
    found = drain._figures(deployment, asked, asked[:1], [TEMPLATE])
    assert (found["failed"], found["searches"], found["differing"]) == (1, 5, 0)
    assert found["errors"] == {"UNAVAILABLE: gone": 1}
    assert found["without_retries"] == {"searches": 1, "failed": 0, "errors": {}}
    spans = ("outside", "during", "while_one_starts", "while_one_ends")
    assert [found[span]["searches"] for span in spans] == [2, 2, 1, 1]


async def test_every_search_that_was_sent_is_told_with_its_error() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nobody:
        async with searching(nobody, [TEMPLATE], rate=50.0) as asked:
            await asyncio.sleep(0.5)
        assert asked
        assert all(one.response is None and one.error.startswith("UNAVAILABLE") for one in asked)


def test_a_client_without_retries_has_everything_else_of_the_published_config() -> None:
    _, config = published(site("national"))
    assert "retryPolicy" in config
    plain = without_retries(config)
    assert "retryPolicy" not in plain
    assert "round_robin" in plain
    assert "healthCheckConfig" in plain
