"""Defences of what is kept: policy, vault, counters, ledger, transcripts, snapshots."""

from __future__ import annotations

from tests.attacks.defence import Defence

_POLICY = "secagg.protocol.client.policy"
_VAULT = "secagg.protocol.client.vault"
_SESSION = "secagg.protocol.client.session"
_LEDGER = "secagg.store.ledger"
_VERIFY = "secagg.transcript.verify"
_REPLAY = "secagg.transcript.replay"
_RECORDER = "secagg.transcript.recorder"

DEFENCES: tuple[Defence, ...] = (
    Defence(
        "policy: shortest vector",
        _POLICY,
        "parameters.vector_length, policy.minimum_vector_length",
        "0, 0",
        "a round is about vectors no shorter than the client allows",
    ),
    Defence(
        "policy: narrowest ring",
        _POLICY,
        "parameters.ring_bits, policy.minimum_ring_bits",
        "0, 0",
        "a ring is no narrower than the client allows",
    ),
    Defence(
        "policy: widest ring",
        _POLICY,
        "parameters.ring_bits, policy.maximum_ring_bits",
        "0, 0",
        "a ring is no wider than the client allows",
    ),
    Defence(
        "policy: contexts",
        _POLICY,
        "if policy.contexts is not None and parameters.context not in policy.contexts:",
        "if False:",
        "a client takes part only in rounds about what it allows",
    ),
    Defence(
        "policy: no cohorts of two",
        "secagg.params",
        'require(self.minimum_cohort >= 3, "minimum_cohort"',
        'require(True, "minimum_cohort"',
        "a cohort of one or two is a hard error",
    ),
    Defence(
        "roster: round id used once",
        _SESSION,
        "        check_unseen(phase.parameters, self._seen)",
        "        pass",
        "of two sessions of one identity only one accepts a roster",
    ),
    Defence(
        "vault: the other kind is erased",
        _VAULT,
        "pair = self._pairs.pop(dealer, None)",
        "pair = self._pairs.get(dealer)",
        "releasing one kind of share erases the other",
    ),
    Defence(
        "vault: overwritten",
        _VAULT,
        "    buffer[:] = bytes(len(buffer))",
        "    pass",
        "a share that is erased is not left in memory",
    ),
    Defence(
        "stale snapshots",
        _SESSION,
        "if state.releases < releases:",
        "if False:",
        "a session set back behind what it released is not taken up again",
    ),
    Defence(
        "saved: releases",
        "secagg.protocol.client.snapshot",
        "releases=state.releases,",
        "releases=0,",
        "a snapshot knows how much was released before it",
    ),
    Defence(
        "counters rise",
        "secagg.store.counter",
        "if value <= (last := self.value(name)):",
        "if value < (last := self.value(name)):",
        "of two sessions of one snapshot only one releases a frame",
    ),
    Defence(
        "closing wipes",
        _SESSION,
        "        wipe(self._phase)\n",
        "",
        "nothing secret is left in a session that was closed",
    ),
    Defence(
        "the vector is wiped",
        _SESSION,
        "            self._vector.array[:] = 0\n",
        "            pass\n",
        "the copy of a vector is overwritten after the upload",
    ),
    Defence(
        "sessions are not pickled",
        _SESSION,
        'raise TypeError("a ClientSession is not pickled',
        'return object.__reduce__(self)\n        raise TypeError("a ClientSession is not pickled',
        "secrets do not leave in a pickle",
    ),
    Defence(
        "ledger: differencing",
        _LEDGER,
        "if 0 < len(apart) < self._floor:",
        "if False:",
        "two sums about one subject do not differ by a few members",
    ),
    Defence(
        "ledger: refusals",
        _LEDGER,
        'if concerns and reaction == "refuse":',
        "if False:",
        "what the ledger is to refuse it refuses",
    ),
    Defence(
        "ledger: repeated vectors",
        _LEDGER,
        "found = sorted(client for client in clients if client.hex() in known)",
        "found = list[bytes]()",
        "a vector of a round without result does not come again unnoticed",
    ),
    Defence(
        "ledger: rounds per day",
        _LEDGER,
        ">= self._rounds_per_day)",
        ">= 2**30)",
        "nobody is in more rounds a day than allowed",
    ),
    Defence(
        "transcript: seal signed",
        _VERIFY,
        """        if signer is None or not verify_signature(
            signer, seal_text(transcript_digest(named)), self.seal.signature
        ):""",
        "        if False:",
        "only the server seals its transcripts",
    ),
    Defence(
        "transcript: the server asked for",
        _VERIFY,
        "if server is not None and signer != server:",
        "if False:",
        "the transcript of another server is not taken for this one's",
    ),
    Defence(
        "transcript: addresses",
        _VERIFY,
        "            if is_ != must and len(self.findings) < 2 * _MOST_FINDINGS:",
        "            if False:",
        "a changed entry is found and located",
    ),
    Defence(
        "transcript: a seal there must be",
        _VERIFY,
        'self.findings.append(Finding(None, "there is no seal"))',
        "pass",
        "a transcript cut short is found",
    ),
    Defence(
        "transcript: nothing after the seal",
        _VERIFY,
        "if self.seal is not None and left:",
        "if False:",
        "no byte may follow",
    ),
    Defence(
        "transcript: senders are asked",
        _REPLAY,
        "if party in self._gone or party not in phase.asked:",
        "if False:",
        "who had no part in a phase has none in its record",
    ),
    Defence(
        "transcript: the reason",
        _REPLAY,
        "if bool(end.total_digest) != bool(outcome.total_digest) or end.reason != outcome.reason:",
        "if False:",
        "a result is not told as a failure",
    ),
    Defence(
        "transcript: blame",
        _REPLAY,
        "if end.blamed != outcome.blamed or end.guilty != outcome.guilty:",
        "if False:",
        "nobody is blamed in a record who was not by the answers",
    ),
    Defence(
        "transcript: the sum",
        _REPLAY,
        "if facts.inputs_kept and end.total_digest != outcome.total_digest:",
        "if False:",
        "the sum is that of the masked inputs",
    ),
    Defence(
        "transcript: nothing after the outcome",
        _REPLAY,
        "        if not self.running:\n",
        "        if False:\n",
        "a record has one outcome",
    ),
    Defence(
        "transcript: who was admitted",
        _REPLAY,
        "if len(admitted) < parameters.minimum_cohort:",
        "if False:",
        "a header is that of a round that could have been",
    ),
    Defence(
        "transcript: the server is no client",
        _REPLAY,
        "if self.facts.server in admitted:",
        "if False:",
        "no client signs for the server",
    ),
    Defence(
        "transcript: the registry",
        _REPLAY,
        "if self._known is not None and (strangers := admitted - self._known):",
        "if (strangers := admitted - admitted):",
        "who is not enrolled is found",
    ),
    Defence(
        "transcript: memory",
        _REPLAY,
        "if size > self._memory_limit:",
        "if False:",
        "a hostile record does not take all memory",
    ),
    Defence(
        "transcript: no end of findings",
        _VERIFY,
        "len(self.findings) < _MOST_FINDINGS:",
        "True:",
        "a hostile record does not take all time",
    ),
    Defence(
        "transcript: a failed write is not sealed",
        _RECORDER,
        "self.sealed = self.failure is None",
        "self.sealed = True",
        "a record with a gap is not sealed",
    ),
    Defence(
        "transcript: inputs are not kept unasked",
        _RECORDER,
        "if isinstance(phase, MaskedInputCollection) and not self._keep_inputs:",
        "if False:",
        "masked inputs are in a transcript only when asked for",
    ),
)
