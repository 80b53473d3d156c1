"""Waiting until the running server has written snapshots of the whole index, and taking them away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.filled import Filled
from catalogue.open import open_catalogue
from cluster.snapshots import Snapshots
from photos.open import open_document_store

SOON = {"HOMEWARD_INDEX__SNAPSHOT_INTERVAL_S": "1"}  # a server's setting: else it begins after half a minute
_POLL_S = 1.0


def wait_for_snapshots(filled: Filled, timeout_s: float) -> dict[str, object]:
    """Return when every slot has a snapshot; what there is. Raises `TimeoutError`."""
    started = time.monotonic()
    with _snapshots(filled) as snapshots:
        while (snapshots.revs() < 0).any():
            if time.monotonic() > started + timeout_s:
                raise TimeoutError(f"no snapshot of the whole index within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        heads = [one.head for one in snapshots.stored()]
        return {
            "documents": len(heads),
            "rows": sum(head.rows for head in heads),
            "waited_s": round(time.monotonic() - started, 1),
        }


def remove_snapshots(filled: Filled) -> int:
    """Delete all snapshots; how many documents that were."""
    documents = open_document_store(filled.stores.photos, Path())
    with _snapshots(filled) as snapshots:
        return sum(documents.delete_document(name) for name in snapshots.names())


@contextmanager
def _snapshots(filled: Filled) -> Iterator[Snapshots]:
    documents = open_document_store(filled.stores.photos, Path())
    catalogue = open_catalogue(filled.stores.catalogue, Path())
    try:
        yield Snapshots(documents, catalogue, filled.model_id, filled.dimension)
    finally:
        catalogue.close()
