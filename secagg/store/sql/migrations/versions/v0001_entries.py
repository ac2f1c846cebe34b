"""Named values: what a SqliteStore of version 0.1 holds. Such a file begins here."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the table of named values."""
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "entries",
        sa.Column("name", name, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
