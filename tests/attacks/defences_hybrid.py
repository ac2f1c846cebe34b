"""Defences of the hybrid suite."""

from __future__ import annotations

from tests.attacks.defence import Defence

_HYBRID = "secagg.primitives.hybrid"
_ROUND = "secagg.protocol.round"
_CLIENT = "secagg.protocol.client."
_COLLECT = f"{_CLIENT}masked_input_collection"
_SERVER = "secagg.protocol.server."
_SHARED = f"{_SERVER}share_keys"
_TAKEN = f"{_SERVER}masked_input_collection"
_OPENED = f"{_SERVER}contributions"

DEFENCES: tuple[Defence, ...] = (
    Defence(
        "hybrid: contribution in the seed",
        "secagg.primitives.masks",
        "agree(mask_secret, mask_public) + contribution",
        "agree(mask_secret, mask_public)",
        "who breaks X25519 later opens no upload that was recorded",
    ),
    Defence(
        "hybrid: share under ML-KEM",
        _HYBRID,
        "return hkdf(bytes(agreed) + kem_secret, roster_digest, info)",
        "return hkdf(bytes(agreed), roster_digest, info)",
        "who breaks X25519 later opens no share that was recorded",
    ),
    Defence(
        "hybrid: share under X25519",
        _HYBRID,
        "return hkdf(bytes(agreed) + kem_secret, roster_digest, info)",
        "return hkdf(kem_secret, roster_digest, info)",
        "who breaks ML-KEM opens no share",
    ),
    Defence(
        "hybrid: ciphertext of a share",
        _HYBRID,
        'info = encode("share-key", dealer, holder, ciphertext)',
        'info = encode("share-key", dealer, holder)',
        "a share is of the ciphertext that came with it",
    ),
    Defence(
        "hybrid: contribution under X25519",
        _HYBRID,
        "return hkdf(agreed + kem_secret, roster_digest, info)",
        "return hkdf(kem_secret, roster_digest, info)",
        "a server does not make a contribution up, of which it had half of the seed for later",
    ),
    Defence(
        "hybrid: contribution under ML-KEM",
        _HYBRID,
        "return hkdf(agreed + kem_secret, roster_digest, info)",
        "return hkdf(agreed, roster_digest, info)",
        "who breaks X25519 later opens no contribution",
    ),
    Defence(
        "hybrid: ciphertext of a contribution",
        _HYBRID,
        'info = encode("contribution-key", sender, receiver, ciphertext)',
        'info = encode("contribution-key", sender, receiver)',
        "a contribution is of the ciphertext that came with it",
    ),
    Defence(
        "hybrid: contribution of a roster",
        _HYBRID,
        'return hkdf(bytes(root), roster_digest, encode("contribution", sender, receiver))',
        'return hkdf(bytes(root), b"", encode("contribution", sender, receiver))',
        "masks of two rosters differ",
    ),
    Defence(
        "hybrid: keys of a round",
        _HYBRID,
        'return hkdf(bytes(root), parameters_digest, encode("mask-key"))',
        'return hkdf(bytes(root), b"", encode("mask-key"))',
        "a root gives other keys in every round",
    ),
    Defence(
        "hybrid: another key for shares",
        f"{_CLIENT}advertise_keys",
        "kem_keys = KemSecret(secrets.kem).public, mask_kem_key",
        "kem_keys = mask_kem_key, mask_kem_key",
        "the root of a dropout does not open the shares that were sealed for it",
    ),
    Defence(
        "hybrid: both KEM keys are signed",
        _ROUND,
        "return *first, advertisement.share_kem_key, advertisement.mask_kem_key",
        "return *first, advertisement.share_kem_key, b''",
        "a server puts no key of its own into an advertisement",
    ),
    Defence(
        "hybrid: the key for shares is signed",
        _ROUND,
        "return *first, advertisement.share_kem_key, advertisement.mask_kem_key",
        "return *first, b'', advertisement.mask_kem_key",
        "a server puts no key of its own into an advertisement",
    ),
    Defence(
        "hybrid: keys of the suite",
        _ROUND,
        "if bool(key) != parameters.hybrid:",
        "if False:",
        "there is no hybrid round with a client that has no ML-KEM keys",
    ),
    Defence(
        "hybrid: usable KEM keys",
        _ROUND,
        "if key and not kem.is_usable(key):",
        "if False:",
        "a key to which nothing can be sealed ends nobody's program",
    ),
    Defence(
        "hybrid: demanded",
        f"{_CLIENT}policy",
        "if policy.require_post_quantum and not parameters.hybrid:",
        "if False:",
        "a server does not choose the weaker suite",
    ),
    Defence(
        "hybrid: had",
        f"{_CLIENT}policy",
        "if parameters.hybrid and not kem.AVAILABLE:",
        "if False:",
        "without ML-KEM a client refuses by name",
    ),
    Defence(
        "hybrid: had by the server",
        f"{_SERVER}session",
        "        if self._parameters.hybrid:\n            require_kem",
        "        if False:\n            require_kem",
        "without ML-KEM a server does not begin",
    ),
    Defence(
        "hybrid: contributions are the neighbors'",
        _COLLECT,
        "if [one.peer for one in delivery.contributions] != senders:",
        "if False:",
        "a client takes no seed without the contribution that belongs to it",
    ),
    Defence(
        "hybrid: shares of the suite",
        _COLLECT,
        "if any(bool(share.kem) != view.hybrid for share in delivery.shares):",
        "if False:",
        "shares come as their suite says",
    ),
    Defence(
        "hybrid: leave",
        f"{_CLIENT}session",
        "        if unopened:\n",
        "        if False:\n",
        "nobody masks with a contribution that does not open",
    ),
    Defence(
        "hybrid: the KEM seed is wiped",
        f"{_CLIENT}phases",
        '        self.secrets.wipe("kem")\n',
        "",
        "what opens shares is gone when they are open",
    ),
    Defence(
        "hybrid: contributions are wiped",
        f"{_CLIENT}session",
        "        phase.wipe_contributions()\n",
        "",
        "a seed is gone when its mask is made",
    ),
    Defence(
        "hybrid: contributions are wiped with the session",
        f"{_CLIENT}phases",
        "        phase.wipe_contributions()\n",
        "        pass\n",
        "a session that is closed keeps no secrets",
    ),
    Defence(
        "hybrid: to the larger neighbors",
        _SHARED,
        'if not np.array_equal(column(message.contributions, "peer", 32), self.view.names[larger]):',
        "if False:",
        "nobody leaves out a neighbor, which would have to leave the round",
    ),
    Defence(
        "hybrid: ciphertexts with shares",
        _SHARED,
        'if bool(message.shares.column("kem").size) != self.view.hybrid:',
        "if False:",
        "shares come as their suite says",
    ),
    Defence(
        "hybrid: who leaves says nothing else",
        _TAKEN,
        "if len(message.packed) or message.complaints:",
        "if False:",
        "a vector is in the sum, or its sender has left",
    ),
    Defence(
        "hybrid: who leaves was sent something",
        _TAKEN,
        "if not self.view.hybrid or max(senders) > index:",
        "if False:",
        "accusations are about what was sent",
    ),
    Defence(
        "hybrid: who leaves signs",
        _TAKEN,
        "if not verify(sender, text, message.signature):",
        "if False:",
        "a departure is its sender's, of this set",
    ),
    Defence(
        "hybrid: who left is no survivor",
        f"{_SERVER}session",
        "answered = phase.answered - _left(phase)",
        "answered = phase.answered",
        "who left does not count as an upload",
    ),
    Defence(
        "hybrid: the root gives both keys",
        f"{_SERVER}recovery",
        'return hmac.compare_digest(b"".join(public), masked.mask_keys[dealer] + masked.kem_keys[dealer])',
        "return hmac.compare_digest(public[0], masked.mask_keys[dealer])",
        "a root that does not give the ML-KEM key is not believed",
    ),
    Defence(
        "hybrid: a liar on either side",
        _OPENED,
        "guilty=sender if value is None else dropout)",
        "guilty=sender)",
        "who accuses an honest client is guilty",
    ),
    Defence(
        "hybrid: the other side is cleared",
        f"{_SERVER}blame",
        "        self.complaints.discard((sender, receiver))\n",
        "",
        "a proof against one of two speaks against the other no more",
    ),
    Defence(
        "hybrid: guilt that was proved",
        f"{_SERVER}blame",
        "guilty = i in self.liars or needed > view.suspicion_limit",
        "guilty = needed > view.suspicion_limit",
        "the next attempt does without who was proved guilty",
    ),
    Defence(
        "hybrid: no sum with a mask in it",
        _OPENED,
        "                closed.add(sender)\n",
        "                added[dropout, sender] = bytes(32)\n",
        "a mask that cannot be removed is not taken for removed",
    ),
    Defence(
        "hybrid: accusations count",
        f"{_SERVER}blame",
        "        complaints.update(departures or {})\n",
        "",
        "whom so many leave is guilty, though nothing can be opened",
    ),
)
