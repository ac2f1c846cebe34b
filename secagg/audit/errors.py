"""What is wrong with a log, a receipt or what a server shows: each error carries its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from secagg.errors import SecAggError

if TYPE_CHECKING:
    from secagg.audit.chain import SignedHead
    from secagg.audit.log import Report


class AuditError(SecAggError):
    """What was looked at is not as it should be."""

    exit_status: ClassVar[int] = 1


class MalformedError(AuditError):
    """Bytes that are no entry, receipt or countersignature."""


class BrokenLogError(AuditError):
    """An exported log with findings; `report` has them all."""

    def __init__(self, report: Report) -> None:
        more = len(report.findings) - 1
        super().__init__(f"log: {report.findings[0]}{f' (and {more} more)' if more else ''}")
        self.report = report


class ReceiptError(AuditError):
    """A receipt does not prove what it was asked for."""


class ForkError(AuditError):
    """The server signed two heads that cannot be of one log: it showed different people different logs.

    seen   the head of the receipt, or that was seen before
    shown  the head of the log that is shown now. Both are signed by the server: together, with the log that
           leads to `shown`, they convince anybody
    """

    def __init__(self, what: str, seen: SignedHead, shown: SignedHead) -> None:
        super().__init__(
            f"{what}: the server signed head {seen.index} {seen.head.hex()} and "
            f"head {shown.index} {shown.head.hex()}"
        )
        self.seen, self.shown = seen, shown


class CutError(AuditError):
    """The log ends before a head that was seen: it was cut short, or is an older copy; a newer one decides.

    seen, shown  as of ForkError
    """

    def __init__(self, seen: SignedHead, shown: SignedHead) -> None:
        super().__init__(
            f"log: ends with entry {shown.index}, the server signed entry {seen.index} before: cut short, or "
            "an older copy; ask for the newest"
        )
        self.seen, self.shown = seen, shown
