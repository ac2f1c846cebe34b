"""The operator's certificate authority: who may speak to a server at all, by TLS.

TLS of gRPC takes no Ed25519 certificates, so a party has an ECDSA P-256 key for TLS beside its identity; its
certificate tells the name and the identity it stands for. A certificate lets its holder in; who it is, the
hello proves. What a stranger sees in a handshake (the authority's name, the server's certificate) tells
nothing about parties or the federation. Times are seconds since 1970, given by the caller.
"""

from __future__ import annotations

import codecs
import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secagg.errors import KeyFileError, ParameterError, RegistryError
from secagg.key_files import write_private
from secagg.params import Identity
from secagg.primitives.signatures import check_identity
from secagg.registry.names import check_name
from secagg.service.errors import ServiceError
from secagg.service.keys import SERVER_NAME, ServerCredentials, general_name
from secagg.service.reach import outdated

AUTHORITY_DAYS = 20 * 365  # whoever has it must be told of the next one by hand, so seldom
SERVER_DAYS = 825  # as `ServerCredentials.generate`
PARTY_DAYS = 397  # renewed about once a year, with the month in which that is forgotten
_EARLY = dt.timedelta(minutes=5)  # for clocks that are behind
_IDENTITY_URI = re.compile(r"secagg:identity:([0-9a-f]{64})")
_ENCODING = serialization.Encoding


class CertificateError(ServiceError):
    """A certificate, or the wish for one, is not what it should be; the message says whose and why."""

    exit_status = 1  # what was looked at is not as it should be


@dataclass(frozen=True, slots=True)
class CertifiedParty:
    """What a party's certificate says."""

    name: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority's certificate and private key; both PEM. Only the operator has the key."""

    certificate: bytes
    private_key: bytes = field(repr=False)

    @classmethod
    def make(cls, now: float, *, days: int = AUTHORITY_DAYS) -> Authority:
        """Make a new authority, which issues certificates to servers and parties, and to no authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        # Two authorities have two names, or a verifier takes one for the other; the name tells nothing else.
        name = _named(f"secagg authority {identifier.digest.hex()[:16]}")
        begin = dt.datetime.fromtimestamp(now, dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - _EARLY)
            .not_valid_after(begin + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()).public_bytes(_ENCODING.PEM), _pem(key))

    @classmethod
    def load(cls, certificate: Path, private_key: Path) -> Authority:
        """Read PEM files, the key's readable by its owner only. Raises KeyFileError."""
        pair = ServerCredentials.load(certificate, private_key)
        if not _is_authority(x509.load_pem_x509_certificate(pair.certificate)):
            raise KeyFileError(f"{certificate}: is no authority's certificate")
        return cls(pair.certificate, pair.private_key or b"")

    def write(self, certificate: Path, private_key: Path) -> None:
        """Write both into new files, the key with mode 0600. Raises KeyFileError."""
        ServerCredentials(self.certificate, self.private_key).write(certificate, private_key)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (DER), 32 bytes."""
        return fingerprint(self.certificate)

    def issue_server(
        self,
        now: float,
        *,
        hosts: Iterable[str] = ("localhost", "127.0.0.1"),
        days: int = SERVER_DAYS,
    ) -> ServerCredentials:
        """Make a server's key and certificate, for these hosts and for `SERVER_NAME`.

        Whoever trusts the authority takes the next certificate without being told.
        raises  ParameterError: a host is none; CertificateError: the authority's time is over
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(SERVER_NAME), *map(general_name, hosts)]
        pem = self._issue(
            key.public_key(), SERVER_NAME, names, ExtendedKeyUsageOID.SERVER_AUTH, now=now, days=days
        )
        return ServerCredentials(pem, _pem(key))

    def issue_party(
        self, request: bytes, party: CertifiedParty, now: float, *, days: int = PARTY_DAYS
    ) -> bytes:
        """Return a party's certificate (PEM), for the key that it made itself.

        request  certificate request (DER), see `make_request`; it must name this party
        raises   CertificateError
        """
        wish = _checked_request(request, party)
        key = wish.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CertificateError(f"certificate request of {party.name}: the key must be ECDSA P-256")
        return self._issue(
            key, party.name, [_uri(party.identity)], ExtendedKeyUsageOID.CLIENT_AUTH, now=now, days=days
        )

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        *,
        now: float,
        days: int,
    ) -> bytes:
        issuer = x509.load_pem_x509_certificate(self.certificate)
        if why := outdated(ServerCredentials(self.certificate), now, "the authority's certificate"):
            raise CertificateError(why)
        begin = dt.datetime.fromtimestamp(now, dt.UTC)
        last = min(begin + dt.timedelta(days=days), issuer.not_valid_after_utc)
        signer = serialization.load_pem_private_key(self.private_key, None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise CertificateError("authority: its key must be ECDSA P-256")
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(issuer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - _EARLY)
            .not_valid_after(last)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
            .sign(signer, hashes.SHA256())
            .public_bytes(_ENCODING.PEM)
        )


# --- a party's side


@dataclass(frozen=True, slots=True)
class PartyCredentials:
    """A party's certificate and key for TLS, and the authority that servers are known by; PEM."""

    certificate: bytes
    authority: bytes
    private_key: bytes = field(repr=False)

    @classmethod
    def load(cls, certificate: Path, private_key: Path, authority: Path) -> PartyCredentials:
        """Read PEM files. Raises KeyFileError; CertificateError: the certificate is no party's."""
        pair = ServerCredentials.load(certificate, private_key)
        party_of(pair.certificate)
        return cls(pair.certificate, ServerCredentials.load(authority).certificate, pair.private_key or b"")

    @property
    def party(self) -> CertifiedParty:
        """The party that the certificate is of."""
        return party_of(self.certificate)

    def outdated(self, now: float) -> str:
        """Return why the certificate does not hold at a time, in seconds since 1970; "": it does."""
        return outdated(ServerCredentials(self.certificate), now, f"the certificate of {self.party.name}")


def make_tls_key() -> bytes:
    """Make a private key for TLS (PEM)."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def write_tls_key(path: Path) -> bytes:
    """Make a private key for TLS in a new file of mode 0600, and return it (PEM). Raises KeyFileError."""
    key = make_tls_key()
    write_private(path, key)
    return key


def make_request(private_key: bytes, party: CertifiedParty) -> bytes:
    """Return a request for a certificate (DER), signed with a key for TLS (PEM). Raises KeyFileError."""
    try:
        key = serialization.load_pem_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # its text could quote the key
        raise KeyFileError("key for TLS: not a private key (PEM, not encrypted)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError("key for TLS: must be ECDSA P-256")
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_named(party.name))
        .add_extension(x509.SubjectAlternativeName([_uri(party.identity)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(_ENCODING.DER)
    )


# --- reading


def fingerprint(certificate: bytes) -> bytes:
    """Return SHA-256 of a certificate (PEM), 32 bytes. Raises CertificateError."""
    return _parsed(certificate, "certificate").fingerprint(hashes.SHA256())


def party_of(certificate: bytes) -> CertifiedParty:
    """Return the name and the identity that a party's certificate (PEM) stands for.

    Who issued it is not looked at: TLS has, or `check_issued` does.
    raises  CertificateError: it is no certificate, or no party's
    """
    parsed = _parsed(certificate.removeprefix(codecs.BOM_UTF8), "certificate of a party")
    try:
        purposes = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        found = _party_in(parsed.subject, parsed.extensions)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateError(f"certificate: is of no party: {error}") from error
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise CertificateError(f"certificate of {found.name}: is not for a client of TLS")
    return found


def check_issued(certificate: bytes, authority: bytes, now: float, whose: str = "the certificate") -> None:
    """Check that an authority (PEM) has issued a certificate (PEM), and that both hold at a time.

    raises  CertificateError
    """
    parsed, issuer = _parsed(certificate, whose), _parsed(authority, "authority's certificate")
    if not _is_authority(issuer):
        raise CertificateError("authority's certificate: is of no authority")
    try:
        parsed.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(f"{whose}: was issued by another authority than the one given") from error
    for pem, words in ((certificate, whose), (authority, "the authority's certificate")):
        if why := outdated(ServerCredentials(pem), now, words):
            raise CertificateError(why)


def check_key(certificate: bytes, private_key: bytes) -> None:
    """Raise CertificateError unless a private key is that of a certificate; both PEM."""
    try:
        key = serialization.load_pem_private_key(private_key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):  # its text could quote the key
        raise CertificateError("key for TLS: not a private key (PEM, not encrypted)") from None
    if key != _parsed(certificate, "certificate").public_key():
        raise CertificateError("certificate: is of another key for TLS than the one here")


def _parsed(certificate: bytes, whose: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise CertificateError(f"{whose}: not a certificate: {error}") from error


def _party_in(subject: x509.Name, extensions: x509.Extensions) -> CertifiedParty:
    """Return the party that a certificate, or a request for one, names. Raises ValueError."""
    names = [str(one.value) for one in subject]
    alternatives = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    uris = [one.value for one in alternatives if isinstance(one, x509.UniformResourceIdentifier)]
    if len(names) != 1 or len(uris) != 1 or len(alternatives) != 1:
        raise ValueError("must have one name and one identity")
    match = _IDENTITY_URI.fullmatch(uris[0])
    if match is None:
        raise ValueError("its identity must be secagg:identity: and 64 hexadecimal digits")
    try:
        check_name(names[0])
        return CertifiedParty(names[0], check_identity(bytes.fromhex(match[1])))
    except (RegistryError, ParameterError) as error:
        raise ValueError(str(error)) from error


def _checked_request(request: bytes, party: CertifiedParty) -> x509.CertificateSigningRequest:
    whose = f"certificate request of {party.name}"
    try:
        wish = x509.load_der_x509_csr(request)
        named = _party_in(wish.subject, wish.extensions)
        signed = wish.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateError(f"{whose}: {error}") from error
    if not signed:
        raise CertificateError(f"{whose}: is not signed by its key")
    if named != party:
        raise CertificateError(f"{whose}: is for {named.name} with identity {named.identity.hex()}")
    return wish


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _uri(identity: bytes) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"secagg:identity:{identity.hex()}")


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_ENCODING.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
