"""The catalogue's tables. `migrations/` creates them; a test holds both equal.

Two tables carry what the other stores hold or may hold beside committed records:

* `intents`: a writer says here, before it writes a photo or a face row elsewhere, that it will.
  Its commit removes them; what a crash leaves names exactly what may lie around uncatalogued.
* `erasures`: photos and face rows that must go from the other stores. A deletion writes them; the
  sweeper removes each after the store did.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC in Python, whatever the database makes of time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC; SQLite gets it naive, it keeps no zone."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


REV = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite: the row id itself
ID = sa.String(32)
SHA256 = sa.String(64)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _date_range(name: str) -> list[sa.Column[object]]:
    return [
        sa.Column(f"{name}_earliest", sa.Date()),
        sa.Column(f"{name}_latest", sa.Date()),
        sa.Column(f"{name}_verified", sa.Boolean(), nullable=False),
    ]


counter = sa.Table(
    "counter",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("rev", sa.BigInteger(), nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
)

codes = sa.Table(
    "codes",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("code", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("value", sa.Text(), nullable=False),
    sa.UniqueConstraint("kind", "value"),
)

records = sa.Table(
    "records",
    metadata,
    sa.Column("record_id", ID, primary_key=True),
    sa.Column("agency", sa.Text(), nullable=False),
    sa.Column("gallery", sa.Text(), nullable=False),
    sa.Column("external_reference", sa.Text(), nullable=False),
    *_date_range("born"),
    sa.Column("sex", sa.SmallInteger(), nullable=False),
    sa.Column("sex_verified", sa.Boolean(), nullable=False),
    *_date_range("event"),
    sa.Column("event_place", sa.Text(), nullable=False),
    sa.Column("case_reference", sa.Text(), nullable=False),
    sa.Column("provenance", sa.Text(), nullable=False),
    sa.Column("legal_basis", sa.Text(), nullable=False),
    sa.Column("load", sa.Text(), nullable=False),
    sa.Column("searchable", sa.Boolean(), nullable=False),
    sa.Column("unsearchable_reason", sa.Text(), nullable=False),
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("updated_at", UtcDateTime(), nullable=False),
    sa.Column("created_rev", sa.BigInteger(), nullable=False),
    sa.Column("updated_rev", sa.BigInteger(), nullable=False),
    sa.Index(None, "agency", "gallery", "record_id"),
    sa.Index(None, "gallery", "record_id"),
    sa.Index(None, "searchable", "record_id"),
    sa.Index(None, "load", "record_id"),
)

photos = sa.Table(
    "photos",
    metadata,
    sa.Column("agency", sa.Text(), primary_key=True),
    sa.Column("sha256", SHA256, primary_key=True),
    sa.Column("media_type", sa.Text(), nullable=False),
    sa.Column("width", sa.Integer(), nullable=False),
    sa.Column("height", sa.Integer(), nullable=False),
    sa.Column("bytes", sa.BigInteger(), nullable=False),
)

record_photos = sa.Table(
    "record_photos",
    metadata,
    sa.Column("record_id", ID, sa.ForeignKey(records.c.record_id), primary_key=True),
    sa.Column("sha256", SHA256, primary_key=True),
    sa.Column("agency", sa.Text(), nullable=False),
    sa.Column("position", sa.Integer(), nullable=False),
    *_date_range("taken"),
    sa.Column("choice", sa.String(16), nullable=False),
    sa.Column("ordinal", sa.Integer(), nullable=False),
    sa.Column("provenance", sa.Text(), nullable=False),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("faces_seen", sa.Integer(), nullable=False),
    sa.Column("model_id", sa.Text(), nullable=False),
    sa.Column("load", sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(["agency", "sha256"], ["photos.agency", "photos.sha256"]),
    sa.Index(None, "agency", "sha256"),
    sa.Index(None, "load", "record_id"),
)

faces = sa.Table(
    "faces",
    metadata,
    sa.Column("face_id", ID, primary_key=True),
    sa.Column("record_id", ID, nullable=False),
    sa.Column("sha256", SHA256, nullable=False),
    sa.Column("model_id", sa.Text(), nullable=False),
    sa.Column("ordinal", sa.Integer(), nullable=False),
    sa.Column("x", sa.Double(), nullable=False),
    sa.Column("y", sa.Double(), nullable=False),
    sa.Column("width", sa.Double(), nullable=False),
    sa.Column("height", sa.Double(), nullable=False),
    sa.Column("landmarks", sa.JSON(), nullable=False),
    sa.Column("detector_score", sa.Double(), nullable=False),
    sa.Column("quality_score", sa.Double(), nullable=False),
    sa.Column("quality_components", sa.JSON(), nullable=False),
    sa.Column("quality_reasons", sa.JSON(), nullable=False),
    # homeward.shown.as_candidate of the record and as_evidence of this row and its photo's date, which every
    # search that shows the face would make of them. Null in rows that an earlier version wrote.
    sa.Column("as_candidate", sa.LargeBinary()),
    sa.Column("as_evidence", sa.LargeBinary()),
    sa.ForeignKeyConstraint(["record_id", "sha256"], ["record_photos.record_id", "record_photos.sha256"]),
    sa.Index(None, "record_id", "sha256"),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("record_id", ID, primary_key=True),
    sa.Column("rev", sa.BigInteger(), nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("requester", sa.Text(), nullable=False),
    sa.Column("gallery_erased_at", UtcDateTime()),
    sa.Column("photos_erased_at", UtcDateTime()),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("item", SHA256, primary_key=True),  # face id, or sha256 of a photo
    sa.Column("store", sa.String(16), primary_key=True),
    sa.Column("agency", sa.Text(), primary_key=True),
    sa.Column("record_id", ID, nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
    sa.Index(None, "record_id"),
    sa.Index(None, "store", "at"),
)

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("intent", ID, primary_key=True),
    sa.Column("item", SHA256, primary_key=True),
    sa.Column("store", sa.String(16), primary_key=True),
    sa.Column("agency", sa.Text(), primary_key=True),
    sa.Column("record_id", ID, nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
    sa.Index(None, "item", "store"),
    sa.Index(None, "at"),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("rev", REV, primary_key=True, autoincrement=False),
    sa.Column("record_id", ID, nullable=False),
    sa.Column("deleted", sa.Boolean(), nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("request_id", sa.Text(), primary_key=True),
    sa.Column("scope", sa.Text(), primary_key=True),
    sa.Column("method", sa.Text(), nullable=False),
    sa.Column("digest", sa.Text(), nullable=False),
    sa.Column("record_id", ID, nullable=False),
    sa.Column("rev", sa.BigInteger(), nullable=False),
    sa.Column("response", sa.LargeBinary()),  # NULL: it went with its record
    sa.Column("at", UtcDateTime(), nullable=False),
    sa.Index(None, "record_id"),
    sa.Index(None, "at"),
)

loads = sa.Table(
    "loads",
    metadata,
    sa.Column("name", sa.String(48), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    # Rises with each driver: what an earlier one has yet under way is refused.
    sa.Column("fence", sa.BigInteger(), nullable=False),
    sa.Column("holder", sa.Text(), nullable=False),
    sa.Column("heartbeat_at", UtcDateTime()),
    sa.Column("spec", sa.Text(), nullable=False),
    sa.Column("parts", sa.Integer()),
    sa.Column("photos", sa.BigInteger()),
    sa.Column("model_id", sa.Text(), nullable=False),
    sa.Column("dimension", sa.Integer(), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("finished_at", UtcDateTime()),
    sa.Column("message", sa.Text(), nullable=False),
)

load_parts = sa.Table(
    "load_parts",
    metadata,
    sa.Column("load", sa.String(48), primary_key=True),
    sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("document", sa.Text(), nullable=False),
    sa.Column("photos", sa.Integer(), nullable=False),
    sa.Column("faces", sa.Integer(), nullable=False),
    sa.Column("rejected", sa.Integer(), nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
)

# Which outcome files speak of a record: they are rewritten when it is deleted.
load_records = sa.Table(
    "load_records",
    metadata,
    sa.Column("record_id", ID, primary_key=True),
    sa.Column("load", sa.String(48), primary_key=True),
    sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
)
