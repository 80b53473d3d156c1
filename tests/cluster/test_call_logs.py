"""Logs: what links the stages of a call is there, and nothing of a child, a case or a secret ever is."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from homeward.call_context import REQUEST_ID_KEY
from homeward.v1 import enrolment_pb2, records_pb2, search_pb2
from tests.cluster.children import deletion, enrolling, key
from tests.cluster.fakes import MODEL_ID, fake_photo, fake_template
from tests.cluster.watched import WORKER_TOKEN, Watched, watched

NAME = "Erika Mustermann-Zauber"
REFERENCE = "ref-zauberwald-77"
CASE = search_pb2.SearchContext(
    case_reference="case-nachtigall-5", purpose="identification-of-fledermaus", requester="officer-karamell"
)
SECRETS = (
    NAME, "Zauber", REFERENCE, CASE.case_reference, CASE.purpose, CASE.requester, WORKER_TOKEN, "Bearer",
    "agency-holunder", "reason-brombeere", "place-lindenhof",
)  # fmt: skip


async def test_no_log_holds_what_must_not_be_there(tmp_path: Path) -> None:
    photos = [fake_photo(NAME), fake_photo("two of them", faces=2), b"GIF89a" + NAME.encode() * 9]
    async with watched(tmp_path, level="debug") as server:
        assert await _everything(server, photos)
        for shard in list(server.farm.shards):  # and what goes wrong
            await server.farm.stop(shard)
        await _everything(server, photos)
        server.farm.parts.gallery.close()
        await _everything(server, photos)
        server.lines()
        text = server.logged.getvalue()
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict)
    assert len(text.splitlines()) > 100
    templates = [fake_template(photo, ordinal) for photo in photos[:2] for ordinal in (0, 1)]
    for what in (*SECRETS, *_pieces(photos), *(f"{value:.5f}"[:8] for one in templates for value in one)):
        assert what not in text, what


@pytest.mark.parametrize("given", ["caller-7.A", "", "no good id", "x" * 65])
async def test_one_id_links_server_shards_and_worker(tmp_path: Path, given: str) -> None:
    async with watched(tmp_path) as server:
        await server.client.enrol(enrolling("child", [fake_photo("child")]))
        call = server.client.search.Search(
            search_pb2.SearchRequest(context=CASE, photo=fake_photo("child")),
            metadata=((REQUEST_ID_KEY, given),),
        )
        await call
        used = dict(await call.trailing_metadata())[REQUEST_ID_KEY]
        assert (used == given) == (given == "caller-7.A")
        lines = [line for line in server.lines() if line.get("request_id") == used]
    said = [line["message"] for line in lines]
    assert said.count("rpc /homeward.v1.SearchService/Search") == 1
    assert said.count("rpc /homeward.v1.EmbeddingService/Embed") == 1
    assert said.count("rpc /homeward.v1.ShardService/SearchSlots") >= 1
    mine = next(line for line in lines if line["message"].endswith("Service/Search"))
    assert len(mine["case"]) == 16
    assert {"probe", "scan", "catalogue", "log"} <= set(mine["stages_ms"])


async def test_searches_that_share_a_scan_keep_their_ids(tmp_path: Path) -> None:
    async with watched(tmp_path) as server:
        values = fake_template(fake_photo("child"), 0).tolist()
        request = search_pb2.SearchRequest(
            context=CASE, template=search_pb2.Template(values=values, model_id=MODEL_ID)
        )
        ids = {f"together-{number}" for number in range(20)}
        await asyncio.gather(
            *(server.client.search.Search(request, metadata=((REQUEST_ID_KEY, one),)) for one in ids)
        )
        scans = [line for line in server.lines() if line["message"].endswith("/SearchSlots")]
    asked = {one for line in scans for one in line.get("request_id", "").split(",")}
    assert ids <= asked
    assert len(scans) < 2 * len(ids)  # some were together


async def test_each_item_of_a_stream_has_a_line_of_its_own(tmp_path: Path) -> None:
    async with watched(tmp_path) as server:
        items = [
            search_pb2.SearchStreamRequest(
                client_id=str(number),
                search=search_pb2.SearchRequest(context=CASE, photo=fake_photo("child")),
            )
            for number in range(3)
        ]
        stream = server.client.search.SearchStream(iter(items), metadata=((REQUEST_ID_KEY, "many"),))
        assert len([answer async for answer in stream]) == 3
        lines = [line for line in server.lines() if line["message"] == "search item"]
    assert {line["request_id"] for line in lines} == {"many.0", "many.1", "many.2"}
    assert all(line["case"] for line in lines)


async def test_a_case_has_one_name_on_all_servers_and_after_a_restart(tmp_path: Path) -> None:
    async def named() -> str:
        async with watched(tmp_path) as server:
            await server.client.search.Search(
                search_pb2.SearchRequest(context=CASE, photo=fake_photo("child"))
            )
            (line,) = [line for line in server.lines() if line["message"].endswith("Service/Search")]
            return str(line["case"])

    assert await named() == await named()


def test_a_traceback_says_type_and_place_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    from homeward.log_lines import JsonFormatter, TextFormatter

    try:
        int(NAME)
    except ValueError:
        with caplog.at_level(logging.ERROR):
            logging.getLogger("cluster.test").exception("it failed\nFAKE line")
    (record,) = caplog.records
    for formatter in (JsonFormatter("server"), TextFormatter("server")):
        line = formatter.format(record)
        assert NAME not in line
        assert "ValueError" in line
        assert "test_call_logs.py" in line
        assert "\n" not in line


async def _everything(server: Watched, photos: list[bytes]) -> bool:
    """Calls of all kinds, right and wrong; whether the right ones of them could succeed."""
    client = server.client
    values = fake_template(photos[0], 0).tolist()
    attributes = records_pb2.Attributes(event_place="place-lindenhof")
    child = enrolling(
        NAME,
        photos,
        key=key(REFERENCE, agency="agency-holunder"),
        attributes=attributes,
    )
    answer = await _tried(client.enrol(child))
    record = answer.record.record_id if answer is not None else "0" * 32
    calls: list[Any] = [
        client.search.Search(search_pb2.SearchRequest(context=CASE, photo=photo)) for photo in photos
    ]
    calls += [
        client.search.Search(search_pb2.SearchRequest(context=CASE, record_id=record)),
        client.search.Search(search_pb2.SearchRequest(photo=photos[0])),
        client.search.Search(
            search_pb2.SearchRequest(
                context=CASE, template=search_pb2.Template(values=values, model_id=MODEL_ID)
            )
        ),
        client.search.Search(
            search_pb2.SearchRequest(context=CASE, template=search_pb2.Template(values=values, model_id=NAME))
        ),
        client.search.Compare(search_pb2.CompareRequest(context=CASE, first=photos[0], second=photos[1])),
        client.enrolment.GetRecord(enrolment_pb2.GetRecordRequest(record_id=record)),
        client.enrolment.GetRecord(enrolment_pb2.GetRecordRequest(record_id=NAME)),
    ]
    await asyncio.gather(*(_tried(call) for call in calls))
    gone = deletion(record)
    gone.reason, gone.requester = "reason-brombeere", CASE.requester
    return await _tried(client.enrolment.DeleteRecord(gone)) is not None


async def _tried(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError:
        return None


def _pieces(photos: list[bytes]) -> Iterator[str]:
    """Of photos, as text could hold them."""
    for photo in photos:
        middle = photo[len(photo) // 2 :][:12]
        yield base64.b64encode(photo[:48]).decode()[16:32]
        yield middle.hex()
        yield repr(middle)[2:-1][:12]
