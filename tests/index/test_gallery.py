"""Milvus Lite and a Milvus server hold what they are given."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from homeward.config import GallerySettings
from homeward.errors import Corrupt, InvalidInput, StoreUnavailable
from homeward.types import FaceRow, Query
from index import reference
from index.columns import Columns, from_rows
from index.gallery import SERVER_KEEPS, MilvusGallery
from index.milvus import LITE_FOLDER, collection_name, create_collection
from index.open import open_gallery
from index.synthetic import unit_rows
from tests.index.random_rows import DIMENSION, World, as_values, hex_id
from tests.servers.milvus import Milvus
from tests.servers.process import free_port

MODEL = "test-model"
COLLECTION = collection_name("homeward", MODEL)


def _lite(folder: Path, dimension: int = DIMENSION) -> MilvusGallery:
    return open_gallery(GallerySettings(), folder, MODEL, dimension)


def held(parts: Iterable[Columns]) -> list[tuple[object, ...]]:
    """All rows of the parts, by face id."""
    return sorted((as_values(row) for part in parts for row in part.face_rows()), key=str)


def values(rows: Iterable[FaceRow]) -> list[tuple[object, ...]]:
    """The same of rows that were written."""
    return sorted(map(as_values, rows), key=str)


def _differ(gallery: MilvusGallery, searches: int) -> None:
    """Random searches over chance rows, some of them deleted, against the reference."""
    world = World(Random(6), records=15, faces=90, templates=12)
    rows = world.distinct_rows(90)
    gallery.upsert(rows)
    gallery.delete([row.face_id for row in rows[:10]])
    columns = from_rows(rows[10:], DIMENSION)
    for _ in range(searches):
        query = world.query()
        found, wanted = gallery.search(query, rev=3), reference.search(query, columns, rev=3)
        assert (found.candidates, found.excluded, found.rev) == (wanted.candidates, wanted.excluded, 3)


def test_random_searches_of_lite_equal_the_reference(tmp_path: Path) -> None:
    gallery = _lite(tmp_path)
    _differ(gallery, 60)
    gallery.close()


@pytest.fixture
def on_server(milvus_server: Milvus, tmp_path: Path) -> Iterator[MilvusGallery]:
    settings = milvus_server.settings(f"t{secrets.token_hex(4)}")
    opened = open_gallery(settings, tmp_path, MODEL, DIMENSION)
    yield opened
    opened.close()


def test_random_searches_of_a_server_equal_the_reference(on_server: MilvusGallery) -> None:
    _differ(on_server, 6)


def test_a_server_says_until_when_files_may_keep_the_deleted(on_server: MilvusGallery) -> None:
    rows = World(Random(7)).distinct_rows(5)
    on_server.upsert(rows)
    on_server.delete([rows[0].face_id])
    before = datetime.now(UTC)
    state = on_server.erase()
    assert not state.erased
    assert state.pending_until is not None
    assert before + SERVER_KEEPS <= state.pending_until <= datetime.now(UTC) + SERVER_KEEPS
    assert held(on_server.iterate()) == values(rows[1:])


def test_extreme_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    rows = World(Random(1)).distinct_rows(2)
    tiny = np.array([1.0, 1e-45, -0.0, *[0.0] * (DIMENSION - 3)], np.float32)
    rows[0] = replace(rows[0], born_from=-(2**31), born_to=2**31 - 1, agency=2**31 - 1, template=tiny)
    gallery = _lite(tmp_path)
    gallery.upsert(rows)
    assert held(gallery.iterate()) == values(rows)
    gallery.flush()
    gallery.close()
    gallery = _lite(tmp_path)
    assert held(gallery.iterate()) == values(rows)
    gallery.close()


def test_reopening_finds_what_was_written(tmp_path: Path) -> None:
    rows = World(Random(8)).distinct_rows(1_500)
    gallery = _lite(tmp_path)
    gallery.upsert(rows)
    gallery.flush()
    gallery.delete([rows[0].face_id])
    gallery.close()
    gallery = _lite(tmp_path)
    assert held(gallery.iterate(batch=500)) == values(rows[1:])
    gallery.close()
    assert (tmp_path / LITE_FOLDER).stat().st_mode & 0o077 == 0


def test_one_row_a_page_ends(tmp_path: Path) -> None:
    gallery = _lite(tmp_path)
    rows = World(Random(8)).distinct_rows(3)
    gallery.upsert(rows)
    assert held(gallery.iterate(batch=1)) == values(rows)
    gallery.close()


def test_models_do_not_meet(tmp_path: Path) -> None:
    gallery = _lite(tmp_path)
    other = open_gallery(GallerySettings(), tmp_path, "other", 16)
    gallery.upsert(World(Random(1)).distinct_rows(4))
    assert other.count() == 0
    other.close()
    assert gallery.count() == 4
    gallery.close()


def test_a_collection_of_another_dimension_is_refused(tmp_path: Path) -> None:
    _lite(tmp_path).close()
    with pytest.raises(Corrupt, match="8-d templates"):
        _lite(tmp_path, 16).close()


@pytest.mark.parametrize("bad", ["", "x", '" or face_id != "', "A" * 32, "0" * 31])
def test_no_string_reaches_an_expression(tmp_path: Path, bad: str) -> None:
    gallery = _lite(tmp_path)
    for call in (gallery.delete_record, lambda one: gallery.delete([one]), lambda one: gallery.get([one])):
        with pytest.raises(InvalidInput):
            call(bad)
    gallery.close()


def test_erasing_leaves_no_deleted_template_in_any_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    templates = unit_rows(generator.standard_normal((3_000, DIMENSION)))
    rows = [
        replace(row, template=template)
        for row, template in zip(World(Random(3)).distinct_rows(3_000), templates, strict=True)
    ]
    gallery = _lite(tmp_path)
    gallery.upsert(rows[:2_000])
    gallery.flush()
    gallery.upsert(rows[2_000:])
    gone, left = rows[::20], [row for number, row in enumerate(rows) if number % 20]
    gallery.delete([row.face_id for row in gone])
    gallery.flush()
    assert _found_in_files(tmp_path, gone), "the search of the files must find what is not yet erased"
    state = gallery.erase()
    assert state.erased
    assert state.pending_until is None
    assert not _found_in_files(tmp_path, gone)
    assert held(gallery.iterate()) == values(left)
    gallery.upsert(rows[:1])
    gallery.close()
    assert not _found_in_files(tmp_path, gone[1:])
    gallery = _lite(tmp_path)
    assert gallery.count() == len(left) + 1
    gallery.close()


def _found_in_files(folder: Path, rows: list[FaceRow]) -> set[str]:
    """Files in which a template or a face id of the rows lies, openly or within Parquet."""
    import pyarrow.parquet as parquet

    found = set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            for column in parquet.read_table(path).columns:
                for chunk in column.chunks:
                    raw += b"".join(buffer.to_pybytes() for buffer in chunk.buffers() if buffer is not None)
                    values_of = getattr(chunk, "values", None)
                    if values_of is not None:
                        raw += values_of.to_numpy(zero_copy_only=False).tobytes()
        if any(row.template.tobytes() in raw or row.face_id.encode() in raw for row in rows):
            found.add(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("switched", [True, False])
def test_a_rewrite_that_a_crash_interrupted_is_recovered(tmp_path: Path, switched: bool) -> None:
    rows = World(Random(4)).distinct_rows(50)
    gallery = _lite(tmp_path)
    gallery.upsert(rows)
    lite = gallery._connection.lite
    assert lite is not None
    new = lite.next_name(COLLECTION)
    create_collection(gallery._connection, new, DIMENSION, "half done")
    columns = from_rows(rows if switched else rows[:7], DIMENSION)
    gallery._put(new, columns, gallery._connection.client._get_connection().batch_insert)
    if switched:
        gallery._flush(new)
        lite.use(COLLECTION, new)
    gallery.close()
    gallery = _lite(tmp_path)
    assert held(gallery.iterate()) == values(rows)
    assert gallery._connection.client.list_collections() == [new if switched else COLLECTION]
    assert gallery.erase().erased
    assert held(gallery.iterate()) == values(rows)
    gallery.close()


_WRITER = """
import sys, time
from pathlib import Path
from random import Random
from homeward.config import GallerySettings
from index.open import open_gallery
from tests.index.random_rows import DIMENSION, World
gallery = open_gallery(GallerySettings(), Path(sys.argv[1]), "test-model", DIMENSION)
rows = World(Random(5)).distinct_rows(1_200)
gallery.upsert(rows)
gallery.delete([row.face_id for row in rows[:100]])
print("written", flush=True)
while sys.argv[2] == "erase":
    gallery.erase()
time.sleep(60)
"""


@pytest.mark.parametrize(("doing", "after_s"), [("nothing", 0.0), ("erase", 0.5)])
def test_what_was_written_outlives_kill_9(tmp_path: Path, doing: str, after_s: float) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path), doing],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"written\n"
        time.sleep(after_s)  # somewhere within a rewrite
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    gallery = _lite(tmp_path)
    rows = World(Random(5)).distinct_rows(1_200)
    assert held(gallery.iterate()) == values(rows[100:])
    gallery.close()


def test_a_file_where_the_folder_should_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / LITE_FOLDER).write_bytes(b"no folder")
    with pytest.raises(StoreUnavailable):
        _lite(tmp_path)


def test_a_server_that_is_not_there_is_unavailable_in_time(tmp_path: Path) -> None:
    settings = GallerySettings(uri=f"http://127.0.0.1:{free_port()}", timeout_s=2.0)
    before = datetime.now(UTC)
    with pytest.raises(StoreUnavailable) as refused:
        open_gallery(settings, tmp_path, MODEL, DIMENSION)
    assert refused.value.details["store"] == "gallery"
    assert datetime.now(UTC) - before < timedelta(seconds=60)  # not the client's minutes of trying again


def test_a_server_that_goes_silent_is_unavailable_in_time(milvus_server: Milvus, tmp_path: Path) -> None:
    """Through a relay that stops passing bytes on: the connection stays, nothing comes back."""
    with _Relay(milvus_server.port) as relay:
        settings = GallerySettings(
            uri=f"http://127.0.0.1:{relay.port}", collection=f"t{secrets.token_hex(4)}", timeout_s=8.0
        )
        gallery = open_gallery(settings, tmp_path, MODEL, DIMENSION)
        rows = World(Random(6)).distinct_rows(3)
        gallery.upsert(rows)
        gallery._timeout_s = 0.5
        gallery._connection = replace(gallery._connection, timeout_s=0.5)
        relay.silent.set()
        calls: list[Any] = [
            lambda: gallery.upsert(rows),
            lambda: gallery.delete([rows[0].face_id]),
            lambda: gallery.delete_record(rows[0].record_id),
            lambda: gallery.get([rows[0].face_id]),
            lambda: list(gallery.iterate()),
            gallery.count,
            lambda: gallery.search(Query(rows[0].template[None], k=1)),
        ]
        before = datetime.now(UTC)
        for call in calls:
            with pytest.raises(StoreUnavailable):
                call()
        assert datetime.now(UTC) - before < timedelta(seconds=60)


class _Relay:
    """A TCP relay to a loopback port that can be told to pass nothing on."""

    def __init__(self, target: int) -> None:
        self.silent = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []

    def __enter__(self) -> _Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if not self.silent.is_set():
                    target.sendall(data)
        except OSError:
            return


def test_a_search_fetches_more_until_the_list_is_certain(tmp_path: Path) -> None:
    """Two records hold all of the best rows, more than one fetch brings."""
    world = World(Random(7), records=40, faces=6_000, templates=30)
    rows = world.distinct_rows(1_000)
    rows = [
        replace(row, record_id=hex_id("record", number % 2), template=world.pool()[0])
        if number < 500
        else row
        for number, row in enumerate(rows)
    ]
    gallery = _lite(tmp_path)
    gallery.upsert(rows)
    gallery.flush()
    columns = from_rows(rows, DIMENSION)
    for k in (3, 39):
        query = Query(world.pool()[:1], k=k)
        assert gallery.search(query).candidates == reference.search(query, columns).candidates
    gallery.close()


class _Liar:
    """A client whose search goes wrong in one way."""

    def __init__(self, client: Any, lie: str) -> None:
        self._client, self._lie = client, lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search(self, *arguments: Any, **named: Any) -> Any:
        answers = [list(hits) for hits in self._client.search(*arguments, **named)]
        if self._lie == "loses the best row":
            return [hits[1:] for hits in answers]
        if self._lie == "finds nothing":
            return [[] for _ in answers]
        if self._lie == "says a row twice":
            return [[hits[0], *hits[:-1]] for hits in answers]
        return [[{**hit, "distance": hit["distance"] * 0.9} for hit in hits] for hits in answers]


@pytest.mark.parametrize("lie", ["loses the best row", "finds nothing", "wrong products", "says a row twice"])
def test_a_search_does_not_believe_wrong_answers(tmp_path: Path, lie: str) -> None:
    world = World(Random(10))
    rows = world.distinct_rows(40)
    gallery = _lite(tmp_path)
    gallery.upsert(rows)
    told = gallery._connection
    gallery._connection = replace(told, client=_Liar(told.client, lie))
    columns = from_rows(rows, DIMENSION)
    for _ in range(5):
        query = world.query()
        assert gallery.search(query).candidates == reference.search(query, columns).candidates
    gallery.close()


def test_rows_compare_by_their_bits() -> None:
    row = World(Random(1)).row(1)
    other = replace(row, template=np.nextafter(row.template, np.float32(2)))
    assert as_values(row) != as_values(other)
