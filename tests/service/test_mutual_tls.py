"""What an authority issues, with gRPC: a party is let in and known, a stranger hears nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from secagg import IdentityKey
from secagg.service.authority import Authority, CertifiedParty, make_request, make_tls_key, party_of
from secagg.service.keys import SERVER_NAME, ServerCredentials

AUTHORITY, OTHER = Authority.make(time.time()), Authority.make(time.time())
PARTY = CertifiedParty("hospital-1", IdentityKey.from_seed(bytes(32)).identity)


class Who:
    """Answers with the name in the caller's certificate."""

    def __init__(self) -> None:
        self.calls = 0

    def answer(self, _: bytes, context: Any) -> bytes:
        self.calls += 1
        party = party_of(context.auth_context()["x509_pem_cert"][0])
        return f"{party.name} {party.identity.hex()}".encode()


@pytest.fixture
def server() -> Iterator[tuple[Who, int]]:
    who = Who()
    made = AUTHORITY.issue_server(time.time())
    methods = {"Who": grpc.unary_unary_rpc_method_handler(who.answer)}
    one = grpc.server(ThreadPoolExecutor(1), handlers=[grpc.method_handlers_generic_handler("test", methods)])
    credentials = grpc.ssl_server_credentials(
        [(made.private_key, made.certificate)],
        root_certificates=AUTHORITY.certificate,
        require_client_auth=True,
    )
    port = one.add_secure_port("127.0.0.1:0", credentials)
    one.start()
    yield who, port
    one.stop(None).wait()


def ask(
    port: int, certificate: bytes | None, key: bytes | None, trusted: bytes = AUTHORITY.certificate
) -> str:
    credentials = grpc.ssl_channel_credentials(trusted, private_key=key, certificate_chain=certificate)
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        return bytes(channel.unary_unary("/test/Who")(b"", timeout=20)).decode()


def issued(authority: Authority) -> tuple[bytes, bytes]:
    key = make_tls_key()
    return authority.issue_party(make_request(key, PARTY), PARTY, time.time()), key


def test_a_party_is_known_by_its_certificate(server: tuple[Who, int]) -> None:
    assert ask(server[1], *issued(AUTHORITY)) == f"hospital-1 {PARTY.identity.hex()}"


@pytest.mark.parametrize("kind", ["none", "another authority", "self-signed"])
def test_a_stranger_reaches_no_method(server: tuple[Who, int], kind: str) -> None:
    self_signed = ServerCredentials.generate()
    pair = {
        "none": (None, None),
        "another authority": issued(OTHER),
        "self-signed": (self_signed.certificate, self_signed.private_key),
    }[kind]
    with pytest.raises(grpc.RpcError) as caught:
        ask(server[1], *pair)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert server[0].calls == 0
    assert "hospital" not in error.details()


def test_a_client_calls_no_server_of_another_authority(server: tuple[Who, int]) -> None:
    with pytest.raises(grpc.RpcError):
        ask(server[1], *issued(AUTHORITY), OTHER.certificate)
    assert server[0].calls == 0
