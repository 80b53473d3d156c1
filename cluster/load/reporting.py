"""Reads a load's outcomes from its ledger and sums them up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalogue.load_types import Load
from catalogue.store import Catalogue
from cluster.load.load_documents import LoadDocuments
from cluster.load.report import LoadReport, summarise
from cluster.load.report_page import write_page, write_rejected_csv
from cluster.load.spec import read_spec
from cluster.load.thumbnails import Thumbnails
from homeward.config import Settings
from photos.open import open_photo_store


@contextmanager
def open_report(load: Load, catalogue: Catalogue, documents: LoadDocuments) -> Iterator[LoadReport]:
    """What the committed parts of a load did. Raises `Corrupt` or `NotFound` for an outcome file that is
    damaged or gone, and `StoreUnavailable`."""
    parts = catalogue.loads.parts(load.name)
    with summarise(documents.get_outcome(part.document) for part in parts) as report:
        yield report


def write_report(
    load: Load, report: LoadReport, settings: Settings, html: Path | None, csv: Path | None
) -> None:
    """The report as a page and the rejected photos as a table. Raises `StoreUnavailable` when they cannot be
    written."""
    if csv is not None:
        write_rejected_csv(report, csv)
    if html is None:
        return
    store = open_photo_store(settings.photos, settings.data_dir)
    with Thumbnails(store, read_spec(load.spec).agency, settings.workers) as thumbnails:
        write_page(
            report,
            html,
            thumbnails,
            title=f"Homeward bulk load {load.name}",
            total_photos=load.photos,
            thumbnails=settings.loads.thumbnails,
            csv_name=csv.name if csv is not None else "",
        )
