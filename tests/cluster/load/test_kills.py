"""Loads whose process is killed at any step, or whose stores do not answer: resumed, nothing differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogue.load_types import LoadState
from homeward.config import LoadSettings
from homeward.errors import StoreUnavailable
from tests.cluster.load.archives import KINDS
from tests.cluster.load.exported import Export, documents_of, outcomes
from tests.cluster.load.fast import Faults, Killed, World
from tests.cluster.load.small_loads import PARTS, TREE, held

KILLS = [
    ("add_parts", 1),
    ("put_part", 3),
    ("planned", 1),
    ("settle_model", 1),
    ("put", 5),
    ("upsert", 3),
    ("apply", 2),
    ("apply", 4),
    ("put_outcome", 4),
    ("commit_part", 3),
    ("commit_part", 5),
    ("drop_part", 2),
    ("sweep_outcomes", 1),
    ("release", 1),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "call"), KILLS)
def test_a_load_that_is_killed_anywhere_comes_to_the_same_when_it_is_resumed(
    step: str,
    call: int,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    expected, said, calls = uninterrupted
    assert calls[step] >= call
    faults.kill_at(step, call, when)
    with pytest.raises(Killed):
        world.start("march", KINDS["tar"](TREE, tmp_path))
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
    ended = world.resume("march")
    assert (ended.load.state, ended.progress.photos_done) == (LoadState.DONE, len(TREE))
    world.sums("march")
    assert outcomes(world.settings, "march") == said
    assert held(world) == expected
    assert len(documents_of(world.settings, "march")) == PARTS


FAILS = ["put", "upsert", "apply", "put_outcome", "commit_part"]


@pytest.mark.parametrize("step", FAILS)
def test_a_store_that_does_not_answer_for_a_while_is_waited_for(
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    monkeypatch.setattr("cluster.load.patience.FIRST_WAIT_S", 0.05)
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.error = lambda: StoreUnavailable(f"{step} is away")
    faults.fails = lambda now, call, when: now == step and call in (2, 3) and when == "before"
    world.start("march", KINDS["tar"](TREE, tmp_path))
    assert outcomes(world.settings, "march") == uninterrupted[1]
    assert held(world) == uninterrupted[0]


def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("cluster.load.drive._SHOW_S", 0.01)
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.error = lambda: StoreUnavailable("the photo store is away")
    faults.fails = lambda step, call, when: step == "put" and call == 1 and when == "before"
    world.start("march", folder)
    assert world.display.held == {"", "the photo store is away"}


def test_when_patience_is_over_the_load_stops_and_says_why_and_goes_on_later(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    world.settings = world.settings.model_copy(update={"loads": LoadSettings(patience_s=0.1, lapse_s=20)})
    faults.error = lambda: StoreUnavailable("the gallery is away")
    faults.fails = lambda step, call, _when: step == "upsert" and call > 1
    with pytest.raises(StoreUnavailable, match="gallery is away"):
        world.start("march", KINDS["tar"](TREE, tmp_path))
    load = world.load("march")
    assert (load.state, load.message, load.driven) == (LoadState.STOPPED, "the gallery is away", False)
    faults.heal()
    assert world.resume("march").load.state is LoadState.DONE
    assert world.load("march").message == ""
    assert outcomes(world.settings, "march") == uninterrupted[1]
    assert held(world) == uninterrupted[0]
