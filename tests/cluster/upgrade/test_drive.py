"""The driver's order of things; the work itself is replaced, and tested with real models beside this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.upgrade_types import Cover, UpgradeModel, UpgradeState
from cluster.upgrade.drive import UpgradeDriver
from cluster.upgrade.work import UpgradeWork
from homeward.config import Settings
from tests.catalogue.builders import MODEL, face, rid, sha, write

OLD, NEW = UpgradeModel("old", MODEL, 8), UpgradeModel("new", "model-2", 16)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    opened = open_catalogue(settings.catalogue, settings.data_dir)
    yield opened
    opened.close()


def test_abandoning_while_embedding_keeps_what_was_enrolled_with_the_new_model(
    settings: Settings, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = catalogue.upgrades
    ledger.release(ledger.begin(OLD, NEW, "test"))
    # As a load does that was begun with the new model in an upgrade before, which was given up.
    catalogue.apply([write("a", ["p"], model=NEW.model_id)])

    def cover(work: UpgradeWork, model: UpgradeModel, *_: object) -> int:
        found = face(rid("a"), "p", model=model.model_id)
        version = catalogue.get(rid("a")).version
        ledger.cover(
            model.model_id, [Cover(rid("a"), sha("p"), version, "ENROLLED", 1, (found,))], [], work._lease
        )
        return ledger.count_uncovered(model.model_id)

    def erase(work: UpgradeWork, keep: UpgradeModel, drop: UpgradeModel, *_: object) -> None:
        ledger.retire_some(work._lease, keep.model_id, drop.model_id, "", 10)

    monkeypatch.setattr(UpgradeWork, "cover", cover)
    monkeypatch.setattr(UpgradeWork, "erase", erase)
    assert UpgradeDriver(settings, catalogue).abandon().state is UpgradeState.ABANDONED
    (photo,) = catalogue.get(rid("a")).photos
    assert [one.model_id for one in photo.faces] == [OLD.model_id]
    assert photo.model_id == OLD.model_id
