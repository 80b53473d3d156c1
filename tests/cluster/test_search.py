"""Search over a real socket: equal to the reference, and nothing left out that a reviewer needs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import pytest
import pytest_asyncio

from catalogue.coding import place_cell
from cluster.rpc.status import error_from_rpc, error_from_status
from cluster.searchlog import log_files
from cluster.searchlog_verify import verify
from cluster.server import RunningServer, running_server
from homeward.config import SearchSettings, ServerSettings, Settings
from homeward.errors import CaseRequired, HomewardError, StoreUnavailable
from homeward.ids import photo_sha256
from homeward.shown import as_candidate, as_evidence, write_sex
from homeward.types import (
    Attributes,
    Calibration,
    CandidateList,
    DateRange,
    Filter,
    PhotoNote,
    ProbeFacts,
    Query,
    RecordKey,
    Sex,
    day_number,
    verified_days,
)
from homeward.v1 import records_pb2, search_pb2
from index.columns import Columns, from_rows
from index.reference import search as reference_search
from tests.cluster.clients import search_stub
from tests.cluster.fakes import DIMENSION, MODEL_ID, FakeEmbedding, fake_photo, fake_template
from tests.cluster.people import (
    AGENCIES,
    GALLERIES,
    PLACES,
    Person,
    delete_from_catalogue,
    enrol,
    random_people,
)
from tests.cluster.serving import CASE, opening

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALIBRATION = Calibration(
    a=12.0,
    b=-6.0,
    dataset="pairs of the test",
    faces="nobody's",
    fitted_on=date(2026, 1, 2),
    mated=1000,
    non_mated=100_000,
    model_id=MODEL_ID,
)


@dataclass(slots=True)
class World:
    """A server with people enrolled, a client, and what the reference searches."""

    server: RunningServer
    stub: Any
    people: list[Person]
    columns: Columns
    codes: dict[tuple[str, str], int]
    folder: Path

    def lines(self) -> list[dict[str, Any]]:
        folder = self.folder / "search-log"
        return [json.loads(line) for path in log_files(folder) for line in path.read_bytes().splitlines()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(
        data_dir=folder,
        server=ServerSettings(address="127.0.0.1:0", deadline_s=60.0),
        search=SearchSettings(max_probe_faces=4, stream_in_flight=3),
    )
    people = random_people(1500, seed=11)
    async with (
        running_server(settings, opening(FakeEmbedding(), CALIBRATION)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        rows, codes = await asyncio.to_thread(enrol, server.parts, people)
        yield World(server, search_stub(channel), people, from_rows(rows, DIMENSION), codes, folder)


def template(values: Any) -> search_pb2.Template:
    return search_pb2.Template(values=np.asarray(values).tolist(), model_id=MODEL_ID)


def asking(**fields: Any) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(context=CASE, **fields)


async def refusal(call: Any) -> HomewardError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return error_from_rpc(failed.value)


def said(found: search_pb2.CandidateList) -> list[Any]:
    """What a list says, for comparison with `meant`."""
    return [
        (
            one.rank,
            one.record_id,
            one.comparison_score,
            list(one.implausible),
            [(each.face.face_id, each.sha256, each.comparison_score) for each in one.evidence],
        )
        for one in found.candidates
    ]


def meant(right: CandidateList) -> list[Any]:
    return [
        (
            rank,
            one.record_id,
            one.score,
            [str(reason) for reason in one.implausible],
            [(each.face_id, each.photo_sha256, each.score) for each in one.evidence],
        )
        for rank, one in enumerate(right.candidates, 1)
    ]


def check(answer: search_pb2.SearchResponse, right: CandidateList, which: int = 0) -> None:
    found = answer.lists[which]
    assert said(found) == meant(right)
    assert {one.reason: one.records for one in found.excluded} == {
        str(reason): count for reason, count in right.excluded.items()
    }
    assert (answer.account.rows, answer.account.records) == (right.rows_searched, right.records_searched)


def wire(span: DateRange | None) -> records_pb2.DateRange | None:
    if span is None:
        return None
    return records_pb2.DateRange(
        earliest=span.earliest.isoformat(), latest=span.latest.isoformat(), verified=span.verified
    )


def random_span(chance: random.Random, verified: bool) -> DateRange | None:
    if chance.random() < 0.5:
        return None
    year = chance.randrange(2004, 2024)
    return DateRange(date(year, 1, 1), date(year + chance.randrange(4), 12, 31), verified)


def random_search(
    world: World, chance: random.Random, values: np.ndarray[Any, Any]
) -> tuple[search_pb2.SearchRequest, Query]:
    """A request, and the query it means, made without the code under test."""

    def some(names: tuple[str, ...]) -> list[str]:
        return chance.sample(names, chance.randrange(1, len(names))) if chance.random() < 0.4 else []

    galleries = some((*GALLERIES, "nowhere"))
    agencies = some((*AGENCIES, "nobody"))
    places = some(tuple(place for place in PLACES if place))
    sexes = chance.sample(tuple(Sex), chance.randrange(3)) if chance.random() < 0.4 else []
    born, event = random_span(chance, False), random_span(chance, False)
    strict = chance.random() < 0.3
    sex, sex_verified = Sex(chance.randrange(1, 3)), chance.random() < 0.5
    facts_born = random_span(chance, chance.random() < 0.7)
    taken = random_span(chance, chance.random() < 0.7)
    age = (float(chance.randrange(12)), chance.random() < 0.7) if chance.random() < 0.4 else None
    k = chance.choice((1, 3, 20, 200))
    evidence = chance.choice((0, 1, 2, 10))
    least = chance.choice((None, None, 0.3, 0.9, -1.0))
    include = chance.random() < 0.5
    request = asking(
        template=template(values),
        limit=k,
        filter=search_pb2.SearchFilter(
            galleries=galleries,
            agencies=agencies,
            places=places,
            sexes=[write_sex(one) for one in sexes],
            born=wire(born),
            event=wire(event),
            strict=strict,
        ),
        facts=search_pb2.ProbeFacts(
            sex=write_sex(sex),
            sex_verified=sex_verified,
            born=wire(facts_born),
            taken=wire(taken),
            age=None
            if age is None
            else search_pb2.AgeRange(min_years=age[0], max_years=age[0] + 1, verified=age[1]),
        ),
        include_implausible=include,
        min_comparison_score=least,
        evidence_limit=evidence,
    )
    query = Query(
        templates=np.asarray(values, np.float32)[np.newaxis, :],
        k=k,
        filter=Filter(
            galleries=frozenset(world.codes.get(("gallery", name), -1) for name in galleries),
            agencies=frozenset(world.codes.get(("agency", name), -1) for name in agencies),
            sexes=frozenset(int(one) for one in sexes),
            born=None if born is None else (day_number(born.earliest), day_number(born.latest)),
            event=None if event is None else (day_number(event.earliest), day_number(event.latest)),
            places=frozenset(world.codes.get(("place", place_cell(name)), -1) for name in places),
            strict=strict,
        ),
        facts=ProbeFacts(
            sex=int(sex) if sex_verified else 0,
            born=verified_days(facts_born),
            taken=verified_days(taken),
            age_years=(age[0], age[0] + 1) if age is not None and age[1] else None,
        ),
        include_implausible=include,
        min_score=least,
        evidence=evidence or 3,
    )
    return request, query


async def test_random_searches_equal_the_reference(world: World) -> None:
    chance = random.Random(2)
    asked = []
    for number in range(100):
        if number % 2:
            values = fake_template(fake_photo(f"probe-{number}"), 0)
        else:  # one that is enrolled, perhaps under two records: scores tie
            photo, _ = chance.choice(chance.choice(world.people).photos)
            values = fake_template(photo, 0)
        asked.append(random_search(world, chance, values))
    limit = asyncio.Semaphore(20)  # so that scans are shared

    async def ask(request: search_pb2.SearchRequest) -> search_pb2.SearchResponse:
        async with limit:
            found: search_pb2.SearchResponse = await world.stub.Search(request)
            return found

    answers = await asyncio.gather(*(ask(request) for request, _ in asked))
    excluded = 0
    for answer, (_, query) in zip(answers, asked, strict=True):
        check(answer, reference_search(query, world.columns))
        excluded += len(answer.lists[0].excluded)
    assert excluded > 10


async def test_a_photo_with_several_faces_gives_a_list_for_each(world: World) -> None:
    photo = fake_photo("group", 3)
    answer = await world.stub.Search(asking(photo=photo))
    assert [one.face.ordinal for one in answer.lists] == [0, 1, 2]
    for ordinal in range(3):
        query = Query(templates=fake_template(photo, ordinal)[np.newaxis, :], k=20)
        check(answer, reference_search(query, world.columns), ordinal)
    only = await world.stub.Search(asking(photo=photo, face_ordinal=2))
    assert len(only.lists) == 1
    assert said(only.lists[0]) == said(answer.lists[2])
    assert only.lists[0].face.landmarks


async def test_a_long_list_is_whole(world: World) -> None:
    values = fake_template(b"long", 0)
    answer = await world.stub.Search(asking(template=template(values), limit=1000, evidence_limit=10))
    query = Query(templates=values[np.newaxis, :], k=1000, evidence=10)
    check(answer, reference_search(query, world.columns))


@pytest.mark.parametrize(
    ("photo", "ordinal", "code"),
    [
        (fake_photo("none", 0), None, "NO_FACE"),
        (fake_photo("two", 2), 7, "FACE_ORDINAL_UNKNOWN"),
        (fake_photo("crowd", 5), None, "TOO_MANY_FACES"),
        (b"no photo", None, "PHOTO_FORMAT_UNKNOWN"),
        (b"", None, "INVALID_INPUT"),
    ],
)
async def test_a_photo_without_the_face_is_refused(
    world: World, photo: bytes, ordinal: int | None, code: str
) -> None:
    error = await refusal(world.stub.Search(asking(photo=photo, face_ordinal=ordinal)))
    assert error.code == code


async def test_a_record_is_searched_by_all_its_faces_without_itself(world: World) -> None:
    chance = random.Random(6)
    several = [person for person in world.people if len(person.photos) > 2]
    shared = {photo for person in several for photo, _ in person.photos if b"shared" in photo}
    twins = [person for person in several if any(photo in shared for photo, _ in person.photos)]
    for person in [*chance.sample(several, 6), twins[0]]:
        answer = await world.stub.Search(asking(record_id=person.record_id, limit=10))
        rows = [row for row in world.columns.face_rows() if row.record_id == person.record_id]
        rows.sort(key=lambda row: row.face_id)
        known = person.attributes
        dated = [note.taken for _, note in person.photos if note.taken and note.taken.verified]
        query = Query(
            templates=np.stack([row.template for row in rows]),
            k=10,
            facts=ProbeFacts(
                sex=int(known.sex) if known.sex_verified else 0,
                born=verified_days(known.born),
                taken=verified_days(min(dated, key=lambda span: (span.latest, span.earliest), default=None)),
            ),
            without_records=frozenset((person.record_id,)),
            without_photos=frozenset(photo_sha256(photo) for photo, _ in person.photos),
        )
        check(answer, reference_search(query, world.columns))
        assert person.record_id not in {one.record_id for one in answer.lists[0].candidates}


async def test_a_record_that_is_none_is_not_found(world: World) -> None:
    assert (await refusal(world.stub.Search(asking(record_id="0" * 32)))).code == "NOT_FOUND"
    assert (await refusal(world.stub.Search(asking(record_id="x")))).code == "ID_INVALID"


async def test_who_facts_exclude_is_counted_and_comes_back_on_demand(world: World) -> None:
    values = template(fake_template(b"probe", 0))
    facts = search_pb2.ProbeFacts(sex=records_pb2.SEX_MALE, sex_verified=True)
    without = await world.stub.Search(asking(template=values, facts=facts, limit=50))
    within = await world.stub.Search(asking(template=values, facts=facts, limit=50, include_implausible=True))
    reasons = [reason for one in within.lists[0].candidates for reason in one.implausible]
    assert [one.reason for one in without.lists[0].excluded] == ["SEX_DIFFERS"]
    assert without.lists[0].excluded[0].records == len(reasons) > 0
    assert not within.lists[0].excluded
    assert all(not one.implausible for one in without.lists[0].candidates)


async def test_thresholds_cut_by_score_and_by_ratio(world: World) -> None:
    values = template(fake_template(b"probe", 0))
    everyone = await world.stub.Search(asking(template=values, limit=100))
    scores = [one.comparison_score for one in everyone.lists[0].candidates]
    ratios = [one.log_likelihood_ratio for one in everyone.lists[0].candidates]
    assert ratios == [CALIBRATION.llr(score) for score in scores]
    by_score = await world.stub.Search(asking(template=values, limit=100, min_comparison_score=scores[9]))
    assert len(by_score.lists[0].candidates) == 10
    by_ratio = await world.stub.Search(asking(template=values, limit=100, min_log_likelihood_ratio=ratios[9]))
    assert said(by_ratio.lists[0]) == said(by_score.lists[0])
    assert everyone.calibration.dataset == "pairs of the test"
    assert everyone.calibration.fitted_on == "2026-01-02"


async def test_what_is_shown_is_what_the_catalogue_holds(world: World) -> None:
    catalogue = world.server.parts.catalogue
    chosen = list(world.columns.face_rows())[::7]
    shown = catalogue.shown([row.face_id for row in chosen] + ["0" * 32])
    held = catalogue.get_many([row.record_id for row in chosen])
    assert shown.keys() == held.keys()
    assert {face for one in shown.values() for face in one.faces} == {row.face_id for row in chosen}
    for row in chosen:
        record = held[row.record_id]
        photo = next(one for one in record.photos if one.sha256 == row.photo_sha256)
        face = next(one for one in photo.faces if one.face_id == row.face_id)
        one = shown[row.record_id]
        assert one.message == as_candidate(record.key, record.attributes)
        assert one.faces[row.face_id] == as_evidence(face, photo.note.taken)


@pytest.mark.parametrize("shown", ["", " ", "\u200d", "\u200c \u200d"])
@pytest.mark.parametrize("missing", ["case_reference", "purpose", "requester"])
async def test_a_search_without_case_is_refused_and_leaves_no_line(
    world: World, missing: Literal["case_reference", "purpose", "requester"], shown: str
) -> None:
    before = len(world.lines())
    request = asking(template=template(fake_template(b"probe", 0)))
    setattr(request.context, missing, shown)
    error = await refusal(world.stub.Search(request))
    assert isinstance(error, CaseRequired)
    assert error.code == "CASE_REQUIRED"
    assert error.details["field"] == f"context.{missing}"
    compare = search_pb2.CompareRequest(
        context=request.context, first=fake_photo("a"), second=fake_photo("b")
    )
    assert (await refusal(world.stub.Compare(compare))).code == "CASE_REQUIRED"
    assert len(world.lines()) == before


async def test_the_line_is_on_disk_before_the_reply(world: World) -> None:
    values = fake_template(b"probe", 0)
    photo = fake_photo("logged", 1)
    for request, probe in (
        (asking(template=template(values), limit=2), {"kind": "template"}),
        (asking(photo=photo, limit=2), {"kind": "photo", "sha256": photo_sha256(photo)}),
        (
            asking(record_id=world.people[0].record_id, limit=2),
            {"kind": "record", "record_id": world.people[0].record_id},
        ),
    ):
        request.filter.galleries.append("missing")
        answer = await world.stub.Search(request)
        line = world.lines()[-1]
        assert line["search_id"] == answer.search_id
        assert (line["case"], line["purpose"], line["requester"]) == ("case-1", "identification", "officer 7")
        assert line["probe"].items() >= probe.items()
        assert line["filter"] == {"galleries": ["missing"]}
        assert line["lists"][0]["candidates"] == [
            [one.record_id, one.comparison_score] for one in answer.lists[0].candidates
        ]
        assert (line["rev"], line["rows"]) == (answer.account.rev, answer.account.rows)
    assert verify(world.folder / "search-log").complete


async def test_a_search_that_cannot_be_logged_is_not_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    request = asking(template=template(fake_template(b"probe", 0)), limit=2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        error = await refusal(world.stub.Search(request))
    assert isinstance(error, StoreUnavailable)
    assert error.details["store"] == "search log"
    assert (await world.stub.Search(request)).search_id
    assert verify(world.folder / "search-log").complete


async def test_concurrent_searches_share_scans(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    index = world.server.parts.index
    batches: list[int] = []
    real = index.search_many

    def counted(queries: Sequence[Query]) -> list[CandidateList]:
        batches.append(len(queries))
        return real(queries)

    monkeypatch.setattr(index, "search_many", counted)
    requests = [
        asking(template=template(fake_template(b"crowd%d" % number, 0)), limit=2) for number in range(60)
    ]
    answers = await asyncio.gather(*(world.stub.Search(request) for request in requests))
    assert len({answer.search_id for answer in answers}) == sum(batches) == 60
    assert len(batches) < 60


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"template": search_pb2.Template(values=[0.0] * DIMENSION, model_id=MODEL_ID)}, "TEMPLATE_INVALID"),
        (
            {"template": search_pb2.Template(values=[float("nan")] * DIMENSION, model_id=MODEL_ID)},
            "TEMPLATE_INVALID",
        ),
        ({"template": search_pb2.Template(values=[1.0], model_id=MODEL_ID)}, "TEMPLATE_INVALID"),
        ({"template": search_pb2.Template(values=[1.0], model_id="other")}, "TEMPLATE_MODEL_DIFFERS"),
        ({}, "INVALID_INPUT"),
        ({"record_id": "0" * 32, "face_ordinal": 0}, "INVALID_INPUT"),
        ({"limit": 10**6, "photo": fake_photo("x")}, "LIMIT_TOO_LARGE"),
        ({"evidence_limit": 99, "photo": fake_photo("x")}, "LIMIT_TOO_LARGE"),
        ({"limit": 1000, "evidence_limit": 10, "photo": fake_photo("x", 4)}, "ANSWER_TOO_LARGE"),
        ({"min_rev": -1, "photo": fake_photo("x")}, "INVALID_INPUT"),
        ({"photo": fake_photo("x"), "filter": search_pb2.SearchFilter(galleries=["a\nb"])}, "INVALID_INPUT"),
        (
            {
                "photo": fake_photo("x"),
                "facts": search_pb2.ProbeFacts(age=search_pb2.AgeRange(min_years=9, max_years=2)),
            },
            "INVALID_INPUT",
        ),
    ],
)
async def test_a_wrong_request_is_refused_with_its_reason(
    world: World, fields: dict[str, Any], code: str
) -> None:
    assert (await refusal(world.stub.Search(asking(**fields)))).code == code


async def test_a_stream_answers_good_and_bad_items_alike(world: World) -> None:
    good = {f"good-{number}": fake_template(b"stream%d" % number, 0) for number in range(20)}
    items = [
        search_pb2.SearchStreamRequest(client_id=name, search=asking(template=template(values), limit=3))
        for name, values in good.items()
    ]
    items[5:5] = [
        search_pb2.SearchStreamRequest(client_id="no case", search=search_pb2.SearchRequest()),
        search_pb2.SearchStreamRequest(client_id="no photo", search=asking(photo=b"x")),
        search_pb2.SearchStreamRequest(client_id="x" * 1000),
        search_pb2.SearchStreamRequest(),
    ]
    answers = {answer.client_id: answer async for answer in world.stub.SearchStream(iter(items))}
    assert len(answers) == len(items)
    for name, values in good.items():
        assert answers[name].status.code == 0
        query = Query(templates=values[np.newaxis, :], k=3)
        check(answers[name].search, reference_search(query, world.columns))
    assert error_from_status(answers["no case"].status).code == "CASE_REQUIRED"
    assert error_from_status(answers["no photo"].status).code == "PHOTO_FORMAT_UNKNOWN"
    assert not answers["no case"].HasField("search")


async def test_a_client_that_leaves_a_stream_stops_its_work(world: World) -> None:
    embedding = world.server.parts.embedding
    assert isinstance(embedding, FakeEmbedding)
    embedding.gate = asyncio.Event()
    try:
        items = [
            search_pb2.SearchStreamRequest(search=asking(photo=fake_photo(str(number))))
            for number in range(50)
        ]
        stream = world.stub.SearchStream(iter(items))
        await asyncio.sleep(0.2)
        stream.cancel()
        before = embedding.embedded
        await asyncio.sleep(0.2)
    finally:
        embedding.gate.set()
        embedding.gate = None
    await asyncio.sleep(0.1)
    assert embedding.embedded == before
    assert (await world.stub.Search(asking(photo=fake_photo("after")))).search_id


async def test_two_photos_are_compared_and_logged(world: World) -> None:
    first, second = fake_photo("one"), fake_photo("group", 2)
    request = search_pb2.CompareRequest(context=CASE, first=first, second=second, second_ordinal=1)
    answer = await world.stub.Compare(request)
    expected = np.sum(
        fake_template(first, 0).astype(np.float64) * fake_template(second, 1).astype(np.float64)
    )
    assert answer.comparison_score == pytest.approx(float(expected), abs=1e-12)
    assert answer.log_likelihood_ratio == CALIBRATION.llr(answer.comparison_score)
    assert answer.second.ordinal == 1
    line = world.lines()[-1]
    assert (line["kind"], line["search_id"]) == ("compare", answer.search_id)
    assert [one["sha256"] for one in line["probes"]] == [photo_sha256(first), photo_sha256(second)]
    request.ClearField("second_ordinal")
    assert (await refusal(world.stub.Compare(request))).code == "FACE_CHOICE_REQUIRED"


async def test_a_rev_is_waited_for_and_one_that_is_not_there_is_refused(world: World) -> None:
    values = template(fake_template(b"probe", 0))
    rev = world.server.parts.index.rev
    answer = await world.stub.Search(asking(template=values, min_rev=rev))
    assert answer.account.rev >= rev
    error = await refusal(world.stub.Search(asking(template=values, min_rev=rev + 10**6)))
    assert error.code == "REV_NOT_REACHED"


async def test_a_reviewer_sees_dates_ages_and_what_speaks_against(world: World) -> None:
    def span(day: str, verified: bool) -> DateRange:
        return DateRange(date.fromisoformat(day), date.fromisoformat(day), verified)

    photo = fake_photo("reviewed")
    person = Person(
        RecordKey("agency-a", "missing", "reviewed"),
        ((photo, PhotoNote(taken=span("2014-05-01", False))),),
        Attributes(
            born=span("2010-05-01", False),
            sex=Sex.FEMALE,
            event=span("2014-06-01", True),
            event_place="Aachen",
        ),
    )
    await asyncio.to_thread(enrol, world.server.parts, [person])
    answer = await world.stub.Search(
        asking(
            photo=photo,
            limit=1,
            facts=search_pb2.ProbeFacts(
                sex=records_pb2.SEX_MALE,
                sex_verified=True,
                taken=records_pb2.DateRange(earliest="2019-05-01", verified=True),
            ),
        )
    )
    (found,) = answer.lists[0].candidates
    assert found.key.external_reference == "reviewed"
    assert found.comparison_score == pytest.approx(1.0)
    assert (found.born.earliest, found.event.latest, found.event_place) == (
        "2010-05-01",
        "2014-06-01",
        "Aachen",
    )
    assert found.sex == records_pb2.SEX_FEMALE
    assert not found.sex_verified
    assert list(found.notes) == ["UNVERIFIED_SEX_DIFFERS"]
    assert found.age_at_probe.min_years == pytest.approx(9.0, abs=0.02)
    assert not found.age_at_probe.verified
    (evidence,) = found.evidence
    assert evidence.taken.earliest == "2014-05-01"
    assert evidence.years_to_probe == pytest.approx(5.0, abs=0.02)
    assert evidence.face.quality.score == 80.0
    assert evidence.face.box.width == 90.0
    assert {stage.stage for stage in answer.times} == {"probe", "scan", "catalogue", "log"}


async def test_a_deleted_record_leaves_its_place_to_the_next(world: World) -> None:
    values = fake_template(b"to be deleted", 0)
    before = await world.stub.Search(asking(template=template(values), limit=3))
    gone = before.lists[0].candidates[0].record_id
    parts = world.server.parts
    await asyncio.to_thread(delete_from_catalogue, parts, gone)
    hidden = await world.stub.Search(asking(template=template(values), limit=3))
    assert gone not in {one.record_id for one in hidden.lists[0].candidates}
    parts.index.delete_record(gone)
    after = await world.stub.Search(asking(template=template(values), limit=3))
    assert [one.record_id for one in after.lists[0].candidates][:2] == [
        one.record_id for one in before.lists[0].candidates
    ][1:]
    assert len(after.lists[0].candidates) == 3
