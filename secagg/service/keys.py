"""A server's certificate and its TLS key."""

from __future__ import annotations

import codecs
import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secagg.errors import KeyFileError, ParameterError
from secagg.key_files import read_private, write_private

SERVER_NAME = "secagg-server"  # in every server certificate: clients pin the certificate, not a host
_VALID = dt.timedelta(days=825)


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
