"""`homeward index` where there are no shards: what it says, and what it does not touch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.cli.main import app
from cluster.cli.state import State, configure


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOMEWARD_INDEX__WHERE", "HOMEWARD_CATALOGUE__URI"):
        monkeypatch.delenv(name, raising=False)
    configure(State())


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--data-dir", str(folder), *arguments])


def test_an_index_in_the_servers_memory_has_no_shards_and_nothing_is_wrong(tmp_path: Path) -> None:
    found = run(tmp_path / "data", "index", "status")
    assert found.exit_code == 0
    assert "each server holds the index in its memory" in found.output
    told = CliRunner().invoke(app, ["--data-dir", str(tmp_path / "data"), "--json", "index", "status"])
    assert json.loads(told.output) == {"where": "server", "shards": 0}
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("verb", [["status"], ["rebalance"], ["scale", "2"]])
def test_naming_a_server_is_refused_before_any_catalogue_is_made(tmp_path: Path, verb: list[str]) -> None:
    found = run(tmp_path / "data", "--server", "127.0.0.1:7443", "index", *verb)
    assert found.exit_code == 2
    assert "SERVER_NOT_ASKED" in found.stderr
    assert not (tmp_path / "data").exists()


def test_shards_that_no_server_would_ask_are_not_started(tmp_path: Path) -> None:
    found = run(tmp_path / "data", "index", "scale", "2")
    assert found.exit_code == 2
    assert "HOMEWARD_INDEX__WHERE=shards" in found.stderr


def test_without_any_shard_all_verbs_say_how_to_start_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEWARD_INDEX__WHERE", "shards")
    for verb in ("status", "rebalance"):
        found = run(tmp_path, "index", verb)
        assert found.exit_code == 6
        assert "homeward index scale COUNT" in found.output


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOMEWARD_INDEX__WHERE", "shard", "index.where: must be one of server, shards"),
        ("HOMEWARD_INDEX__NONSENSE", "1", "index.nonsense: there is no such setting"),
    ],
)
def test_a_wrong_setting_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    found = run(tmp_path, "index", "status")
    assert found.exit_code == 2
    assert said in " ".join(found.stderr.split())
