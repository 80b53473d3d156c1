"""What a dry run reads, holds and says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli.load_output import print_look
from cluster.load.dry_run import try_load
from cluster.load.part_reader import PartReader, ReadPhoto
from cluster.load.plan_types import PlannedPhoto
from cluster.load.spec import read_spec
from tests.cluster.fakes import fake_photo
from tests.cluster.load.fast import World, spec_of


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(monkeypatch, tmp_path / "home")
    monkeypatch.setattr("cluster.load.dry_run.open_bulk", made._open_bulk)
    return made


def archive(tmp_path: Path, photos: int) -> Path:
    folder = tmp_path / "archive"
    for number in range(photos):
        path = folder / "A" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fake_photo(str(number)).ljust(1000, b"."))
    return folder


def test_no_more_of_the_sample_is_in_memory_than_fits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.load.dry_run.SAMPLE_BYTES", 3000)
    read_since = 0
    most: list[int] = []
    real = PartReader.read

    def read(reader: PartReader, planned: PlannedPhoto) -> ReadPhoto:
        nonlocal read_since
        read_since += 1
        most.append(read_since)
        return real(reader, planned)

    def embed(_photos: list[bytes]) -> None:
        nonlocal read_since
        read_since = 0

    monkeypatch.setattr(PartReader, "read", read)
    world.model.before = embed
    found = try_load(spec_of(archive(tmp_path, 10)), world.settings)
    assert (found.tried, found.faces) == (10, 10)
    assert max(most) == 3
    assert found.photos_per_s > 0


def test_columns_that_are_not_read_are_shown_without_what_steers_a_terminal(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(b"photo,record,gr\xf6\xdfe,\x1b[31mred\nA/00.png,A,1,2\n\x1b]0;t,B,1,2\n")
    print_look(try_load(spec_of(archive(tmp_path, 1), manifest=str(manifest)), world.settings))
    said = capsys.readouterr().out
    assert "gr\\xf6\\xdfe, \\x1b[31mred" in said
    assert "\x1b" not in said


def test_a_load_goes_on_past_a_column_of_other_bytes_and_notes_it(world: World, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(b"photo,record,gr\xf6\xdfe\nA/00.png,A,1\n")
    assert world.start("march", archive(tmp_path, 1), manifest=str(manifest)).progress.photos_done == 1
    assert read_spec(world.load("march").spec).unknown_columns == ("gr\\xf6\\xdfe",)
