"""Key files: an identity's seed and a server's TLS key, readable by their owner only."""

from __future__ import annotations

import codecs
import datetime as dt
import ipaddress
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secagg.errors import ParameterError
from secagg.primitives.labels import digest
from secagg.primitives.signatures import IdentityKey
from secagg.service.errors import KeyFileError

SERVER_NAME = "secagg-server"  # in every server certificate: clients pin the certificate, not a host
_VALID = dt.timedelta(days=825)
_FORMER = ".was-"  # and the beginning of its identity: behind the name of a key that was rotated


def write_private(path: Path, data: bytes) -> None:
    """Create a file with mode 0600. Raises KeyFileError when it exists."""
    try:
        file = create_private(path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    with file:
        file.write(data)


def create_private(path: Path) -> BinaryIO:
    """Open a new file for writing that was never readable by others. Raises OSError, also when it exists."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def read_private(path: Path) -> bytes:
    """Read a file that nobody but its owner can read. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(
                os.fstat(file.fileno()).st_mode
            )  # of what is read, whatever the path is by now
            if mode & 0o077:
                raise KeyFileError(f"{path}: mode must be 0600, is {mode:04o}")
            return file.read().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def write_identity(path: Path) -> IdentityKey:
    """Make a new identity and keep its seed, as hexadecimal text, in a new file."""
    key = IdentityKey.generate(os.urandom)
    write_private(path, key.seed.hex().encode("ascii") + b"\n")
    return key


def read_identity(path: Path) -> IdentityKey:
    """Read an identity's key file. Raises KeyFileError."""
    text = read_private(path)
    try:
        return IdentityKey.from_seed(bytes.fromhex(text.decode("ascii").strip()))
    except ValueError:  # its text would quote the key
        raise KeyFileError(f"{path}: must hold 64 hexadecimal digits") from None


def retire_key(path: Path) -> None:
    """Keep the identity that a party had so far beside its new one: it opens what it has sealed."""
    former = read_identity(path).identity.hex()[:16]
    path.replace(path.with_name(f"{path.name}{_FORMER}{former}"))


def former_keys(path: Path) -> list[Path]:
    """Return the files of the identities that a party had before the one in this file."""
    return sorted(path.parent.glob(f"{path.name}{_FORMER}*"))


def store_key(identity: IdentityKey) -> bytes:
    """Key for the store of a party (`secagg.store.SealedStore`), 32 bytes: who has its identity opens it."""
    return digest("store key", identity.seed)


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """A server's certificate and, on the server, its private key; both PEM."""

    certificate: bytes
    private_key: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the certificate (DER): what a hello signs."""
        return x509.load_pem_x509_certificate(self.certificate).fingerprint(hashes.SHA256())

    @classmethod
    def load(cls, certificate: Path, private_key: Path | None = None) -> ServerCredentials:
        """Read PEM files. Raises KeyFileError."""
        try:
            pem = certificate.read_bytes().removeprefix(codecs.BOM_UTF8)
            public = x509.load_pem_x509_certificate(pem).public_key()
        except (OSError, ValueError) as error:
            raise KeyFileError(f"{certificate}: not a certificate: {error}") from error
        if private_key is None:
            return cls(pem)
        secret = read_private(private_key)
        try:
            key = serialization.load_pem_private_key(secret, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyFileError(f"{private_key}: not a private key (PEM, not encrypted)") from None
        if key.public_key() != public:
            raise KeyFileError(f"{private_key}: not the key of {certificate}")
        return cls(pem, secret)

    @classmethod
    def generate(cls, hosts: Iterable[str] = ("localhost", "127.0.0.1")) -> ServerCredentials:
        """Make a self-signed certificate (ECDSA P-256) for these hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
        names = [x509.DNSName(SERVER_NAME), *map(general_name, hosts)]
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def write(self, certificate: Path, private_key: Path) -> None:
        """Write both into new files, the key with mode 0600. Raises KeyFileError."""
        if certificate.exists():
            raise KeyFileError(f"{certificate}: exists")
        write_private(private_key, self.private_key or b"")
        with certificate.open("xb") as file:
            file.write(self.certificate)


def general_name(host: str) -> x509.GeneralName:
    """Return a host as a certificate names it. Raises ParameterError: neither an address nor a name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ParameterError(f"host: must be an address or an ASCII name, is {host!r}") from error
