"""`homeward models`: list, add, install from a folder, calibrate; what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import workers.install
from cluster.cli.models import models_app
from cluster.cli.state import State, configure
from homeward.errors import HomewardError
from tests.workers import tiny_bundle
from tests.workers.tiny_people import write_people
from workers.bundle import parse_bundle
from workers.calibrate import load_calibration
from workers.registry import Installable


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line against a data folder of its own; returns exit code, JSON lines and text."""
    monkeypatch.setenv("HOMEWARD_WORKERS__MIN_FACE_PX", "20")
    monkeypatch.setenv("HOMEWARD_WORKERS__DECODE_PROCESSES", "1")

    def command(*arguments: object, as_json: bool = True) -> tuple[int, list[Any], str]:
        configure(State(data_dir=tmp_path / "data", as_json=as_json))
        result = CliRunner().invoke(models_app, [str(argument) for argument in arguments])
        if isinstance(result.exception, HomewardError):
            raise result.exception
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        return result.exit_code, lines, result.stdout

    yield command
    configure(State())


def _in_the_table(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    text = tiny_bundle.toml(files)
    entry = Installable(bundle=parse_bundle(text, "t"), text=text)
    monkeypatch.setattr(workers.install, "installable", lambda _name: entry)


def test_a_fresh_machine_has_the_default_and_is_offered_a_stronger_one(run: Any) -> None:
    code, lines, _ = run("list")
    assert code == 0
    states = {line["name"]: (line["state"], line["in_use"]) for line in lines}
    assert states == {"default": ("built in", True), "yunet-mobilefacenet": ("can be installed", False)}


def test_an_added_bundle_is_listed_and_a_damaged_one_is_named(run: Any, tmp_path: Path) -> None:
    code, lines, _ = run("add", tiny_bundle.write(tmp_path / "tiny"))
    assert (code, lines[0]["state"]) == (0, "installed")
    assert lines[0]["model_id"].startswith("tiny-")
    (tmp_path / "data" / "models" / "tiny" / "embedder.onnx").write_bytes(b"")
    code, lines, _ = run("list")
    assert code == 6
    assert {line["name"]: line["state"] for line in lines}["tiny"] == "damaged"
    assert "tiny" in run("list", as_json=False)[2]


def test_a_bundle_that_cannot_run_is_not_added(run: Any, tmp_path: Path) -> None:
    files = {"detector.onnx": tiny_bundle.detector(), "embedder.onnx": b"no graph"}
    code, lines, _ = run("add", tiny_bundle.write(tmp_path / "tiny", files=files))
    assert (code, lines[0]["error"]["code"]) == (2, "BUNDLE_INVALID")
    assert not (tmp_path / "data" / "models" / "tiny").exists()


def test_installing_from_a_folder_checks_the_files(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_bundle.write(tmp_path / "stick")
    files = {name: (source / name).read_bytes() for name in ("detector.onnx", "embedder.onnx")}
    _in_the_table(monkeypatch, files)
    code, lines, _ = run("install", "tiny", "--from", source)
    assert (code, lines[0]["name"]) == (0, "tiny")
    code, _, text = run("install", "tiny", "--from", source, as_json=False)
    assert code == 0
    assert "HOMEWARD_WORKERS__BUNDLE=tiny" in text


def test_exit_codes_say_what_went_wrong(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("install", "nothing-like-it")[0] == 3
    assert run("add", tmp_path)[0] == 3
    assert run("calibrate", "--pairs", tmp_path / "absent")[0] == 2
    source = tiny_bundle.write(tmp_path / "stick")
    files = {name: (source / name).read_bytes() for name in ("detector.onnx", "embedder.onnx")}
    _in_the_table(monkeypatch, files)
    (source / "embedder.onnx").write_bytes(files["embedder.onnx"][::-1])
    code, lines, _ = run("install", "tiny", "--from", source)
    assert (code, lines[0]["error"]["code"]) == (4, "CHECKSUM_MISMATCH")


def test_a_calibration_is_fitted_kept_and_shown(run: Any, tmp_path: Path) -> None:
    run("add", tiny_bundle.write(tmp_path / "tiny"))
    people = write_people(tmp_path / "people", 24, faceless=1)
    options = ("--pairs", people, "--bundle", "tiny", "--faces", "patterns", "--dataset", "tiny people")
    code, lines, _ = run("calibrate", *options)
    assert code == 0
    assert lines[0]["photos_without_face"] == 1
    assert (lines[0]["mated"], lines[0]["non_mated"]) == (23, 47 * 46 // 2 - 23)
    stored = load_calibration(tmp_path / "data" / "models", lines[0]["model_id"])
    assert stored is not None
    assert stored.a == lines[0]["a"]
    shown = {line["name"]: line for line in run("list")[1]}["tiny"]["calibration"]
    assert shown.startswith("tiny people (patterns), ")
    assert "natural logarithm" in run("calibrate", *options, as_json=False)[2]


def test_too_few_people_are_refused(run: Any, tmp_path: Path) -> None:
    run("add", tiny_bundle.write(tmp_path / "tiny"))
    code, lines, _ = run("calibrate", "--pairs", write_people(tmp_path / "few", 3), "--bundle", "tiny")
    assert (code, lines[0]["error"]["code"]) == (2, "TOO_FEW_PAIRS")
    assert not (tmp_path / "data" / "models" / "tiny" / "calibration.toml").exists()
