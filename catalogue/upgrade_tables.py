"""The tables of model upgrades; `catalogue.tables` has the others."""

from __future__ import annotations

import sqlalchemy as sa

from catalogue import tables

# The latest says which model serves. At most one is under way.
upgrades = sa.Table(
    "upgrades",
    tables.metadata,
    sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("from_bundle", sa.Text(), nullable=False),
    sa.Column("from_model", sa.Text(), nullable=False),
    sa.Column("from_dimension", sa.Integer(), nullable=False),
    sa.Column("to_bundle", sa.Text(), nullable=False),
    sa.Column("to_model", sa.Text(), nullable=False),
    sa.Column("to_dimension", sa.Integer(), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # As of a load: what an earlier driver has yet under way is refused.
    sa.Column("fence", sa.BigInteger(), nullable=False),
    sa.Column("holder", sa.Text(), nullable=False),
    sa.Column("heartbeat_at", tables.UtcDateTime()),
    # Up to here the filter columns of both collections are known to be what the records say.
    sa.Column("since_rev", sa.BigInteger(), nullable=False),
    sa.Column("created_at", tables.UtcDateTime(), nullable=False),
    sa.Column("ended_at", tables.UtcDateTime()),
    sa.Column("message", sa.Text(), nullable=False),
)

# What a model made of a photo that was enrolled with the other one, while an upgrade is under way. A photo of
# an upgrade that has neither this nor was enrolled with the model is work to do.
coverage = sa.Table(
    "coverage",
    tables.metadata,
    sa.Column("record_id", tables.ID, primary_key=True),
    sa.Column("sha256", tables.SHA256, primary_key=True),
    sa.Column("model_id", sa.Text(), primary_key=True),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("faces_seen", sa.Integer(), nullable=False),
    sa.Column("placed", sa.Integer(), nullable=False),  # faces embedded where the other model had found them
    sa.Column(
        "lost", sa.Integer(), nullable=False
    ),  # faces of the other model without a template of this one
    sa.ForeignKeyConstraint(
        ["record_id", "sha256"], ["record_photos.record_id", "record_photos.sha256"], ondelete="CASCADE"
    ),
)
