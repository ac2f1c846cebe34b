"""Leases without an address: clients go through a list of their own."""

from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Drop the address of a lease's holder."""
    with op.batch_alter_table("leases") as table:
        table.drop_column("address")
