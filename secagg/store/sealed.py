"""A store whose values are sealed: whoever reads the file, or changes it, needs the key."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from secagg.params import require
from secagg.store.errors import StoreDamagedError, StoreError
from secagg.store.store import Store

KEY_BYTES = 32
_SALT, _CHECK = "sealed/salt", "sealed/check"
_KNOWN = b"secagg sealed store 1"


class SealedStore:
    """Seals values with XChaCha20-Poly1305 under their names; names are in the clear.

    key    32 secret bytes, such as those of a key file; `with_passphrase` derives them
    former keys that it may be sealed with, such as those of identities that were rotated: it is sealed anew
    adopt  whether values that are in the clear, of an earlier version, are sealed now instead of refused:
           whoever can write the file can put such values there

    A value that was put under another name, or back from an earlier time, is another matter: the first is
    refused, the second is what counters are for. Durable as the store beneath.

    raises  StoreError: the key is another one, or the store has values that are not sealed
    """

    def __init__(
        self, store: Store, key: bytes, *, former: Sequence[bytes] = (), adopt: bool = False
    ) -> None:
        require(len(key) == KEY_BYTES, "key", f"{KEY_BYTES} bytes", len(key))
        self._store, self._key = store, bytes(key)
        with store.transaction():
            if store.get(_CHECK) is None:
                clear = {name: store.get(name) for name in store.names("") if name != _SALT}
                if clear and not adopt:
                    raise StoreError(
                        "store: has values that are not sealed: begin with an empty one; one of an earlier "
                        "version can be sealed once (adopt, `fedcore join --seal`)"
                    )
                self.put({_CHECK: _KNOWN} | clear)
                return
            for old in former:
                self._seal_anew(old)
            if not hmac.compare_digest(self.get(_CHECK) or b"", _KNOWN):
                raise StoreError("store: is sealed by something else")

    def _seal_anew(self, former: bytes) -> None:
        """Seal with our key what was sealed with another one, if it was."""
        sealed = {name: self._store.get(name) or b"" for name in self.names("") if name != _SALT}
        try:
            _opened(_CHECK, sealed[_CHECK], former)
        except StoreDamagedError:
            return
        self.put({name: _opened(name, value, former) for name, value in sealed.items()})

    @classmethod
    def with_passphrase(
        cls, store: Store, passphrase: bytes, *, memory: int = argon2id.MEMLIMIT_MODERATE
    ) -> SealedStore:
        """Derive the key from a passphrase (Argon2id). memory: bytes; not kept, the same every time."""
        with store.transaction():
            if (salt := store.get(_SALT)) is None:
                salt = os.urandom(argon2id.SALTBYTES)
                store.put({_SALT: salt})
        key = argon2id.kdf(KEY_BYTES, passphrase, salt, opslimit=argon2id.OPSLIMIT_MODERATE, memlimit=memory)
        return cls(store, key)

    @property
    def durable(self) -> bool:
        """Whether values outlive the process."""
        return self._store.durable

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values in one transaction; None removes a name."""
        self._store.put(
            {name: None if value is None else self._sealed(name, value) for name, value in values.items()}
        )

    def get(self, name: str) -> bytes | None:
        """Return the value, or None. Raises StoreDamagedError: not sealed by this key, under this name."""
        sealed = self._store.get(name)
        return None if sealed is None else _opened(name, sealed, self._key)

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        return self._store.names(prefix)

    def transaction(self) -> AbstractContextManager[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
        return self._store.transaction()

    def _sealed(self, name: str, value: bytes) -> bytes:
        nonce = os.urandom(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES)
        box = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(value), _bound(name), nonce, self._key)
        return nonce + box

    def __repr__(self) -> str:
        return f"SealedStore({self._store!r})"


def _bound(name: str) -> bytes:
    """Return what is authenticated beside a value: it does not stand in for another."""
    return name.encode()


def _opened(name: str, sealed: bytes, key: bytes) -> bytes:
    """Return a value. Raises StoreDamagedError."""
    size = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
    nonce, box = sealed[:size], sealed[size:]
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(box, _bound(name), nonce, key)
    except (CryptoError, ValueError, TypeError) as error:
        raise StoreDamagedError(f"{name}: was sealed with another key, or changed") from error
