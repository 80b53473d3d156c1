"""Model upgrades: from which model to which, who drives it, and what the other model made of each photo."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from catalogue.tables import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "upgrades",
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("from_bundle", sa.Text(), nullable=False),
        sa.Column("from_model", sa.Text(), nullable=False),
        sa.Column("from_dimension", sa.Integer(), nullable=False),
        sa.Column("to_bundle", sa.Text(), nullable=False),
        sa.Column("to_model", sa.Text(), nullable=False),
        sa.Column("to_dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", UtcDateTime(), nullable=True),
        sa.Column("since_rev", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_upgrades"),
    )
    op.create_table(
        "coverage",
        sa.Column("record_id", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("faces_seen", sa.Integer(), nullable=False),
        sa.Column("placed", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", "sha256", "model_id", name="pk_coverage"),
        sa.ForeignKeyConstraint(
            ["record_id", "sha256"],
            ["record_photos.record_id", "record_photos.sha256"],
            name="fk_coverage_record_id_record_photos",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    """The older version does not know them."""
    op.drop_table("coverage")
    op.drop_table("upgrades")
