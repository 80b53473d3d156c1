"""Faces carry their parts of the candidate lists that show them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Exchange the columns. Rows without the new ones are shown from their others until written again."""
    op.drop_column("faces", "shown")
    op.add_column("faces", sa.Column("as_evidence", sa.LargeBinary(), nullable=True))
    op.add_column("faces", sa.Column("as_candidate", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """The older version does not know the columns."""
    op.drop_column("faces", "as_candidate")
    op.drop_column("faces", "as_evidence")
    op.add_column("faces", sa.Column("shown", sa.LargeBinary(), nullable=True))
