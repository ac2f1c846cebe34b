"""The audit log, and the signatures of its witnesses."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Make the tables of the audit log."""
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("round_id", sa.LargeBinary, unique=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "countersignatures",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("witness", sa.LargeBinary, primary_key=True),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
