"""Reading one state of all tables while others write, and who is kept out by a restore."""

from __future__ import annotations

from typing import Any

import pytest

from catalogue.restoring import RESTORING
from catalogue.store import Catalogue
from catalogue.tables import photos, records
from homeward.errors import Conflict, StoreUnavailable
from tests.catalogue.builders import rid, write
from tests.catalogue.conftest import Place


def of(catalogue: Catalogue, *tables: Any) -> list[list[dict[str, Any]]]:
    with catalogue.snapshot() as snapshot:
        return [[row for part in snapshot.rows(table) for row in part] for table in tables]


def test_a_snapshot_sees_one_state_while_others_write(catalogue: Catalogue) -> None:
    catalogue.apply([write(f"r{number}", ["a"]) for number in range(3)])
    with catalogue.snapshot() as snapshot:
        rev = snapshot.rev
        catalogue.apply([write("later", ["b"])])
        found = [row for part in snapshot.rows(records) for row in part]
        catalogue.apply([write("last", ["c"])])
        held = [row for part in snapshot.rows(photos) for row in part]
        assert (snapshot.count(records), snapshot.rev) == (3, rev)
    assert sorted(row["record_id"] for row in found) == sorted(rid(f"r{number}") for number in range(3))
    assert len(held) == 1
    assert [len(rows) for rows in of(catalogue, records, photos)] == [5, 3]


def test_an_unfinished_restore_keeps_others_out(place: Place) -> None:
    opened = place.open()
    opened.set_meta(RESTORING, "{}")
    opened.close()
    with pytest.raises(Conflict) as refused:
        place.open()
    assert refused.value.code == "RESTORE_UNFINISHED"


def test_a_vacuum_that_would_stop_everybody_is_refused_during_a_snapshot(
    place: Place, request: pytest.FixtureRequest
) -> None:
    if not place.settings.uri:
        pytest.skip("SQLite refuses it by itself")
    opened, other = place.open(), place.open()
    with opened.snapshot(), pytest.raises(StoreUnavailable, match="backed up"):
        other.vacuum()
    other.vacuum()
    with opened.snapshot() as snapshot:  # the vacuum gave its lock back
        assert snapshot.rev == 0
    opened.close()
    other.close()


def test_nothing_is_restored_under_other_processes(place: Place) -> None:
    if not place.settings.uri:
        pytest.skip("a lock of the data folder sees to it")
    opened, other = place.open(), place.open()
    other.rev()
    with pytest.raises(Conflict) as refused:
        opened.restore([], rev=7, gone=[], mark="mark")
    assert refused.value.code == "RESTORE_IN_USE"
    other.close()
    opened.restore([], rev=7, gone=[], mark="mark")
    assert (opened.rev(), opened.get_meta(RESTORING)) == (7, "mark")
    opened.close()
