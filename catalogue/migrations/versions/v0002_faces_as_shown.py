"""Faces carry the message that candidate lists show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Rows without it are shown from their other columns: no row is rewritten."""
    op.add_column("faces", sa.Column("shown", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """The older version does not know the column."""
    op.drop_column("faces", "shown")
