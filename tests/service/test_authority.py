"""The operator's authority, and TLS 1.3 with what it issues."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secagg import IdentityKey, ParameterError
from secagg.service import KeyFileError, ServerCredentials
from secagg.service.authority import (
    Authority,
    CertificateError,
    CertifiedParty,
    PartyCredentials,
    check_issued,
    check_key,
    fingerprint,
    make_request,
    make_tls_key,
    party_of,
    write_tls_key,
)
from secagg.service.keys import SERVER_NAME

E = TypeVar("E", bound=x509.ExtensionType)
NOW = time.time()
DAY_S = 86_400
AUTHORITY = Authority.make(NOW)
OTHER = Authority.make(NOW)
PARTY = CertifiedParty("hospital-1", IdentityKey.from_seed(bytes(32)).identity)
KEY = make_tls_key()
CERTIFICATE = AUTHORITY.issue_party(make_request(KEY, PARTY), PARTY, NOW)


def extension(pem: bytes, kind: type[E]) -> E:
    return x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(kind).value


def test_an_authority_issues_no_authority_and_tells_nothing_of_the_federation() -> None:
    assert extension(AUTHORITY.certificate, x509.BasicConstraints) == x509.BasicConstraints(True, 0)
    parsed = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    assert parsed.not_valid_after_utc - parsed.not_valid_before_utc > dt.timedelta(days=19 * 365)
    assert parsed.subject.rfc4514_string().startswith("CN=secagg authority ")
    assert parsed.subject != x509.load_pem_x509_certificate(OTHER.certificate).subject
    assert AUTHORITY.fingerprint == parsed.fingerprint(hashes.SHA256()) == fingerprint(AUTHORITY.certificate)


def test_a_server_s_certificate_names_its_hosts() -> None:
    made = AUTHORITY.issue_server(NOW, hosts=["example.org", "10.0.0.1"])
    names = extension(made.certificate, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "example.org"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    usage = extension(made.certificate, x509.ExtendedKeyUsage)
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extension(made.certificate, x509.BasicConstraints).ca
    check_issued(made.certificate, AUTHORITY.certificate, NOW)
    with pytest.raises(CertificateError, match="is of no party"):
        party_of(made.certificate)
    with pytest.raises(ParameterError, match="host: must be"):
        AUTHORITY.issue_server(NOW, hosts=["b\u00fccher"])


def test_a_party_s_certificate_tells_who_it_stands_for() -> None:
    assert party_of(CERTIFICATE) == PARTY
    assert list(extension(CERTIFICATE, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    check_issued(CERTIFICATE, AUTHORITY.certificate, NOW)
    check_key(CERTIFICATE, KEY)
    with pytest.raises(CertificateError, match="is of another key for TLS"):
        check_key(CERTIFICATE, make_tls_key())
    with pytest.raises(CertificateError, match="not a private key"):
        check_key(CERTIFICATE, b"garbage")


def test_a_certificate_is_renewed_with_the_same_or_another_key() -> None:
    later = NOW + 300 * DAY_S
    for key in (KEY, make_tls_key()):
        renewed = AUTHORITY.issue_party(make_request(key, PARTY), PARTY, later)
        assert party_of(renewed) == PARTY
        check_issued(renewed, AUTHORITY.certificate, later + 390 * DAY_S)


def test_what_has_expired_is_said_with_its_dates() -> None:
    credentials = PartyCredentials(CERTIFICATE, AUTHORITY.certificate, KEY)
    assert credentials.outdated(NOW) == ""
    said = credentials.outdated(NOW + 400 * DAY_S)
    assert said.startswith("the certificate of hospital-1 holds from ")
    assert "set the clock, or get a new certificate" in said
    with pytest.raises(CertificateError, match="the certificate of x holds from"):
        check_issued(CERTIFICATE, AUTHORITY.certificate, NOW + 400 * DAY_S, "the certificate of x")
    old = Authority.make(NOW - 30 * DAY_S, days=10)
    with pytest.raises(CertificateError, match="the authority's certificate holds from"):
        old.issue_server(NOW)


def test_no_certificate_outlives_its_authority() -> None:
    short = Authority.make(NOW, days=10)
    parsed = x509.load_pem_x509_certificate(short.issue_server(NOW).certificate)
    assert parsed.not_valid_after_utc == x509.load_pem_x509_certificate(short.certificate).not_valid_after_utc


def test_another_authority_s_certificate_is_refused() -> None:
    with pytest.raises(CertificateError, match="mine: was issued by another authority than the one given"):
        check_issued(CERTIFICATE, OTHER.certificate, NOW, "mine")
    with pytest.raises(CertificateError, match="is of no authority"):
        check_issued(CERTIFICATE, CERTIFICATE, NOW)


def test_a_request_is_for_the_party_that_is_certified() -> None:
    request = make_request(KEY, PARTY)
    other = CertifiedParty("hospital-2", PARTY.identity)
    with pytest.raises(CertificateError, match="request of hospital-2: is for hospital-1 with identity"):
        AUTHORITY.issue_party(request, other, NOW)
    stolen = CertifiedParty("hospital-1", IdentityKey.from_seed(b"x" * 32).identity)
    with pytest.raises(CertificateError, match="request of hospital-1: is for hospital-1 with identity 3b6a"):
        AUTHORITY.issue_party(request, stolen, NOW)
    changed = bytearray(request)
    changed[-1] ^= 1
    with pytest.raises(CertificateError, match="certificate request of hospital-1: "):
        AUTHORITY.issue_party(bytes(changed), PARTY, NOW)
    with pytest.raises(CertificateError, match="certificate request of hospital-1: "):
        AUTHORITY.issue_party(b"garbage", PARTY, NOW)


def request_with(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, *uris: str) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PARTY.name)])
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, digest)
        .public_bytes(serialization.Encoding.DER)
    )


def test_a_request_of_another_kind_is_refused() -> None:
    uri = f"secagg:identity:{PARTY.identity.hex()}"
    p256 = ec.generate_private_key(ec.SECP256R1())
    for request, message in (
        (request_with(ec.generate_private_key(ec.SECP384R1()), uri), "must be ECDSA P-256"),
        (request_with(ed25519.Ed25519PrivateKey.generate(), uri), "must be ECDSA P-256"),
        (request_with(p256, uri, uri), "one name and one identity"),
        (request_with(p256, "secagg:identity:12"), "64 hexadecimal digits"),
        (request_with(p256, f"secagg:identity:{'00' * 32}"), "small order"),
    ):
        with pytest.raises(CertificateError, match=message):
            AUTHORITY.issue_party(request, PARTY, NOW)


def test_garbage_is_no_party_s_certificate() -> None:
    for pem in (b"", b"garbage", AUTHORITY.certificate, ServerCredentials.generate().certificate):
        with pytest.raises(CertificateError, match="certificate"):
            party_of(pem)


def test_private_keys_stay_private(tmp_path: Path) -> None:
    AUTHORITY.write(tmp_path / "authority.crt", tmp_path / "authority.key")
    key = write_tls_key(tmp_path / "tls.key")
    for name in ("authority.key", "tls.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert Authority.load(tmp_path / "authority.crt", tmp_path / "authority.key") == AUTHORITY
    with pytest.raises(KeyFileError, match="exists"):
        write_tls_key(tmp_path / "tls.key")
    assert "PRIVATE" not in repr(AUTHORITY)
    (tmp_path / "party.crt").write_bytes(AUTHORITY.issue_party(make_request(key, PARTY), PARTY, NOW))
    paths = tmp_path / "party.crt", tmp_path / "tls.key", tmp_path / "authority.crt"
    credentials = PartyCredentials.load(*paths)
    assert credentials.party == PARTY
    assert "PRIVATE" not in repr(credentials)
    with pytest.raises(KeyFileError, match="is no authority's certificate"):
        Authority.load(tmp_path / "party.crt", tmp_path / "tls.key")
    (tmp_path / "authority.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="mode must be 0600"):
        Authority.load(tmp_path / "authority.crt", tmp_path / "authority.key")


def test_a_key_that_is_none_is_refused_without_quoting_it() -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for key, message in ((b"deadbeef", "not a private key"), (other, "must be ECDSA P-256")):
        with pytest.raises(KeyFileError, match=message) as caught:
            make_request(key, PARTY)
        assert "deadbeef" not in str(caught.value)


# --- TLS


class Talk:
    """One TLS 1.3 connection over loopback to a server that lets in whom an authority knows."""

    def __init__(
        self, tmp_path: Path, server: ServerCredentials, trusted: bytes = AUTHORITY.certificate
    ) -> None:
        self.folder = tmp_path
        self.server = self.context(
            ssl.PROTOCOL_TLS_SERVER, server.certificate, server.private_key or b"", trusted
        )
        self.seen: bytes | ssl.SSLError = b""

    def context(self, protocol: int, certificate: bytes, key: bytes, trusted: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=trusted.decode())
        if certificate:
            path = self.folder / "pair.pem"
            path.write_bytes(certificate + key)
            context.load_cert_chain(path)
        return context

    def answer(self, certificate: bytes, key: bytes, trusted: bytes = AUTHORITY.certificate) -> bytes:
        """What the server says to a client. Raises ssl.SSLError, or OSError where the server hangs up."""
        client = self.context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, trusted)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                with (
                    socket.create_connection(listener.getsockname(), timeout=20) as plain,
                    client.wrap_socket(plain, server_hostname=SERVER_NAME) as stream,
                ):
                    assert stream.version() == "TLSv1.3"
                    return stream.recv(10)
            finally:
                thread.join()

    def _serve(self, listener: socket.socket) -> None:
        plain, _ = listener.accept()
        plain.settimeout(20)
        try:
            with self.server.wrap_socket(plain, server_side=True) as stream:
                self.seen = stream.getpeercert(binary_form=True) or b""
                stream.send(b"welcome")
        except ssl.SSLError as error:
            self.seen = error
        finally:
            plain.close()


def test_a_party_with_a_certificate_is_let_in_and_known(tmp_path: Path) -> None:
    talk = Talk(tmp_path, AUTHORITY.issue_server(NOW))
    assert talk.answer(CERTIFICATE, KEY) == b"welcome"
    assert isinstance(talk.seen, bytes)
    assert party_of(ssl.DER_cert_to_PEM_cert(talk.seen).encode()) == PARTY


def stranger(kind: str) -> tuple[bytes, bytes]:
    key = make_tls_key()
    request = make_request(key, PARTY)
    match kind:
        case "none":
            return b"", b""
        case "another authority":
            return OTHER.issue_party(request, PARTY, NOW), key
        case "expired":
            return AUTHORITY.issue_party(request, PARTY, NOW - 1, days=0), key
        case "self-signed":
            made = ServerCredentials.generate()
            return made.certificate, made.private_key or b""
        case "a server's":
            made = AUTHORITY.issue_server(NOW)
            return made.certificate, made.private_key or b""
        case _:
            raise ValueError(kind)


@pytest.mark.parametrize("kind", ["none", "another authority", "expired", "self-signed", "a server's"])
def test_a_stranger_ends_in_the_handshake(tmp_path: Path, kind: str) -> None:
    talk = Talk(tmp_path, AUTHORITY.issue_server(NOW))
    with pytest.raises(OSError, match=r"alert|reset|EOF") as caught:  # ssl.SSLError is one
        talk.answer(*stranger(kind))
    assert isinstance(talk.seen, ssl.SSLError)  # before any byte of ours
    assert "hospital" not in str(caught.value)


def test_a_client_refuses_a_server_of_another_authority(tmp_path: Path) -> None:
    talk = Talk(tmp_path, OTHER.issue_server(NOW))
    with pytest.raises(ssl.SSLCertVerificationError):
        talk.answer(CERTIFICATE, KEY)


def test_a_party_is_no_server(tmp_path: Path) -> None:
    talk = Talk(tmp_path, ServerCredentials(CERTIFICATE, KEY))
    with pytest.raises(ssl.SSLCertVerificationError):
        talk.answer(CERTIFICATE, KEY)


def test_a_server_s_next_certificate_loses_nobody(tmp_path: Path) -> None:
    for _ in range(2):
        assert Talk(tmp_path, AUTHORITY.issue_server(NOW)).answer(CERTIFICATE, KEY) == b"welcome"


def test_while_an_authority_is_replaced_both_let_in(tmp_path: Path) -> None:
    both = AUTHORITY.certificate + OTHER.certificate
    key = make_tls_key()
    new = OTHER.issue_party(make_request(key, PARTY), PARTY, NOW)
    for server in (AUTHORITY, OTHER):
        for certificate, own in ((CERTIFICATE, KEY), (new, key)):
            talk = Talk(tmp_path, server.issue_server(NOW), both)
            assert talk.answer(certificate, own, both) == b"welcome"
