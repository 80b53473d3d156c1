"""Served answers are recomputed from Milvus: right ones pass, wrong ones are named, and nothing leaks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from catalogue.types import Item, RecordUpdate, Store
from cluster import self_check
from cluster.compose import Parts
from cluster.self_check import SelfCheck, check_searches
from homeward.config import IndexSettings, Settings
from homeward.errors import StoreUnavailable
from homeward.ids import face_id, photo_sha256
from homeward.logs import LogSink
from homeward.metrics import PrometheusSink
from homeward.telemetry import Operation, SelfChecked, sinks
from homeward.types import Attributes, CandidateList, FaceRow, PhotoNote, Query, RecordKey, Sex
from homeward.v1 import operations_pb2
from tests.cluster.children import enrolling, serving
from tests.cluster.fakes import MODEL_ID, fake_photo, fake_template
from tests.cluster.people import Person, delete_from_catalogue, enrol, random_people
from tests.cluster.serving import opening
from tests.index.random_rows import World

ALWAYS = IndexSettings(self_check_share=1.0, self_check_slice_rows=100, self_check_load=1.0)


@dataclass(slots=True)
class StoppedClock:
    """Time that a test moves."""

    at: float = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


@dataclass(slots=True)
class Enrolled:
    """Parts whose index, gallery and catalogue hold the same people."""

    parts: Parts
    people: list[Person]
    rows: list[FaceRow]

    def query(self, row: int, k: int = 5) -> Query:
        return Query(self.rows[row].template[None], k)

    def check(self, settings: IndexSettings = ALWAYS) -> SelfCheck:
        parts = self.parts
        return SelfCheck(parts.catalogue, parts.gallery, MODEL_ID, settings, clock=parts.clock)

    def searched(self, *queries: Query, check: SelfCheck | None = None) -> SelfCheck:
        """A check that was offered this search."""
        check = check or self.check()
        check.offer(queries, self.parts.index.search_many(queries))
        return check


@pytest_asyncio.fixture
async def enrolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Enrolled]:
    monkeypatch.setattr(self_check, "AGAIN_S", 0.0)
    people = random_people(150, seed=3)
    async with opening()(Settings(data_dir=tmp_path)) as parts:
        parts.follower.load()
        rows, _ = enrol(parts, people)
        yield Enrolled(parts, people, rows)


async def test_right_answers_pass(enrolled: Enrolled) -> None:
    world = World(Random(8), dimension=len(enrolled.rows[0].template))
    made = [replace(world.query(), templates=enrolled.query(row).templates) for row in range(25)]
    check = enrolled.searched(*made)
    checked = check.run_one()
    assert checked is not None
    assert checked.agrees
    assert (checked.recall, checked.score_error, checked.left_out) == (1.0, 0.0, 0)
    assert (checked.lists, checked.rows_read) == (25, len(enrolled.rows))
    assert checked.rev == enrolled.parts.catalogue.rev()
    assert check.run_one() is None
    assert check.differences == ()


async def test_a_row_that_the_index_lost_is_named(enrolled: Enrolled) -> None:
    lost = enrolled.rows[0]
    enrolled.parts.index.apply(delete_faces=[(lost.record_id, lost.face_id)])
    check = enrolled.searched(enrolled.query(0))
    checked = check.run_one()
    assert checked is not None
    assert lost.record_id in checked.differing
    assert checked.recall < 1.0 or lost.face_id in checked.differing
    assert check.differences == (checked,)


async def test_a_score_that_is_another_is_named(enrolled: Enrolled) -> None:
    row = enrolled.rows[0]
    changed = row.template.copy()
    changed[[0, 1]] = changed[[1, 0]]
    enrolled.parts.index.upsert([replace(row, template=changed)])
    query = Query(changed[None], 5)
    checked = enrolled.searched(query).run_one()
    assert checked is not None
    assert row.record_id in checked.differing
    assert row.face_id in checked.differing
    assert not checked.agrees


async def test_a_row_of_nobody_in_the_index_is_named_and_in_milvus_is_none(enrolled: Enrolled) -> None:
    photo = fake_photo("nobody")
    sha256 = photo_sha256(photo)
    row = replace(
        enrolled.rows[0],
        record_id="f" * 32,
        face_id=face_id("f" * 32, sha256, MODEL_ID, 0),
        photo_sha256=sha256,
        template=fake_template(photo, 0),
    )
    query = Query(row.template[None], 5)
    enrolled.parts.gallery.upsert([row])
    checked = enrolled.searched(query).run_one()
    assert checked is not None
    assert checked.agrees
    enrolled.parts.index.upsert([row])
    checked = enrolled.searched(query).run_one()
    assert checked is not None
    assert row.record_id in checked.differing
    assert checked.recall == pytest.approx(0.8)  # the fifth had to give way


async def test_a_row_that_milvus_lost_is_named(enrolled: Enrolled) -> None:
    lost = enrolled.rows[0]
    enrolled.parts.gallery.delete([lost.face_id])
    checked = enrolled.searched(enrolled.query(0)).run_one()
    assert checked is not None
    assert {lost.face_id, lost.record_id} & set(checked.differing)


async def test_records_that_changed_since_the_answer_are_left_out(enrolled: Enrolled) -> None:
    parts, query = enrolled.parts, enrolled.query(0, 6)
    check = enrolled.searched(query)
    served = parts.index.search(query).candidates
    deleted, updated = served[0].record_id, served[2].record_id
    delete_from_catalogue(parts, deleted)
    parts.catalogue.update(RecordUpdate(updated, attributes=Attributes(sex=Sex.MALE, sex_verified=True)))
    parts.rows.rewrite([updated])
    photo = next(photo for person in enrolled.people for photo, _ in person.photos)
    newcomer = Person(RecordKey("agency-a", "found", "newcomer"), ((photo, PhotoNote()),))
    enrol(parts, [newcomer])
    checked = check.run_one()
    assert checked is not None
    assert checked.agrees
    assert checked.left_out == 3
    assert check.differences == ()


async def test_a_deleted_record_that_is_still_answered_is_named(enrolled: Enrolled) -> None:
    query = enrolled.query(0)
    deleted = enrolled.parts.index.search(query).candidates[0].record_id
    delete_from_catalogue(enrolled.parts, deleted)
    enrolled.parts.index.advance(enrolled.parts.catalogue.rev())
    checked = enrolled.searched(query).run_one()
    assert checked is not None
    assert deleted in checked.differing
    assert checked.left_out == 0


async def test_rows_that_a_writer_has_announced_are_left_out(enrolled: Enrolled) -> None:
    parts, row, query = enrolled.parts, enrolled.rows[0], enrolled.query(0)
    check = enrolled.searched(query)
    parts.catalogue.begin_intents([[Item(Store.GALLERY, row.record_id, row.face_id)]])
    parts.gallery.upsert([replace(row, template=-row.template)])
    checked = check.run_one()
    assert checked is not None
    assert checked.agrees
    assert checked.left_out == 1


async def test_differences_are_counted_and_logged_without_a_template(
    enrolled: Enrolled, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Operation] = []
    registry = CollectorRegistry()
    metric = "homeward_self_check_"
    logger = logging.getLogger("test")
    with caplog.at_level(logging.DEBUG), sinks(events.append, LogSink(logger), PrometheusSink(registry)):
        assert np.isnan(registry.get_sample_value(f"{metric}recall_ratio") or 0.0)
        enrolled.searched(enrolled.query(5)).run_one()
        lost = enrolled.rows[0]
        delete_from_catalogue(
            enrolled.parts, enrolled.parts.index.search(enrolled.query(0)).candidates[3].record_id
        )
        enrolled.parts.index.apply(delete_faces=[(lost.record_id, lost.face_id)])
        check = enrolled.searched(enrolled.query(0))
        kept = repr(check._kept)
        checked = check.run_one()
    assert checked is not None
    right, wrong = [one for one in events if one.name == "self-check"]
    slices = [one for one in events if one.name == "self-check slice"]
    assert len(slices) >= 2, "how far a long check is cannot be seen"
    assert isinstance(right, SelfChecked)
    assert isinstance(wrong, SelfChecked)
    assert (right.outcome, right.reason) == ("OK", "")
    assert (wrong.outcome, wrong.reason) == ("DATA_LOSS", "ANSWER_DIFFERS")
    values = {
        "recall_ratio": checked.recall,
        "score_error_max": checked.score_error,
        "searches_total": 2,
        "differing_searches_total": 1,
        "left_out_records_total": 1,
        "read_rows_total": right.rows_read + wrong.rows_read,
    }
    assert {name: registry.get_sample_value(metric + name) for name in values} == values
    assert registry.get_sample_value(
        "homeward_operation_failures_total", {"operation": "self-check", "reason": "ANSWER_DIFFERS"}
    )
    said = [line for line in caplog.records if line.name == "cluster.self_check"]
    assert [line.levelname for line in said] == ["ERROR"]
    assert lost.record_id in said[0].getMessage()
    for text in (caplog.text, kept):
        assert "array" not in text
        assert not any(str(value)[:8] in text for value in lost.template.tolist() if abs(value) > 1e-3)
        assert "agency-" not in text
        assert enrolled.people[0].key.external_reference not in text.split()


def answers(count: int = 1) -> tuple[list[Query], list[CandidateList]]:
    """What a search hands over, told apart by its k."""
    query = Query(np.ones((1, 1), np.float32), count)
    return [query], [CandidateList((), {}, 0, 0, 0, "exact")]


def sampling(clock: StoppedClock, chances: Sequence[float] = (), **settings: float) -> SelfCheck:
    """A check without stores, for its sample alone."""
    chance = iter(chances)
    stores = cast("Any", None)
    wanted = IndexSettings.model_validate(settings)
    return SelfCheck(stores, stores, MODEL_ID, wanted, clock=clock, chance=lambda: next(chance))


def test_the_share_of_searches_is_kept() -> None:
    check = sampling(
        StoppedClock(), [0.0, 0.24, 0.25, 0.9, 0.1], self_check_share=0.25, self_check_interval_s=0
    )
    for _ in range(5):
        check.offer(*answers())
    assert check.waiting == 3


def test_one_is_kept_now_and_then_however_few_there_are() -> None:
    clock = StoppedClock()
    check = sampling(clock, [0.5] * 10, self_check_share=0.0, self_check_interval_s=10.0)
    check.offer(*answers())
    assert check.waiting == 0
    clock.at += 10
    check.offer(*answers())
    assert check.waiting == 1
    clock.at += 60
    check.offer(*answers())  # one waits already
    assert check.waiting == 1
    assert check._next() is not None
    clock.at += 1
    check.offer(*answers())
    assert check.waiting == 1
    assert check._next() is not None
    clock.at += 9
    check.offer(*answers())
    assert check.waiting == 0
    clock.at += 1
    check.offer(*answers())
    assert check.waiting == 1


def test_the_newest_are_kept_and_none_for_long() -> None:
    clock = StoppedClock()
    check = sampling(clock, [0.0] * 9, self_check_share=1.0, self_check_queue=3, self_check_keep_s=60.0)
    for number in range(1, 6):
        clock.at += 10
        check.offer(*answers(number))
    assert check.waiting == 3
    kept = check._next()
    assert kept is not None
    assert kept.queries[0].k == 3
    clock.at += 55
    kept = check._next()
    assert kept is not None
    assert kept.queries[0].k == 5  # the fourth was forgotten
    check.offer(*answers())
    check.close()
    assert check.waiting == 0
    check.offer(*answers())
    assert check.waiting == 0
    assert check.run_one() is None


async def test_a_store_that_does_not_answer_is_no_difference(enrolled: Enrolled) -> None:
    check = enrolled.searched(enrolled.query(0))
    enrolled.parts.gallery.close()
    events: list[Operation] = []
    with sinks(events.append), pytest.raises(StoreUnavailable):
        check.run_one()
    assert [(one.name, one.outcome) for one in events] == [
        ("store gallery", "UNAVAILABLE"),
        ("self-check", "UNAVAILABLE"),
    ]
    assert check.waiting == 0


async def test_closing_ends_a_check_under_way(enrolled: Enrolled) -> None:
    slow = IndexSettings(self_check_share=1.0, self_check_slice_rows=10, self_check_load=1e-6)
    check = enrolled.searched(enrolled.query(0), check=enrolled.check(slow))
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(check.run_one()))
    thread.start()
    while check.waiting:  # noqa: ASYNC110 - it is a thread's
        await asyncio.sleep(0.01)
    assert not done
    check.close()
    await asyncio.to_thread(thread.join, 30)
    assert done == [None]


async def test_the_sample_is_worked_through_beside_the_server(
    enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check, "POLL_S", 0.01)
    check = enrolled.check()
    events: list[Operation] = []
    with sinks(events.append):
        task = asyncio.create_task(check_searches(check))
        for row in range(3):
            enrolled.searched(enrolled.query(row), check=check)
        async with asyncio.timeout(60):
            while len(events) < 3:  # noqa: ASYNC110 - they come from a thread
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert all(one.outcome == "OK" for one in events)
    enrolled.searched(enrolled.query(0), check=check)
    assert check.waiting == 0


async def test_doctor_searches_for_enrolled_faces(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        checks = await client.checks()
        assert checks["search"].state == operations_pb2.CHECK_STATE_OK
        assert "nobody is enrolled" in checks["search"].finding
        records = [
            (await client.enrol(enrolling(f"c{number}", [fake_photo(f"c{number}")]))).record.record_id
            for number in range(3)
        ]
        checks = await client.checks()
        assert checks["search"].state == operations_pb2.CHECK_STATE_OK
        assert checks["search"].finding == (
            "3 searches recomputed from Milvus, recall 1.000, largest score difference 0"
        )
        server.parts.index.delete_record(records[1])
        checks = await client.checks()
        assert checks["search"].state == operations_pb2.CHECK_STATE_FAILED
        assert "recall 0.667" in checks["search"].finding
        assert records[1] in checks["search"].finding
        assert "mend" in checks["search"].remedy
        checks = await client.checks(mend=True)
        assert checks["search"].state == operations_pb2.CHECK_STATE_OK
