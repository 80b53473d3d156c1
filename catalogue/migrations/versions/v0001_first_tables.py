"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables, and the counter's one row."""
    op.create_table(
        "changes",
        sa.Column(
            "rev", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rev", name=op.f("pk_changes")),
    )
    op.create_table(
        "codes",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("code", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "code", name=op.f("pk_codes")),
        sa.UniqueConstraint("kind", "value", name=op.f("uq_codes_kind_value")),
    )
    op.create_table(
        "counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_counter_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counter")),
    )
    op.create_table(
        "erasures",
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("store", sa.String(length=16), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item", "store", "agency", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_record_id"), "erasures", ["record_id"], unique=False)
    op.create_index(op.f("ix_erasures_store_at"), "erasures", ["store", "at"], unique=False)
    op.create_table(
        "intents",
        sa.Column("intent", sa.String(length=32), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("store", sa.String(length=16), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("intent", "item", "store", "agency", name=op.f("pk_intents")),
    )
    op.create_index(op.f("ix_intents_at"), "intents", ["at"], unique=False)
    op.create_index(op.f("ix_intents_item_store"), "intents", ["item", "store"], unique=False)
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "photos",
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agency", "sha256", name=op.f("pk_photos")),
    )
    op.create_table(
        "records",
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("gallery", sa.Text(), nullable=False),
        sa.Column("external_reference", sa.Text(), nullable=False),
        sa.Column("born_earliest", sa.Date(), nullable=True),
        sa.Column("born_latest", sa.Date(), nullable=True),
        sa.Column("born_verified", sa.Boolean(), nullable=False),
        sa.Column("sex", sa.SmallInteger(), nullable=False),
        sa.Column("sex_verified", sa.Boolean(), nullable=False),
        sa.Column("event_earliest", sa.Date(), nullable=True),
        sa.Column("event_latest", sa.Date(), nullable=True),
        sa.Column("event_verified", sa.Boolean(), nullable=False),
        sa.Column("event_place", sa.Text(), nullable=False),
        sa.Column("case_reference", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("legal_basis", sa.Text(), nullable=False),
        sa.Column("load", sa.Text(), nullable=False),
        sa.Column("searchable", sa.Boolean(), nullable=False),
        sa.Column("unsearchable_reason", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_rev", sa.BigInteger(), nullable=False),
        sa.Column("updated_rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", name=op.f("pk_records")),
    )
    op.create_index(
        op.f("ix_records_agency_gallery_record_id"),
        "records",
        ["agency", "gallery", "record_id"],
        unique=False,
    )
    op.create_index(op.f("ix_records_gallery_record_id"), "records", ["gallery", "record_id"], unique=False)
    op.create_index(
        op.f("ix_records_searchable_record_id"), "records", ["searchable", "record_id"], unique=False
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "scope", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_at"), "requests", ["at"], unique=False)
    op.create_index(op.f("ix_requests_record_id"), "requests", ["record_id"], unique=False)
    op.create_table(
        "tombstones",
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("gallery_erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("photos_erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("record_id", name=op.f("pk_tombstones")),
    )
    op.create_table(
        "record_photos",
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("taken_earliest", sa.Date(), nullable=True),
        sa.Column("taken_latest", sa.Date(), nullable=True),
        sa.Column("taken_verified", sa.Boolean(), nullable=False),
        sa.Column("choice", sa.String(length=16), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("faces_seen", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("load", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agency", "sha256"],
            ["photos.agency", "photos.sha256"],
            name=op.f("fk_record_photos_agency_sha256"),
        ),
        sa.ForeignKeyConstraint(
            ["record_id"], ["records.record_id"], name=op.f("fk_record_photos_record_id")
        ),
        sa.PrimaryKeyConstraint("record_id", "sha256", name=op.f("pk_record_photos")),
    )
    op.create_index(
        op.f("ix_record_photos_agency_sha256"), "record_photos", ["agency", "sha256"], unique=False
    )
    op.create_table(
        "faces",
        sa.Column("face_id", sa.String(length=32), nullable=False),
        sa.Column("record_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
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
        sa.ForeignKeyConstraint(
            ["record_id", "sha256"],
            ["record_photos.record_id", "record_photos.sha256"],
            name=op.f("fk_faces_record_id_sha256"),
        ),
        sa.PrimaryKeyConstraint("face_id", name=op.f("pk_faces")),
    )
    op.create_index(op.f("ix_faces_record_id_sha256"), "faces", ["record_id", "sha256"], unique=False)
    op.execute("INSERT INTO counter (id, rev) VALUES (1, 0)")


def downgrade() -> None:
    """There is nothing before the first tables: restore a backup instead."""
    raise NotImplementedError
