"""What `benchmarks.kills` calls lost, doubled and different, and the archive that it loads."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import pytest

from benchmarks import kills_archive
from benchmarks.kills_archive import draw_archive
from benchmarks.kills_export import Export, compared, unaccounted
from benchmarks.kills_run import KINDS, Moved, in_turn
from homeward.errors import NotFound

WHOLE = Export({"face": [("a", "1"), ("b", "2"), ("c", "3")], "outcome": [("0", "x"), ("1", "y")]})


def test_what_is_missing_twice_or_other_is_counted() -> None:
    killed = Export({"face": [("a", "1"), ("b", "9"), ("b", "9"), ("d", "4")], "outcome": [("0", "x")]})
    found = compared(killed, WHOLE)
    assert found["face"] == {"lost": 1, "doubled": 2, "different": 1}
    assert found["outcome"] == {"lost": 1, "doubled": 0, "different": 0}
    assert killed.text() != WHOLE.text()


def test_of_the_same_nothing_is_counted() -> None:
    assert not any(sum(each.values()) for each in compared(WHOLE, WHOLE).values())


def test_every_photo_has_one_outcome() -> None:
    assert unaccounted(WHOLE, 2) == 0
    assert unaccounted(WHOLE, 3) == 1
    assert unaccounted(WHOLE, 1) == 1


def test_kinds_come_in_turn() -> None:
    assert in_turn(7) == [*KINDS, KINDS[0]]


def test_a_load_moves_by_parts_or_photos() -> None:
    assert Moved(1, 5).beyond(Moved(1, 4))
    assert not Moved(1, 5).beyond(Moved(1, 5))


def test_of_the_same_seed_the_archive_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise NotFound("no photos")

    monkeypatch.setattr(kills_archive, "shared_photos", nowhere)
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(draw_archive(tmp_path / name, 60, 3))
    one, two = made
    assert one.tar.read_bytes() == two.tar.read_bytes()
    assert one.manifest.read_bytes() == two.manifest.read_bytes()
    with one.manifest.open(encoding="utf-8", newline="") as rows, tarfile.open(one.tar) as tar:
        named = [row["photo"] for row in csv.DictReader(rows)]
        assert len(set(named)) == len(named) == one.rows >= 60
        assert set(tar.getnames()) <= set(named)
