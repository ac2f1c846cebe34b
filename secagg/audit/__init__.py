"""The audit log of a service: what it did, chained by hash and signed, so that nothing is taken back.

A server that keeps to one log cannot change, remove or reorder what is in it: every receipt, exported file
and countersignature holds it to all that came before. A server that shows different people different logs is
found as soon as two of them compare, or a witness countersigns only one. What the log cannot prove: that
nothing happened beyond what the server wrote into it.
"""

from typing import TYPE_CHECKING

from secagg.lazy import attributes

if TYPE_CHECKING:
    from secagg.audit.chain import Chain, Countersignature, Receipt, SignedHead
    from secagg.audit.entries import (
        Content,
        Entry,
        EntryKind,
        KeyChange,
        RegistryChange,
        Round,
        RoundOutcome,
        Start,
        Withdrawal,
        check_content,
        content_of,
        kind_of,
        registry_digest,
        survivors_of,
    )
    from secagg.audit.errors import (
        AuditError,
        BrokenLogError,
        CutError,
        ForkError,
        MalformedError,
        ReceiptError,
    )
    from secagg.audit.log import Finding, Log, Report, read_log, verify_log, write_log
    from secagg.audit.receipts import (
        check_growth,
        check_receipt,
        dump_countersignature,
        dump_receipt,
        is_fork,
        load_countersignature,
        load_receipt,
        receipt_in,
    )

__all__ = [
    "AuditError",
    "BrokenLogError",
    "Chain",
    "Content",
    "Countersignature",
    "CutError",
    "Entry",
    "EntryKind",
    "Finding",
    "ForkError",
    "KeyChange",
    "Log",
    "MalformedError",
    "Receipt",
    "ReceiptError",
    "RegistryChange",
    "Report",
    "Round",
    "RoundOutcome",
    "SignedHead",
    "Start",
    "Withdrawal",
    "check_content",
    "check_growth",
    "check_receipt",
    "content_of",
    "dump_countersignature",
    "dump_receipt",
    "is_fork",
    "kind_of",
    "load_countersignature",
    "load_receipt",
    "read_log",
    "receipt_in",
    "registry_digest",
    "survivors_of",
    "verify_log",
    "write_log",
]

_HOME = {
    "AuditError": "errors",
    "BrokenLogError": "errors",
    "Chain": "chain",
    "Content": "entries",
    "Countersignature": "chain",
    "CutError": "errors",
    "Entry": "entries",
    "EntryKind": "entries",
    "Finding": "log",
    "ForkError": "errors",
    "KeyChange": "entries",
    "Log": "log",
    "MalformedError": "errors",
    "Receipt": "chain",
    "ReceiptError": "errors",
    "RegistryChange": "entries",
    "Report": "log",
    "Round": "entries",
    "RoundOutcome": "entries",
    "SignedHead": "chain",
    "Start": "entries",
    "Withdrawal": "entries",
    "check_content": "entries",
    "check_growth": "receipts",
    "check_receipt": "receipts",
    "content_of": "entries",
    "dump_countersignature": "receipts",
    "dump_receipt": "receipts",
    "is_fork": "receipts",
    "kind_of": "entries",
    "load_countersignature": "receipts",
    "load_receipt": "receipts",
    "read_log": "log",
    "receipt_in": "receipts",
    "registry_digest": "entries",
    "survivors_of": "entries",
    "verify_log": "log",
    "write_log": "log",
}

__getattr__ = attributes(__name__, _HOME)
