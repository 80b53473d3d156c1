"""The command line as a person and a script meet it: real processes, a real server, a real model."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from tests.shared import SHARED, needs_shared

HOMEWARD = str(Path(sys.executable).with_name("homeward"))
CASE = ("--case", "T-1", "--purpose", "test", "--as", "tester")


@dataclass(frozen=True, slots=True)
class Cli:
    """The command with a data folder of its own, served by a process."""

    data_dir: Path

    def __call__(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        done = self.run("--json", *arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HOMEWARD, "--data-dir", str(self.data_dir), *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    data_dir = tmp_path_factory.mktemp("homeward")
    server = subprocess.Popen(
        [HOMEWARD, "--json", "--data-dir", str(data_dir), "serve", "--address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["data_dir"] == str(data_dir)
        yield Cli(data_dir)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<reference>/<photo>`: a portrait, and somebody whose photo shows no face."""
    folder = tmp_path_factory.mktemp("people")
    portrait = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    for name, image in (("collins", portrait), ("nobody", Image.new("RGB", (320, 240), "grey"))):
        (folder / name).mkdir()
        image.save(folder / name / "photo.png")
    portrait.rotate(4, Image.Resampling.BICUBIC).resize((400, 400)).save(folder / "probe.jpg", quality=85)
    return folder


def test_a_folder_is_enrolled_and_one_useless_photo_costs_only_itself(cli: Cli, people: Path) -> None:
    answers = cli("enrol", str(people), "--agency", "XX", "--choice", "central", code=6)
    outcomes = {
        answer["record"]["key"]["external_reference"]: answer["outcomes"][0]["code"] for answer in answers
    }
    assert outcomes == {"collins": "ENROLLED", "nobody": "NO_FACE"}
    listed = cli("records", "list", "--unsearchable")
    assert [record["key"]["external_reference"] for record in listed] == ["nobody"]
    assert listed[0]["unsearchable_reason"] == "NO_FACE"


def test_another_photo_finds_the_enrolled_person_and_the_page_is_private(
    cli: Cli, people: Path, tmp_path: Path
) -> None:
    cli("enrol", str(people / "collins"), "--agency", "XX", "--choice", "central")
    page = tmp_path / "list.html"
    answer = cli("search", str(people / "probe.jpg"), *CASE, "--html", str(page))[0]
    first = answer["lists"][0]["candidates"][0]
    assert first["key"]["external_reference"] == "collins"
    assert first["comparison_score"] > 0.9
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text()
    assert text.count("data:image/") >= 2  # the probe's face and the candidate's
    assert not re.search(r"<script|https?://|src=\"(?!data:)", text)
    assert "not an identification" in text


def test_a_terminal_gets_a_table_that_calls_nobody_a_match(cli: Cli, people: Path) -> None:
    cli("enrol", str(people / "collins"), "--agency", "XX", "--choice", "central")
    done = cli.run("search", str(people / "probe.jpg"), *CASE)
    assert done.returncode == 0
    assert "collins" in done.stdout
    assert "not an identification" in done.stdout
    assert "match" not in done.stdout.lower()
    record = cli("search", str(people / "probe.jpg"), *CASE)[0]["lists"][0]["candidates"][0]["record_id"]
    assert record in done.stdout  # whole, to be copied
    assert record in cli.run("records", "list").stdout


def test_a_search_of_a_gallery_that_nobody_enrolled_in_says_that_nobody_was_searched(
    cli: Cli, people: Path
) -> None:
    cli("enrol", str(people / "collins"), "--agency", "XX", "--choice", "central")
    done = cli.run("search", str(people / "probe.jpg"), *CASE, "--gallery", "Missing")
    assert "nobody was searched" in done.stdout
    assert "threshold" not in done.stdout


def test_a_page_that_cannot_be_written_is_refused_before_the_search(cli: Cli, people: Path) -> None:
    probe = str(people / "probe.jpg")
    error = cli("search", probe, *CASE, "--html", "/nowhere/list.html", code=2)[0]["error"]
    assert error["code"] == "PATH_MISSING"


def test_a_search_without_a_case_is_refused(cli: Cli, people: Path) -> None:
    probe = str(people / "probe.jpg")
    assert cli.run("search", probe, "--purpose", "test", "--as", "tester").returncode == 2
    error = cli("search", probe, "--case", " ", "--purpose", "test", "--as", "tester", code=2)[0]["error"]
    assert error["code"] == "CASE_REQUIRED"


def test_bytes_that_are_no_photo_give_a_reason_code(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"hello")
    error = cli("search", str(tmp_path / "x.jpg"), *CASE, code=2)[0]["error"]
    assert error["code"] == "PHOTO_FORMAT_UNKNOWN"
    answer = cli("enrol", str(tmp_path / "x.jpg"), "--agency", "XX", "--reference", "bad", code=6)[0]
    assert answer["outcomes"][0]["code"] == "PHOTO_FORMAT_UNKNOWN"


def test_a_path_that_is_not_there_is_named(cli: Cli) -> None:
    error = cli("enrol", "/nowhere/at/all", "--agency", "XX", code=2)[0]["error"]
    assert error["code"] == "PATH_MISSING"
    assert "/nowhere/at/all" in error["message"]


def test_the_same_photo_compared_with_itself_scores_one(cli: Cli, people: Path) -> None:
    probe = str(people / "probe.jpg")
    answer = cli("compare", probe, probe, *CASE)[0]
    assert answer["comparison_score"] == pytest.approx(1.0, abs=1e-6)


def test_a_deleted_record_is_gone_from_searches_and_listings(cli: Cli, people: Path) -> None:
    answer = cli("enrol", str(people / "collins"), "--agency", "YY", "--choice", "central")[0]
    record = answer["record"]["record_id"]
    cli("delete", record, "--as", "tester", "--reason", "test", "--yes")
    assert cli("records", "get", record, code=3)[0]["error"]["code"] in {"NOT_FOUND", "RECORD_DELETED"}
    found = cli("search", str(people / "probe.jpg"), *CASE)[0]
    candidates = found["lists"][0].get("candidates", [])
    assert record not in [candidate["record_id"] for candidate in candidates]


def test_photos_of_a_record_come_back_byte_for_byte(cli: Cli, people: Path, tmp_path: Path) -> None:
    answer = cli("enrol", str(people / "collins"), "--agency", "XX", "--choice", "central")[0]
    cli("records", "get", answer["record"]["record_id"], "--photos-to", str(tmp_path / "out"))
    original = (people / "collins" / "photo.png").read_bytes()
    assert original in [path.read_bytes() for path in (tmp_path / "out").iterdir()]


def test_doctor_finds_nothing_wrong_with_a_healthy_server(cli: Cli) -> None:
    states = {check["name"]: check["state"] for check in cli("doctor")[0]["checks"]}
    assert states
    assert "CHECK_STATE_FAILED" not in states.values(), states


def test_a_second_server_on_the_same_folder_is_refused(cli: Cli) -> None:
    error = cli("serve", "--address", "127.0.0.1:0", code=4)[0]["error"]
    assert error["code"] == "DATA_DIR_OWNED"


def test_a_routable_address_without_tls_is_refused(tmp_path: Path) -> None:
    alone = Cli(tmp_path / "other")
    error = alone("serve", "--address", "0.0.0.0:0", code=2)[0]["error"]
    assert error["code"] == "TLS_REQUIRED"


def test_without_a_server_a_verb_starts_its_own_for_the_call(tmp_path: Path) -> None:
    answer = Cli(tmp_path / "fresh")("status")[0]
    assert answer["model_id"]
    assert answer.get("rows", "0") == "0"


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    config = tmp_path / "homeward.toml"
    config.write_text("[search]\nmax_kk = 5\n")
    error = Cli(tmp_path)("--config", str(config), "status", code=2)[0]["error"]
    assert error["code"] == "CONFIG_INVALID"
    assert "search.max_kk" in error["message"]


def test_help_comes_without_loading_the_model() -> None:
    code = (
        "import sys; sys.argv = ['homeward', 'search', '--help']\n"
        "from cluster.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'ray', 'pymilvus', 'sqlalchemy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--case" in done.stdout


@needs_shared
def test_every_kind_of_hostile_file_gets_an_answer_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    assert SHARED is not None
    files = sorted(path for path in (SHARED / "photos" / "odd").rglob("*") if path.is_file())
    for number, path in enumerate(files[:: 1 if os.environ.get("HOMEWARD_ALL_ODD") else 7]):
        folder = tmp_path / "odd" / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / path.name).symlink_to(path)
    answers = cli("enrol", str(tmp_path / "odd"), "--agency", "ZZ", "--choice", "central", code=6)
    assert len(answers) == len(list((tmp_path / "odd").iterdir()))
    assert all(answer["outcomes"][0]["code"] for answer in answers)
    assert cli("status")[0]["model_id"]
