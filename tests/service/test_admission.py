"""Who gets in where an operator's authority decides: parties with its certificates, each as itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from secagg import IdentityKey, Policy
from secagg.service import (
    AggregationClient,
    CertificateError,
    ConnectionLostError,
    HelloError,
    PartyCredentials,
    Registry,
)
from secagg.service.authority import Authority, CertifiedParty, make_request, make_tls_key
from secagg.service.keys import ServerCredentials
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort, settle

AUTHORITY, OTHER = Authority.make(time.time()), Authority.make(time.time())
SERVER = AUTHORITY.issue_server(time.time())


def credentials_of(c: Cohort, i: int, authority: Authority = AUTHORITY) -> PartyCredentials:
    party = CertifiedParty(f"party-{i}", c.keys[i].identity)
    key = make_tls_key()
    certificate = authority.issue_party(make_request(key, party), party, time.time())
    return PartyCredentials(certificate, AUTHORITY.certificate, key)


def test_parties_with_certificates_of_the_authority_run_a_round() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            tasks = [asyncio.create_task(c.take_part(i, credentials=credentials_of(c, i))) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))

    asyncio.run(run())


def test_strangers_end_in_the_handshake() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            mine = credentials_of(c, 0)
            own = ServerCredentials.generate()
            strangers = {
                "no certificate": ServerCredentials(AUTHORITY.certificate),
                "another authority": credentials_of(c, 0, OTHER),
                "its own": replace(mine, certificate=own.certificate, private_key=own.private_key or b""),
            }
            for name, credentials in strangers.items():
                with pytest.raises((ConnectionLostError, CertificateError)):
                    await c.take_part(0, credentials=credentials, patience_s=0.0)
                assert not c.server.refused, name  # no method was reached

    asyncio.run(run())


def test_a_party_cannot_speak_as_another_with_its_own_certificate() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            with pytest.raises(HelloError, match="another party's"):
                await c.take_part(0, credentials=credentials_of(c, 1))

    asyncio.run(run())


def test_a_party_without_the_identity_s_key_is_turned_away_whatever_its_certificate() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            mine = credentials_of(c, 0)
            c.keys[0] = IdentityKey.from_seed(b"s" * 32)
            with pytest.raises(HelloError, match="not enrolled"):
                await c.take_part(0, credentials=mine)

    asyncio.run(run())


def test_a_revoked_party_is_turned_away_though_its_certificate_holds() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            rest = {one: name for one, name in c.registry.names.items() if name != "party-0"}
            await c.run.enrol(Registry(rest))
            with pytest.raises(HelloError, match="not enrolled"):
                await c.take_part(0, credentials=credentials_of(c, 0))

    asyncio.run(run())


def test_an_expired_certificate_is_told_before_anybody_is_called() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            party, key = CertifiedParty("party-0", c.keys[0].identity), make_tls_key()
            long_ago = Authority.make(0.0)
            old = long_ago.issue_party(make_request(key, party), party, 0.0)
            credentials = PartyCredentials(old, AUTHORITY.certificate, key)
            with pytest.raises(ConnectionLostError, match="the certificate of party-0 holds from 19"):
                await c.take_part(0, credentials=credentials)

    asyncio.run(run())


def test_a_server_of_another_authority_gets_nothing() -> None:
    async def run() -> None:
        other = OTHER.issue_server(time.time())
        async with cohort(credentials=other, authority=OTHER.certificate) as c:
            with pytest.raises(ConnectionLostError):
                await c.take_part(0, credentials=credentials_of(c, 0), patience_s=0.0)

    asyncio.run(run())


def test_the_server_s_certificate_is_renewed_while_parties_are_connected() -> None:
    async def run() -> None:
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate) as c:
            tasks = [asyncio.create_task(c.take_part(i, credentials=credentials_of(c, i))) for i in range(3)]
            await settle(lambda: len(c.run.connected) == 3)
            renewed = AUTHORITY.issue_server(time.time())
            c.server.renew(renewed)
            tasks += [
                asyncio.create_task(c.take_part(i, credentials=credentials_of(c, i))) for i in range(3, 6)
            ]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert set(result.survivors) == c.named(list(range(6)))
            await asyncio.gather(*tasks)
            pinned = AggregationClient(
                address=c.address,
                credentials=ServerCredentials(SERVER.certificate),
                signer=c.keys[0],
                policy=Policy(known=c.registry.identities, minimum_cohort=4),
                patience_s=0.0,
            )
            with pytest.raises(ConnectionLostError):  # who pinned the old one sees another
                await pinned.take_part(lambda _p, _q: c.vectors[0])

    asyncio.run(run())
