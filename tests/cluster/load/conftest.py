"""Data folders with the fake model, an archive to load into them, and what comes of an undisturbed load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.load.archives import KINDS
from tests.cluster.load.exported import Export, outcomes
from tests.cluster.load.fast import Faults, World
from tests.cluster.load.small_loads import TREE, held


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return KINDS["folder"](TREE, tmp_path)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, list[object], dict[str, int]]:
    """What a load that nothing disturbs leaves behind, and how often each step is called."""
    folder = tmp_path_factory.mktemp("loads")
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, folder / "data")
        faults = Faults(monkeypatch)
        world.start("march", KINDS["tar"](TREE, folder))
        calls = dict(faults.calls)
        return held(world), [*outcomes(world.settings, "march")], calls
