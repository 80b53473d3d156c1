"""How much of what is enrolled a second model has, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from catalogue.covering import count_uncovered
from catalogue.engine import Database
from catalogue.tables import faces, record_photos, records
from catalogue.types import ENROLLED
from catalogue.upgrade_tables import coverage
from catalogue.upgrade_types import Coverage, Loss

_PAGE = 500


def read_coverage(connection: sa.Connection, model_id: str, other: str) -> Coverage:
    """Counts of everything: for people, and before a switch."""
    photos = connection.execute(sa.select(sa.func.count()).select_from(record_photos)).scalar_one()
    by_model = sa.select(faces.c.model_id, sa.func.count()).group_by(faces.c.model_id)
    of_model = {row[0]: int(row[1]) for row in connection.execute(by_model)}
    placed = sa.select(sa.func.coalesce(sa.func.sum(coverage.c.placed), 0))
    lost = _lost(model_id)
    has = sa.exists().where(faces.c.record_id == lost.c.record_id, faces.c.model_id == model_id)
    sums = sa.select(sa.func.coalesce(sa.func.sum(lost.c.lost), 0), sa.func.count()).select_from(lost)
    faces_lost, with_losses = connection.execute(sums).one()
    bare = sa.select(sa.func.count(lost.c.record_id.distinct())).where(~has)
    return Coverage(
        photos=int(photos),
        covered=int(photos) - count_uncovered(connection, model_id),
        faces=of_model.get(model_id, 0),
        faces_of_other=of_model.get(other, 0),
        placed=int(connection.execute(placed.where(coverage.c.model_id == model_id)).scalar_one()),
        lost=int(faces_lost),
        photos_with_losses=int(with_losses),
        records_lost=int(connection.execute(bare).scalar_one()),
    )


def read_losses(database: Database, model_id: str) -> Iterator[Loss]:
    """Every photo with losses, by record; read in pages."""
    lost = _lost(model_id)
    left = (
        sa.select(sa.func.count())
        .where(faces.c.record_id == lost.c.record_id, faces.c.model_id == model_id)
        .scalar_subquery()
    )
    query = (
        sa.select(
            lost.c.record_id,
            records.c.agency,
            records.c.gallery,
            records.c.external_reference,
            lost.c.sha256,
            lost.c.outcome,
            lost.c.lost,
            left.label("left"),
        )
        .join(records, records.c.record_id == lost.c.record_id)
        .order_by(lost.c.record_id, lost.c.sha256)
        .limit(_PAGE)
    )
    after = ("", "")
    while True:
        place = sa.tuple_(lost.c.record_id, lost.c.sha256)
        with database.reading() as connection:
            page = (
                connection.execute(query.where(place > sa.tuple_(*map(sa.literal, after)))).mappings().all()
            )
        yield from (Loss(**row) for row in page)
        if len(page) < _PAGE:
            return
        after = (page[-1]["record_id"], page[-1]["sha256"])


def _lost(model_id: str) -> sa.Subquery:
    """Photos of which the model lacks faces that the other one has: what covering them left out, and those
    sent again that it refused."""
    covered = sa.select(
        coverage.c.record_id, coverage.c.sha256, coverage.c.outcome, coverage.c.lost.label("lost")
    ).where(coverage.c.model_id == model_id, coverage.c.lost > 0)
    of_photo = sa.and_(
        faces.c.record_id == record_photos.c.record_id, faces.c.sha256 == record_photos.c.sha256
    )
    others = (
        sa.select(sa.func.count())
        .select_from(faces)
        .where(of_photo, faces.c.model_id != model_id)
        .correlate(record_photos)
        .scalar_subquery()
    )
    refused = sa.select(
        record_photos.c.record_id, record_photos.c.sha256, record_photos.c.outcome, others.label("lost")
    ).where(
        record_photos.c.model_id == model_id,
        record_photos.c.outcome != ENROLLED,
        others > 0,
    )
    return sa.union_all(covered, refused).subquery()
