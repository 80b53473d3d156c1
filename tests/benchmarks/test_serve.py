"""What the benchmarks of whole servers compute without one: the truth, a crossing point, settings, plots."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from benchmarks.search_rows import gallery, probes, real_like
from benchmarks.serve_answers import Truth
from benchmarks.serve_clients import K, Run
from benchmarks.serve_hnsw import exact_faster_up_to
from benchmarks.serve_photos import HEIGHT, WIDTH, probe_photos
from benchmarks.serve_plots import draw_fresh, draw_restart, draw_serve
from benchmarks.stores import Stores
from homeward.config import CatalogueSettings, GallerySettings, PhotoStoreSettings, Settings
from homeward.types import Float32, Query
from homeward.v1 import records_pb2, search_pb2
from index import reference
from index.columns import Columns

ROWS = 6_000


@pytest.fixture(scope="module")
def columns() -> Columns:
    """Rows as the benchmarks have them."""
    return gallery(real_like(ROWS, 3), 3)


def answer_of(columns: Columns, template: Float32) -> search_pb2.SearchResponse:
    """What a right server says."""
    found = reference.search(Query(template[np.newaxis], K), columns)
    return search_pb2.SearchResponse(
        lists=[
            search_pb2.CandidateList(
                candidates=[
                    search_pb2.Candidate(
                        record_id=one.record_id,
                        comparison_score=one.score,
                        evidence=[
                            search_pb2.Evidence(
                                face=records_pb2.Face(face_id=each.face_id), comparison_score=each.score
                            )
                            for each in one.evidence
                        ],
                    )
                    for one in found.candidates
                ]
            )
        ],
        account=search_pb2.SearchAccount(rows=found.rows_searched, records=found.records_searched),
    )


def test_right_answers_do_not_differ_and_wrong_ones_do(columns: Columns) -> None:
    truth = Truth(columns)
    assert truth.records == len({tuple(one) for one in columns.record.tolist()})
    templates = probes(columns.template, real_like, 6, 4)
    answers = [(number, answer_of(columns, template)) for number, template in enumerate(templates)]
    assert truth.differences(templates, answers) == 0
    assert truth.differences(templates, [(number + 6, answer) for number, answer in answers]) == 0

    def score(answer: search_pb2.SearchResponse) -> None:
        one = answer.lists[0].candidates[3]
        one.comparison_score = float(np.nextafter(one.comparison_score, 2.0))

    def order(answer: search_pb2.SearchResponse) -> None:
        found = answer.lists[0].candidates
        first, second = search_pb2.Candidate(), search_pb2.Candidate()
        first.CopyFrom(found[0])
        second.CopyFrom(found[1])
        found[0].CopyFrom(second)
        found[1].CopyFrom(first)

    def fewer(answer: search_pb2.SearchResponse) -> None:
        del answer.lists[0].candidates[-1]

    def part(answer: search_pb2.SearchResponse) -> None:
        answer.account.rows -= 1

    changes: list[Callable[[search_pb2.SearchResponse], None]] = [score, order, fewer, part]
    for change in changes:
        answer = answer_of(columns, templates[0])
        change(answer)
        assert truth.differs(templates[0], answer), change.__name__


def test_few_rows_are_searched_whole(columns: Columns) -> None:
    few = columns.take(slice(0, 15))
    template = real_like(1, 9)[0]
    assert not Truth(few).differs(template, answer_of(few, template))


def test_where_hnsw_overtakes_the_exact_scan() -> None:
    def size(rows: int, scan_ms: float, hnsw_ms: float) -> dict[str, Any]:
        return {"rows": rows, "scan_ms": scan_ms, "by_clients": {"1": {"p50_ms": hnsw_ms}}}

    # 1 ms + 5 ms a million against 6 ms at any size: equal at a million.
    found = exact_faster_up_to([size(100_000, 0.5, 6.0), size(2_000_000, 10.0, 6.0)], 1.0)
    assert found["exact_faster_up_to_rows"] == pytest.approx(1e6, rel=0.02)
    assert found["extrapolated"] is False
    found = exact_faster_up_to([size(100_000, 0.5, 16.0), size(1_000_000, 5.0, 16.0)], 1.0)
    assert found["exact_faster_up_to_rows"] == pytest.approx(3e6, rel=0.02)
    assert found["extrapolated"] is True


def test_a_server_is_given_the_settings_of_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores(
        catalogue=CatalogueSettings(uri="postgresql://u@127.0.0.1:1/d", password=SecretStr("p")),
        gallery=GallerySettings(uri="http://127.0.0.1:2", collection="c", timeout_s=7.0),
        photos=PhotoStoreSettings(uri="s3://127.0.0.1:3/b", secure=False, access_key=SecretStr("k")),
        postgres=None,  # type: ignore[arg-type] # not used here
        milvus=None,  # type: ignore[arg-type]
    )
    for name, value in stores.environment().items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    for section in ("catalogue", "gallery", "photos"):
        assert getattr(settings, section) == getattr(stores, section)


def test_probe_photos_are_alike_in_size_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMEWARD_SHARED", str(tmp_path))  # without the shared photos
    photos, what = probe_photos(3)
    assert "astronaut" in what
    assert len(set(photos)) == 3
    for photo in photos:
        with Image.open(io.BytesIO(photo)) as image:
            assert image.size == (WIDTH, HEIGHT)


def test_plots_are_drawn(tmp_path: Path) -> None:
    runs = {}
    for clients in (1, 8, 32, 128):
        run = Run(clients, wall_s=1.0, seconds=[0.01 * clients] * 5, stages={"scan": [0.001]})
        runs[str(clients)] = run.figures()
    common: dict[str, Any] = {"rows": 100, "k": K, "machine": {"cores": 2, "cpu": "a processor"}}
    serve = {
        "template": {"local": runs, "ray": runs},
        "photo": {"by_clients": runs, "embedder_photos_per_s": 20.0},
        "milvus_flat": {"Bounded": {"per_s": 5.0}, "Strong": {"per_s": 4.0}},
        "hnsw": {"sizes": [{"recall": 0.98, "by_clients": {"1": {"per_s": 9.0}, "32": {"per_s": 50.0}}}]},
        "scan_ms": {"local": 5.0, "ray": 5.0},
    }
    stages = {"listening_s": 5.0, "loading_s": 3.0, "first_answer_s": 0.01}
    restart = {"starts": {"without a snapshot": {"stages": stages}, "start 1": {"stages": stages}}}
    fresh = {
        "times": {"shown_s": [0.01, 0.2], "asked_s": [0.001, 0.1]},
        "where": "shards",
        "pairs": 2,
        "missed": 0,
        "searching_clients": 32,
    }
    draw_serve(json.loads(json.dumps(serve | common)), tmp_path / "serve.png")
    draw_restart(restart | common, tmp_path / "restart.png")
    draw_fresh(fresh | common, tmp_path / "fresh.png")
    assert all((tmp_path / f"{name}.png").stat().st_size for name in ("serve", "restart", "fresh"))
