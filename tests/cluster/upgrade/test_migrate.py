"""`homeward models migrate` as an operator gives it, over embedded stores: from the default model, which is
real, to a bundle that finds no face in a photograph, so that every face is placed where the first one was."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from catalogue.open import open_catalogue
from catalogue.upgrade_ledger import UpgradeLedger
from cluster.cli.main import app
from cluster.cli.state import State, configure
from homeward.config import CatalogueSettings
from homeward.errors import StoreUnavailable
from tests.workers import tiny_bundle

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three records, one of them without a face, and the bundle."""
    home = tmp_path_factory.mktemp("enrolled")
    archive = tmp_path_factory.mktemp("archive")
    portrait = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    coffee = Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]
    for name, image in (
        ("one/a.jpg", portrait),
        ("two/b.jpg", portrait.resize((400, 400))),
        ("two/c.jpg", portrait.resize((450, 450))),
        ("nobody/d.jpg", coffee),
    ):
        (archive / name).parent.mkdir(exist_ok=True)
        image.save(archive / name, quality=92)
    bundle = tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny")
    where = ["--agency", "XX", "--gallery", "missing"]
    for words in (["models", "add", str(bundle)], ["load", "start", "march", str(archive), *where]):
        result = CliRunner().invoke(app, ["--data-dir", str(home), *words])
        assert result.exit_code in (0, 6), result.output
    return home


@pytest.fixture
def run(enrolled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command over a copy of that folder: exit code, and the last line."""
    home = tmp_path / "home"
    shutil.copytree(enrolled, home)
    monkeypatch.setenv("HOMEWARD_LOADS__PATIENCE_S", "0")

    def command(*words: str) -> tuple[int, dict[str, Any]]:
        configure(State())
        result = CliRunner().invoke(app, ["--data-dir", str(home), "--json", *words])
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        return result.exit_code, lines[-1] if lines else {}

    yield command
    configure(State())


def photo_files(home: Path) -> list[Path]:
    return [one for one in (home / "photos").rglob("*") if one.is_file() and len(one.name) >= 64]


def test_an_upgrade_from_its_first_word_to_its_last(run: Run, tmp_path: Path) -> None:
    assert run("models", "migrate", "status") == (0, {"state": "none", "serving": "default"})
    assert run("models", "migrate")[0] == 2
    assert run("models", "migrate", "--to", "nothing")[0] == 3
    assert run("models", "migrate", "--to", "default")[1]["error"]["code"] == "MODEL_SERVES"
    assert run("models", "migrate", "cut-over")[1]["error"]["code"] == "NO_UPGRADE"

    code, said = run("models", "migrate", "--to", "tiny")
    assert (code, said["state"], said["serving"]) == (0, "ready", "default")
    has = {model["bundle"]: model for model in said["models"]}
    assert (has["tiny"]["covered"], has["tiny"]["photos"], has["tiny"]["faces_lost"]) == (4, 4, 0)
    assert has["tiny"]["faces"] == has["tiny"]["placed"] == has["default"]["faces"] == 3
    assert run("models", "migrate", "finish", "--yes")[1]["error"]["code"] == "UPGRADE_STATE"

    code, said = run("models", "migrate", "cut-over")
    assert (code, said["state"], said["serving"]) == (0, "switched", "tiny")
    assert run("models", "migrate", "abandon", "--yes")[1]["error"]["code"] == "UPGRADE_STATE"
    assert run("models", "migrate", "roll-back")[1]["serving"] == "default"
    assert run("models", "migrate", "cut-over")[1]["serving"] == "tiny"
    code, said = run("models", "migrate", "finish", "--yes")
    assert (code, said["state"]) == (0, "finished")
    collections = [one.name for one in (tmp_path / "home" / "gallery.db" / "collections").iterdir()]
    assert len(collections) == 1

    assert run("status")[1]["model_id"].startswith("tiny-")
    code, checks = run("doctor")
    states = {check["name"]: check.get("state") for check in checks["checks"]}
    assert states["gallery"] == states["index"] == states["catalogue"] == "CHECK_STATE_OK"


def test_a_photo_that_is_gone_is_listed_and_must_be_accepted_or_restored(run: Run, tmp_path: Path) -> None:
    files = photo_files(tmp_path / "home")
    kept = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    assert run("models", "migrate", "--to", "tiny")[0] == 0
    table = tmp_path / "losses.csv"
    code, _ = run("models", "migrate", "losses", "--csv", str(table))
    assert code == 6
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert table.read_text(encoding="utf-8-sig").count("PHOTO_GONE") == 3
    code, said = run("models", "migrate", "cut-over")
    assert (code, said["error"]["code"], said["error"]["details"]["faces"]) == (4, "UPGRADE_LOSSES", "3")
    for path, content in kept.items():
        path.write_bytes(content)
    code, said = run("models", "migrate", "--to", "tiny")
    assert [model["faces_lost"] for model in said["models"]] == [0, 0]
    assert run("models", "migrate", "losses")[0] == 0
    assert run("models", "migrate", "abandon", "--yes")[1]["state"] == "abandoned"
    assert run("models", "migrate", "status")[1]["serving"] == "default"


def test_what_was_stopped_between_gallery_and_catalogue_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise StoreUnavailable("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(UpgradeLedger, "cover", fail)
        code, said = run("models", "migrate", "--to", "tiny")
    assert (code, said["error"]["message"]) == (5, "the database went away")
    code, said = run("models", "migrate", "status")
    assert (said["state"], said["message"]) == ("embedding", "the database went away")
    assert run("models", "migrate", "cut-over")[1]["error"]["code"] == "UPGRADE_STATE"
    code, said = run("models", "migrate", "--to", "tiny")
    assert (code, said["state"]) == (0, "ready")


def test_no_model_is_switched_while_a_load_is_driven(run: Run, tmp_path: Path) -> None:
    assert run("models", "migrate", "--to", "tiny")[0] == 0
    catalogue = open_catalogue(CatalogueSettings(), tmp_path / "home")
    try:
        lease = catalogue.loads.create("april", "{}", "another machine's driver")
        code, said = run("models", "migrate", "cut-over")
        assert (code, said["error"]["code"]) == (4, "LOADS_UNDER_WAY")
        assert "april" in said["error"]["message"]
        catalogue.loads.discard(lease)
    finally:
        catalogue.close()
    assert run("models", "migrate", "cut-over")[1]["serving"] == "tiny"
