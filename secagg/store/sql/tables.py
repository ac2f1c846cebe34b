"""The tables of the service's database; how they came about is in `migrations`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# Names are compared by their bytes, so that a prefix is a range: PostgreSQL's usual order is a language's.
_NAME = Text().with_variant(Text(collation="C"), "postgresql")

entries = Table(
    "entries",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("place", _NAME, primary_key=True),  # what is led: a run of a federation
    Column("holder", Text, nullable=False),  # of the newest lease; empty: it was given back
    Column("epoch", Integer, nullable=False),  # rises with every holder
    Column("until", Float, nullable=False),  # by the database's clock, seconds since 1970
)

rounds = Table(
    "rounds",
    metadata,
    Column("round_id", LargeBinary, primary_key=True),
    Column("place", _NAME, nullable=False, index=True),
    Column("ticket", LargeBinary, nullable=False),  # what the caller knows the round by; empty: by nothing
    Column("opened", Float, nullable=False),  # seconds since 1970
    Column("ended", Float),
    Column("state", Text, nullable=False),  # of `State`
    Column("header", LargeBinary, nullable=False),  # what a server needs to run it
    Column("checkpoint", Text),  # spooled: the session, with everything that was taken before
    Column("record", Integer, nullable=False),  # bytes of the transcript at the checkpoint
    Column("outcome", LargeBinary),
)

messages = Table(
    "messages",
    metadata,
    Column("round_id", LargeBinary, primary_key=True),
    Column("place_in_round", Integer, primary_key=True),
    Column("sender", LargeBinary, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # by which the session tells messages apart
    Column("frame", LargeBinary),  # or
    Column("spooled", Text),  # its name in the spool
    UniqueConstraint("round_id", "sender", "kind"),  # nothing is accepted twice
)

blobs = Table(
    "blobs",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("round_id", LargeBinary, unique=True),  # of an entry that is a round: to find it by
    Column("entry", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),  # of the chain, after the entry
    Column("signature", LargeBinary, nullable=False),  # of the server, over the head
)

countersignatures = Table(
    "countersignatures",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # of the entry whose head was seen
    Column("witness", LargeBinary, primary_key=True),
    Column("signature", LargeBinary, nullable=False),
)
