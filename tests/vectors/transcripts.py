"""Transcripts of the recorded active round, and what is found in them once a byte is changed."""

from __future__ import annotations

import io

from secagg.params import Identity, RoundParameters, ThreatModel
from secagg.primitives.signatures import IdentityKey
from secagg.transcript import RecordedServerSession, verify
from tests.vectors.rounds import Json, recorded

SEED = bytes(range(32))
# Offsets of changed bytes, as shares of the file; the last ones lie in the seal.
_PLACES = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.999)


def transcript_vectors() -> Json:
    """One transcript with masked inputs, one without, and damaged ones."""
    with_inputs, without = (record(keep_inputs=keep) for keep in (True, False))
    report = verify(io.BytesIO(with_inputs))
    if report.findings or report.total is None:
        raise RuntimeError(f"the transcript is not right: {report.findings}")
    return {
        "_comment": [
            "The active round of active_round.json as the server's transcripts, with the masked inputs and",
            "without; both are right, and signed by the identity of `server_seed`. Each bad case changes one",
            "byte of the first: `byte` at `offset` becomes `value`; `findings` are place (an entry, or null",
            "for the transcript as a whole) and text.",
        ],
        "server_seed": SEED.hex(),
        "server": IdentityKey.from_seed(SEED).identity.hex(),
        "address": report.transcript.hex(),
        "with_inputs": with_inputs.hex(),
        "address_without": verify(io.BytesIO(without)).transcript.hex(),
        "without_inputs": without.hex(),
        "sum": [int(value) for value in report.total],
        "bad": [damaged(with_inputs, int(share * (len(with_inputs) - 1))) for share in _PLACES],
    }


def record(*, keep_inputs: bool) -> bytes:
    """Play the server's side of the recorded round into a recorded session."""
    data = recorded("active")
    fields = dict(data["parameters"])
    names = ("corrupt", "dropout", "adversary", "security_bits", "correctness_bits", "grinding_bits")
    model = ThreatModel(**{name: fields.pop(name) for name in names})
    for name in ("round_id", "context"):
        fields[name] = bytes.fromhex(fields[name])
    identities = [Identity(bytes.fromhex(client["identity"])) for client in data["clients"]]
    file = io.BytesIO()
    session = RecordedServerSession(
        RoundParameters(threat_model=model, **fields),
        admitted=identities,
        file=file,
        signer=IdentityKey.from_seed(SEED),
        keep_inputs=keep_inputs,
    )
    for operation in data["operations"]:
        match operation["op"]:
            case "start":
                session.start()
            case "accept":
                session.receive(
                    identities[operation["client"]], bytes.fromhex(data["frames"][operation["in"]])
                )
            case "close":
                session.close_phase()
            case _:
                pass
    return file.getvalue()


def damaged(data: bytes, offset: int) -> Json:
    """Change one byte."""
    out = bytearray(data)
    out[offset] ^= 0x5A
    findings = verify(io.BytesIO(bytes(out))).findings
    return {
        "offset": offset,
        "byte": data[offset],
        "value": out[offset],
        "findings": [[finding.place, finding.what] for finding in findings],
    }
