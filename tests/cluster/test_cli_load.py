"""`homeward load` as a person runs it, over the embedded stores, with the real model and few photos."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner, Result

from cluster.cli.main import app
from cluster.cli.state import State, configure


@pytest.fixture(autouse=True)
def _own_state() -> None:
    configure(State())


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--data-dir", str(folder), *arguments])


def as_json(folder: Path, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    found = CliRunner().invoke(app, ["--data-dir", str(folder), "--json", *arguments])
    return found.exit_code, [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records with one face: the same picture, saved twice; one without; and a file that is no photo."""
    folder = tmp_path_factory.mktemp("archive")
    face = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    for name, image, quality in (
        ("2011-17/portrait.jpg", face, 92),
        ("2014-3/copy.jpg", face.resize((400, 400)), 70),
        ("2015-1/coffee.jpg", Image.fromarray(data.coffee()), 80),  # type: ignore[no-untyped-call]
    ):
        path = folder / name
        path.parent.mkdir()
        image.save(path, quality=quality)
    (folder / "2015-1" / "notes.txt").write_text("no photo")
    return folder


def test_a_load_from_its_dry_run_to_its_undoing(archive: Path, tmp_path: Path) -> None:
    where, home = ["--agency", "XX", "--gallery", "missing"], tmp_path / "home"
    tried = run(home, "load", "start", "march", str(archive), *where, "--dry-run")
    assert "4 photos of 3 records" in tried.output
    assert "nothing was written" in tried.output
    assert run(home, "load", "status").output.startswith("no load was started yet")

    done = run(home, "load", "start", "march", str(archive), *where)
    assert done.exit_code == 6  # two photos give nothing
    assert "4 photos accounted for" in done.stderr
    assert run(home, "load", "start", "march", str(archive), *where).exit_code == 4
    assert run(home, "load", "resume", "march").exit_code == 6  # as it was said when it was done
    assert run(home, "load", "start", "march", str(archive), *where, "--resume").exit_code == 6
    more = run(home, "load", "start", "march", str(archive), str(archive.parent), *where, "--resume")
    assert (more.exit_code, "a name of its own" in more.stderr) == (4, True)

    page, table = tmp_path / "march.html", tmp_path / "rejected.csv"
    told = run(home, "load", "report", "march", "--html", str(page), "--csv", str(table))
    assert told.exit_code == 0
    assert "all 4 photos of its input are accounted for, each once" in told.output
    assert "2011-17 and 2014-3 (1 pictures)" in told.output
    assert "identification" in page.read_text(encoding="utf-8")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "PHOTO_FORMAT_UNKNOWN" in table.read_text(encoding="utf-8")
    code, said = as_json(home, "load", "status", "march")
    assert (code, said[0]["state"], said[0]["photos"], said[0]["faces"]) == (0, "done", 4, 2)

    undone = run(home, "load", "undo", "march", "--yes")
    assert undone.exit_code == 0
    code, said = as_json(home, "load", "status")
    assert said[0]["state"] == "undone"
    assert run(home, "load", "resume", "march").exit_code == 4


def test_a_source_that_cannot_be_read_leaves_the_name_free(archive: Path, tmp_path: Path) -> None:
    where = ["--agency", "XX", "--gallery", "missing"]
    wrong = run(tmp_path, "load", "start", "march", str(archive / "none"), *where)
    assert wrong.exit_code == 2
    assert "SOURCE_UNREADABLE" in wrong.stderr
    assert run(tmp_path, "load", "status", "march").exit_code == 3


@pytest.mark.parametrize("name", ["March", "a/b", "", "x" * 41, "-march"])
def test_a_name_that_could_not_name_documents_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    found = run(tmp_path, "load", "start", "--agency", "XX", "--gallery", "missing", "--", name, str(archive))
    assert found.exit_code == 2
    assert "LOAD_NAME" in found.stderr


@pytest.mark.parametrize("verb", [["status"], ["resume", "x"], ["cancel", "x"], ["undo", "x", "--yes"]])
def test_naming_a_server_is_refused_before_anything_is_made(tmp_path: Path, verb: list[str]) -> None:
    found = run(tmp_path / "data", "--server", "127.0.0.1:7443", "load", *verb)
    assert found.exit_code == 2
    assert "SERVER_NOT_ASKED" in found.stderr
    assert not (tmp_path / "data").exists()


def test_the_columns_of_a_manifest_are_told() -> None:
    found = CliRunner().invoke(app, ["load", "columns"])
    assert "photo and record are required" in found.output
    assert "born_verified" in found.output
