"""Rounds that outlive their server: leases, rounds, accepted messages, and large values in parts."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Make the tables of durable rounds."""
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "leases",
        sa.Column("place", name, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("round_id", sa.LargeBinary, primary_key=True),
        sa.Column("place", name, nullable=False, index=True),
        sa.Column("ticket", sa.LargeBinary, nullable=False),
        sa.Column("opened", sa.Float, nullable=False),
        sa.Column("ended", sa.Float),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint", sa.Text),
        sa.Column("record", sa.Integer, nullable=False),
        sa.Column("outcome", sa.LargeBinary),
    )
    op.create_table(
        "messages",
        sa.Column("round_id", sa.LargeBinary, primary_key=True),
        sa.Column("place_in_round", sa.Integer, primary_key=True),
        sa.Column("sender", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("frame", sa.LargeBinary),
        sa.Column("spooled", sa.Text),
        sa.UniqueConstraint("round_id", "sender", "kind"),
    )
    op.create_table(
        "blobs",
        sa.Column("name", name, primary_key=True),
        sa.Column("part", sa.Integer, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
