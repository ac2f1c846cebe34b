"""What the commands of a party have in common: addresses, certificates, its sealed store, its console."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from secagg.service import PartyCredentials, ServerCredentials
    from secagg.store import Store

__all__ = ["check_addresses", "credentials_of", "printer", "sealed"]


def check_addresses(addresses: Iterable[str]) -> None:
    """Check --server. Raises ParameterError."""
    from secagg.service import host_and_port

    for address in addresses:
        if not host_and_port(address, "--server")[1]:
            raise ParameterError(f"--server: must be host:port with a port in 1..65535, is {address!r}")


def credentials_of(party: Path | None, certificate: Path | None) -> ServerCredentials | PartyCredentials:
    """Return what tells a server: the certificate that was given, or those of a party's folder.

    raises  ParameterError: neither was given; KeyFileError; CertificateError
    """
    from secagg.service import PartyCredentials, ServerCredentials, check_issued

    if certificate is not None:
        return ServerCredentials.load(certificate)
    if party is None:
        raise ParameterError("--certificate: is needed, or --party with the folder that `secagg enroll` made")
    own = PartyCredentials.load(party / "party.crt", party / "tls.key", party / "authority.crt")
    check_issued(own.certificate, own.authority, time.time(), str(party / "party.crt"))
    return own


def sealed(beneath: Store, key: Path, passphrase_file: Path | None, *, adopt: bool = False) -> Store:
    """Seal a party's store by its identity's key or a passphrase. adopt: also what is in the clear.

    raises  StoreError; KeyFileError
    """
    from secagg.service import former_keys, read_identity, read_private, store_key
    from secagg.store import SealedStore

    if passphrase_file is not None:
        return SealedStore.with_passphrase(beneath, read_private(passphrase_file).strip())
    former = [store_key(read_identity(one)) for one in former_keys(key)]
    return SealedStore(beneath, store_key(read_identity(key)), former=former, adopt=adopt)


def printer(*, as_json: bool) -> Callable[[str], None]:
    """Return what prints a line, or a JSON object a line."""
    console = Console()

    def say(text: str) -> None:
        if as_json:
            print(json.dumps({"at": round(time.time(), 3), "said": text}), flush=True)  # noqa: T201 - the result
        else:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    return say
