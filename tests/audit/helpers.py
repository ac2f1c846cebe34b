"""Logs for tests: made in memory, with keys that are the same every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from secagg.audit import (
    Chain,
    Content,
    Countersignature,
    Log,
    Receipt,
    RegistryChange,
    Report,
    Round,
    Start,
    Withdrawal,
    read_log,
    verify_log,
    write_log,
)
from secagg.audit.entries import VERSION
from secagg.messages import encode
from secagg.primitives.signatures import IdentityKey

LOG_ID = bytes(range(32))
SERVER, NEXT, OTHER = (IdentityKey.from_seed(bytes([i]) * 32) for i in (1, 2, 3))
WITNESSES = tuple(IdentityKey.from_seed(bytes([i]) * 32) for i in (11, 12))
PARTIES = tuple(IdentityKey.from_seed(bytes([i]) * 32).identity for i in range(21, 26))
BEGAN_MS = 1_700_000_000_000


def round_id(i: int) -> bytes:
    return i.to_bytes(16, "big")


def completed(i: int, *, place: str = "hearts/run-1") -> Round:
    return Round.completed(
        place,
        round_id(i),
        total_digest=bytes([i]) * 32,
        survivors=PARTIES[:4],
        transcript=bytes([i + 1]) * 32,
    )


def aborted(i: int) -> Round:
    return Round.aborted("hearts/run-1", round_id(i), reason="too few survivors")


CONTENTS: tuple[Content, ...] = (
    RegistryChange.of("hearts", 1, b"[[party]]"),
    completed(1),
    aborted(2),
    Withdrawal.of("hearts", PARTIES[4]),
    RegistryChange.of("hearts", 2, b"[[party]]\n"),
    completed(3),
)


@dataclass
class Writer:
    """A server's log in memory; copy() is how a lying server begins a fork."""

    signer: IdentityKey = SERVER
    log_id: bytes = LOG_ID
    chain: Chain = field(default_factory=Chain)
    receipts: list[Receipt] = field(default_factory=list)
    countersignatures: list[Countersignature] = field(default_factory=list)
    time: int = BEGAN_MS

    def __post_init__(self) -> None:
        if not self.receipts:
            self.append(Start(VERSION, self.log_id, self.signer.identity))

    def append(self, content: Content) -> Receipt:
        self.chain, receipt = self.chain.extend(content, self.time, self.signer)
        self.receipts.append(receipt)
        self.time += 1000
        return receipt

    def change_key(self, new: IdentityKey) -> Receipt:
        receipt = self.append(self.chain.hand_over(self.signer, new))
        self.signer = new
        return receipt

    def witness(self, key: IdentityKey, index: int = -1) -> None:
        self.countersignatures.append(Countersignature.sign(self.receipts[index].signed, key))

    def copy(self) -> Writer:
        return Writer(
            self.signer, self.log_id, self.chain, list(self.receipts), list(self.countersignatures), self.time
        )

    def file(self) -> bytes:
        file = io.BytesIO()
        entries = [encode(one.entry) for one in self.receipts]
        write_log(file, entries, self.receipts[-1].signed, self.countersignatures)
        return file.getvalue()

    def log(self) -> Log:
        return read_log(io.BytesIO(self.file()))


def written(contents: Sequence[Content] = CONTENTS) -> Writer:
    writer = Writer()
    for content in contents:
        writer.append(content)
    return writer


def check(data: bytes, **options: object) -> Report:
    return verify_log(io.BytesIO(data), **options)  # type: ignore[arg-type]


def findings(data: bytes, **options: object) -> list[str]:
    return [str(one) for one in check(data, **options).findings]
