"""Whole backups and restores, and whether both ends are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.backup.create import create
from cluster.backup.manifest import Manifest
from cluster.backup.place import open_place
from cluster.backup.restore import Restored, restore
from cluster.backup.stores import Stores, open_stores
from cluster.backup.verify import Backup
from homeward.config import Settings
from tests.cluster.backup.world import KEY, contents, fill, opened
from tests.cluster.fakes import MODEL_ID

Made = tuple[Manifest, dict[str, Any]]


def back_up(settings: Settings, place: str, prepare: Callable[[Stores], object] = fill) -> Made:
    """Fill a new system and make a backup; what it said, and what was true."""
    with open_stores(settings) as stores:
        prepare(stores)
        manifest = create(stores, open_place(place, settings, there=False), KEY)
        return manifest, contents(stores)


def bring_back(settings: Settings, place: str) -> tuple[Restored, dict[str, Any]]:
    """Restore; what it said, and what is true."""
    with opened(settings) as stores:
        done = restore(Backup(open_place(place, settings, there=True), KEY), stores, MODEL_ID)
        return done, contents(stores)


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """All is as before, but what had yet to be erased."""
    doomed = {row["item"] for row in before["erasures"]}
    expected = {
        **before,
        "gallery": {face: row for face, row in before["gallery"].items() if face not in doomed},
        "photo bytes": {at: data for at, data in before["photo bytes"].items() if at[1] not in doomed},
    }
    for name, value in expected.items():
        assert after[name] == value, name
