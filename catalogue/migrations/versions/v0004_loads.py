"""Bulk loads: who drives each, which of its parts are done, and which records each part names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from catalogue.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the way from a load to what it brought."""
    op.create_table(
        "loads",
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", UtcDateTime(), nullable=True),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=True),
        sa.Column("photos", sa.BigInteger(), nullable=True),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_loads"),
    )
    op.create_table(
        "load_parts",
        sa.Column("load", sa.String(48), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("photos", sa.Integer(), nullable=False),
        sa.Column("faces", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("load", "part", name="pk_load_parts"),
    )
    op.create_table(
        "load_records",
        sa.Column("record_id", sa.String(32), nullable=False),
        sa.Column("load", sa.String(48), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", "load", "part", name="pk_load_records"),
    )
    op.create_index("ix_records_load_record_id", "records", ["load", "record_id"])
    op.create_index("ix_record_photos_load_record_id", "record_photos", ["load", "record_id"])


def downgrade() -> None:
    """The older version does not know them."""
    op.drop_index("ix_record_photos_load_record_id", "record_photos")
    op.drop_index("ix_records_load_record_id", "records")
    for table in ("load_records", "load_parts", "loads"):
        op.drop_table(table)
