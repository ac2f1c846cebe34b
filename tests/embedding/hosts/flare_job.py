"""A FLARE job for the tests: the conformance suite, case by case, then a run over sites with folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.collab import collab

from fedcore.integrations.exchange import SecureMean, Trained
from fedcore.integrations.flare import SecAggSite, average
from secagg.embedding import Patience, conformance, read_registry
from secagg.params import Identity
from tests.embedding.models import CONFIG, MEAN, MODEL, train

SEED = b"the tests of FLARE"


def site_number(name: str) -> int:
    return int(name.rpartition("-")[2]) - 1


def case_seed(case: int) -> bytes:
    return hashlib.sha256(SEED + str(case).encode()).digest()


class Site(SecAggSite):
    """Stands in for a site of each case in turn; in the last run it has a folder of its own."""

    mean = MEAN

    def __init__(self) -> None:
        self._probe: Any = None
        self._i = 0

    @collab.publish
    def begin(self, case: int) -> str:
        self._i = i = site_number(collab.site_name)  # known to this call's thread alone
        nodes = None if case < 0 else conformance.nodes_of(conformance.CASES[case], case_seed(case))[0]
        self._probe = None if nodes is None else nodes[i]
        return "ready"

    @collab.publish
    def report(self) -> bytes:
        one = self._probe.report()
        masked = None if one.masked is None else one.masked.astype(np.uint64).tolist()
        return json.dumps([one.identity.hex(), masked, list(one.faults)]).encode()

    def participant(self) -> Any:
        return super().participant() if self._probe is None else self._probe

    def train(self, model: Any) -> Trained:
        return train(self._i)(model)


class Server:
    """Runs everything, and writes down what was not as it must be."""

    def __init__(self, out: str, registry: str) -> None:
        self.out, self.registry = out, registry

    @collab.main
    def run(self) -> None:
        patience = Patience(first_s=20, input_s=20, phase_s=20)
        found: dict[str, str] = {}
        for number, case in enumerate(conformance.CASES):
            _, registry = conformance.nodes_of(case, case_seed(number))
            committee = conformance.committee_for(case)
            secure = SecureMean(
                mean=MEAN, registry=registry, attempts=1, patience=patience, committee=committee
            )
            collab.clients.begin(number)
            try:
                one, _ = average(secure, MODEL, CONFIG)
                told = dict(collab.clients.report())
                sites = sorted(told, key=site_number)
                reports = [_report(told[site]) for site in sites]
                conformance.judge(case, one, registry, reports)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test shows
                found[str(case)] = repr(error)
        collab.clients.begin(-1)
        secure = SecureMean(mean=MEAN, registry=read_registry(self.registry), patience=patience)
        model: Any = dict(MODEL)
        for number in range(2):
            _, result = average(secure, model, {"round": number})
            model = result.arrays
        found["run"] = json.dumps({name: array.tolist() for name, array in model.items()})
        Path(self.out).write_text(json.dumps(found), encoding="utf-8")


def _report(text: bytes) -> conformance.Report:
    identity, masked, faults = json.loads(text)
    vector = None if masked is None else np.array(masked, np.uint64)
    return conformance.Report(Identity(bytes.fromhex(identity)), vector, tuple(faults))
