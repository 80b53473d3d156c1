"""What is kept of a load when something else is wrong: damage, another version, a model that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from catalogue.types import Deletion
from cluster.load import outcome_file
from cluster.load.load_documents import LoadDocuments
from cluster.load.outcome_types import Became
from homeward.errors import Corrupt, HomewardError, NotFound, WorkerUnavailable
from homeward.types import PhotoFaces
from tests.cluster.load.fast import World, content_of
from tests.cluster.load.small_loads import TREE, became, erase, id_of
from workers.bulk import Photo


def test_a_damaged_outcome_goes_whole_with_a_deletion_and_holds_no_other_back(
    world: World, folder: Path
) -> None:
    world.start("march", folder)
    with world.open() as (_, catalogue, documents):
        parts = catalogue.loads.parts("march")
        damaged = next(part for part in parts if "B" in _references(documents, part.document))
        _damage(documents, damaged.document)
        for reference in "BC":
            catalogue.delete(Deletion(id_of(reference), "asked for", "officer 7"))
        erase(world, catalogue, documents)
        assert catalogue.pending_erasures() == []
        with pytest.raises(NotFound):
            documents.get_outcome(damaged.document)
        for part in parts:
            if part != damaged:
                assert not _references(documents, part.document) & {"B", "C"}


def test_an_outcome_that_a_newer_version_wrote_is_left_to_it(world: World, folder: Path) -> None:
    world.start("march", folder)
    with world.open() as (_, catalogue, documents), pytest.MonkeyPatch.context() as patched:
        written = catalogue.loads.parts("march")[0].document
        outcome = documents.get_outcome(written)
        patched.setattr(outcome_file, "_FORMAT", 1 + outcome_file._FORMAT)
        documents._documents.put_document(written, outcome_file.write_outcome(outcome))
        patched.undo()
        for forget in (documents.get_outcome, lambda _: documents.forget("march", outcome.part, frozenset())):
            with pytest.raises(Corrupt) as refused:
                forget(written)
            assert refused.value.code == "LOAD_OTHER_VERSION"


def _references(documents: LoadDocuments, name: str) -> set[str]:
    return {photo.reference for photo in documents.get_outcome(name).photos}


def _damage(documents: LoadDocuments, name: str) -> None:
    store = documents._documents
    store.put_document(name, store.get_document(name)[:-40])


def test_a_photo_on_which_the_model_failed_is_looked_at_by_another_load(world: World, folder: Path) -> None:
    real = world.model.embed_each

    def fails(photos: Sequence[Photo]) -> list[PhotoFaces | HomewardError]:
        found = real(photos)
        broken = TREE["B/0.png"]
        return [
            WorkerUnavailable("out of memory") if content_of(photo) == broken else one
            for photo, one in zip(photos, found, strict=True)
        ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.model, "embed_each", fails)
        world.start("march", folder)
    assert world.sums("march").codes["WORKER_UNAVAILABLE"] >= 1
    world.start("april", folder)
    assert "WORKER_UNAVAILABLE" not in world.sums("april").codes
    assert became(world, "april")["B/0.png"] == (Became.ENROLLED, "")
