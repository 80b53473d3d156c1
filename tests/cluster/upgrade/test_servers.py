"""Which servers an upgrade waits for: those that said something lately, by the catalogue's time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.upgrade_types import UpgradeModel
from cluster.load.patience import Stopped
from cluster.upgrade.servers import ALIVE, ServerNote, ServerNotes, Servers
from homeward.config import CatalogueSettings
from homeward.errors import Conflict

OLD, NEW = UpgradeModel("default", "a" * 16, 128), UpgradeModel("better", "b" * 16, 512)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = open_catalogue(CatalogueSettings(), tmp_path)
    yield opened
    opened.close()


def server(name: str, serving: UpgradeModel, *loaded: UpgradeModel) -> ServerNote:
    return ServerNote(name, f"{name}:50051", serving.model_id, tuple(model.model_id for model in loaded))


def at(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, later: timedelta) -> None:
    now = datetime.now(UTC) + later
    monkeypatch.setattr(catalogue, "shared_now", lambda: now)


def test_servers_are_alive_by_the_time_of_the_catalogue_for_as_long_as_they_said_something(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = ServerNotes(catalogue)
    at(catalogue, monkeypatch, timedelta(hours=5))  # no process's clock says so
    notes.tell(server("late", OLD, OLD))
    at(catalogue, monkeypatch, timedelta(hours=5) + ALIVE / 2)
    notes.tell(server("early", OLD, OLD, NEW))
    assert [note.name for note in notes.alive()] == ["early", "late"]
    at(catalogue, monkeypatch, timedelta(hours=5) + ALIVE * 1.1)
    assert [note.name for note in notes.alive()] == ["early"]
    notes.leave("early")
    assert notes.alive() == []


def test_what_is_waited_for_is_named_once_and_waited_for_until_it_is_so(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, told = ServerNotes(catalogue), list[str]()
    notes.tell(server("one", OLD, OLD, NEW))
    notes.tell(server("two", OLD, OLD))

    def tell(said: str) -> None:
        told.append(said)
        notes.tell(server("two", OLD, OLD, NEW))

    servers = Servers(notes, threading.Event(), tell)
    servers.wait_loaded(NEW)
    servers.wait_serving(OLD)
    assert told == ["waiting for two:50051 to load better"]
    monkeypatch.setattr("cluster.upgrade.servers.SERVERS_S", 0.0)
    with pytest.raises(Conflict, match="one:50051, two:50051 took more") as raised:
        Servers(notes, threading.Event(), told.append).wait_serving(NEW)
    assert raised.value.code == "SERVERS_NOT_READY"


def test_waiting_ends_when_the_operator_says_so(catalogue: Catalogue) -> None:
    notes, stop = ServerNotes(catalogue), threading.Event()
    notes.tell(server("one", OLD, OLD, NEW))
    stop.set()
    with pytest.raises(Stopped):
        Servers(notes, stop, print).wait_unloaded(NEW)
