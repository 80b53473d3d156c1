"""kill -9 of a backup and of a restore: never half of one that looks whole, and the next run ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogue.open import open_catalogue
from catalogue.restoring import RESTORING
from cluster.backup.create import create
from cluster.backup.place import open_place
from cluster.backup.restore import restore
from cluster.backup.stores import open_stores
from cluster.backup.verify import Backup
from homeward.errors import Conflict
from tests.cluster.backup.killed import kill_at
from tests.cluster.backup.whole import check_same
from tests.cluster.backup.world import KEY, contents, embedded, fill, opened
from tests.cluster.fakes import MODEL_ID


def test_what_is_killed_is_no_backup_and_a_restore_goes_on(tmp_path: Path) -> None:
    source, target = embedded(tmp_path / "old"), embedded(tmp_path / "new")
    place = str(tmp_path / "backup")
    with open_stores(source) as stores:
        fill(stores)
        before = contents(stores)
    for step, count in (("catalogue/faces", 1), ("photos", 2)):
        kill_at("create", source, place, step, count)
        with pytest.raises(Conflict) as refused:
            Backup(open_place(place, source, there=True), KEY)
        assert refused.value.code == "BACKUP_INCOMPLETE"
    with open_stores(source) as stores:
        documents = open_place(place, source, there=True)
        manifest = create(stores, documents, KEY)
        left = len(documents.list_documents())
        assert left == len(manifest.pieces) + 2  # nothing of those that were killed

    for step, count in (("verify", 3), ("restore catalogue", 8)):  # nothing written, or undone
        kill_at("restore", target, place, step, count)
        catalogue = open_catalogue(target.catalogue, target.data_dir)
        assert (catalogue.counts().records, catalogue.rev()) == (0, 0)
        catalogue.close()
    for count in (1, 2):
        kill_at("restore", target, place, "restore templates and photos", count)
        with pytest.raises(Conflict) as kept_out:
            open_catalogue(target.catalogue, target.data_dir)
        assert kept_out.value.code == "RESTORE_UNFINISHED"
    seen: list[str] = []
    with opened(target) as stores:
        backup = Backup(open_place(place, target, there=True), KEY)
        assert '"done": 3' in str(stores.catalogue.get_meta(RESTORING))  # the second went on after the first
        restore(backup, stores, MODEL_ID, lambda step, _done, _of: seen.append(step))
        check_same(before, contents(stores))
    assert set(seen) == {"restore templates and photos"}
    open_catalogue(target.catalogue, target.data_dir).close()
