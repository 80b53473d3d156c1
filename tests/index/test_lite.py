"""The folder of Milvus Lite: who may read it, and what a crash in it may cost (nothing)."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from homeward.config import GallerySettings
from homeward.errors import Corrupt, StoreUnavailable
from index.gallery import MilvusGallery
from index.lite import LiteFolder
from index.milvus import LITE_FOLDER, collection_name
from index.open import drop_gallery, open_gallery
from tests.index.contract import same
from tests.index.random_rows import DIMENSION, World

MODEL = "test-model"
BASE = collection_name("homeward", MODEL)


def _open(folder: Path) -> MilvusGallery:
    return open_gallery(GallerySettings(), folder, MODEL, DIMENSION)


def _lite(gallery: MilvusGallery) -> LiteFolder:
    lite = gallery._connection.lite
    assert lite is not None
    return lite


def test_nobody_else_can_reach_the_engine(tmp_path: Path) -> None:
    gallery = _open(tmp_path)
    socket = _lite(gallery)._socket
    try:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert [stat.S_ISSOCK(one.stat().st_mode) for one in socket.iterdir()] == [True]
        assert stat.S_IMODE((tmp_path / LITE_FOLDER).stat().st_mode) == 0o700
    finally:
        gallery.close()
    assert not socket.exists()


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    gallery = _open(tmp_path)
    program = (
        "import sys; from pathlib import Path; from homeward.config import GallerySettings\n"
        "from homeward.errors import StoreUnavailable; from index.open import open_gallery\n"
        "try: open_gallery(GallerySettings(), Path(sys.argv[1]), 'test-model', 8)\n"
        "except StoreUnavailable as error: print(error.message)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "is open in another process" in child.stdout
    assert "Traceback" not in child.stderr
    gallery.close()


def test_the_folder_can_be_opened_again_after_its_last_user_closed_it(tmp_path: Path) -> None:
    first, second = _open(tmp_path), _open(tmp_path)
    assert _lite(first) is _lite(second)
    first.close()
    second.upsert(World(Random(1)).distinct_rows(3))
    second.close()
    third = _open(tmp_path)
    assert third.count() == 3
    third.close()


@pytest.mark.parametrize("lost", ["schema.json", "partitions", "everything"])
def test_a_crash_while_the_old_collection_is_removed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Whatever part of the old files was gone already, the copy is the gallery."""
    rows = World(Random(2)).distinct_rows(40)
    gallery = _open(tmp_path)
    gallery.upsert(rows)
    gallery.flush()
    gallery.delete([rows[0].face_id])

    def half(lite: LiteFolder, collection: str) -> None:
        folder = lite.path / "collections" / collection
        if not folder.exists():
            return
        if lost == "everything":
            shutil.rmtree(folder)
        elif lost == "partitions":
            shutil.rmtree(folder / lost)
        else:
            (folder / lost).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LiteFolder, "remove", half)
        with pytest.raises(KeyboardInterrupt):
            gallery.erase()
    gallery.close()
    gallery = _open(tmp_path)
    assert same(gallery.get([row.face_id for row in rows]), rows[1:])
    assert gallery.count() == 39
    assert [one.name for one in (tmp_path / LITE_FOLDER / "collections").iterdir()] == [f"{BASE}_1"]
    gallery.close()


def test_nothing_is_removed_when_it_is_unclear_which_collection_is_in_use(tmp_path: Path) -> None:
    rows = World(Random(3)).distinct_rows(20)
    gallery = _open(tmp_path)
    gallery.upsert(rows)
    assert gallery.erase().erased
    gallery.close()
    pointer = tmp_path / LITE_FOLDER / "in-use.json"
    told = json.loads(pointer.read_text())
    for wrong in (None, '{"x', json.dumps({BASE: f"{BASE}_7"})):
        pointer.unlink(missing_ok=True)
        if wrong is not None:
            pointer.write_text(wrong)
        with pytest.raises(Corrupt, match="restore"):
            _open(tmp_path)
    pointer.write_text(json.dumps(told))
    gallery = _open(tmp_path)
    assert gallery.count() == 20
    gallery.close()


def test_a_creation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    (tmp_path / LITE_FOLDER / "collections" / BASE).mkdir(parents=True)
    gallery = _open(tmp_path)
    gallery.upsert(World(Random(4)).distinct_rows(3))
    assert gallery.count() == 3
    gallery.close()


def test_readers_miss_nothing_while_rows_are_flushed_and_rewritten(tmp_path: Path) -> None:
    rows = World(Random(5)).distinct_rows(60)
    gallery = _open(tmp_path)
    gallery.upsert(rows)
    faces = [row.face_id for row in rows]
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            try:
                found = len(gallery.get(faces)), gallery.count()
                paged = sum(len(page) for page in gallery.iterate(batch=25))
            except StoreUnavailable as error:
                wrong.append(error)
                return
            if (*found, paged) != (60, 60, 60):
                wrong.append((*found, paged))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(6):
        gallery.upsert(rows[:20])
        gallery.flush()
        assert gallery.erase().erased
    done.set()
    for reader in readers:
        reader.join()
    gallery.close()
    assert not wrong


def test_a_rewrite_takes_along_every_gallery_of_the_model_that_is_open(tmp_path: Path) -> None:
    one, other = _open(tmp_path), _open(tmp_path)
    rows = World(Random(3)).distinct_rows(6)
    one.upsert(rows)
    other.delete([rows[0].face_id])
    assert one.erase().erased
    assert other.count() == 5
    other.upsert(rows[:1])
    assert one.count() == 6
    other.close()
    one.close()


def test_a_dropped_gallery_leaves_no_file_and_can_be_begun_anew(tmp_path: Path) -> None:
    gallery = _open(tmp_path)
    rows = World(Random(4)).distinct_rows(3)
    gallery.upsert(rows)
    gallery.erase()
    gallery.close()
    for _ in range(2):
        drop_gallery(GallerySettings(), tmp_path, MODEL)
        assert list((tmp_path / LITE_FOLDER / "collections").iterdir()) == []
    gallery = _open(tmp_path)
    assert gallery.count() == 0
    gallery.upsert(rows)
    assert gallery.count() == 3
    gallery.close()
