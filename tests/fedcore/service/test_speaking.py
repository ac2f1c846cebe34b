"""A run whose sites speak once a round: the same sums, the same model, and who vanishes costs nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SettingError, TaskError
from fedcore.rounds import agreement
from fedcore.rounds.agreement import ONE_SHOT, Agreement, Security
from fedcore.rounds.model import Model
from fedcore.rounds.site import Site
from fedcore.service.join import Hold
from fedcore.service.options import ServeOptions
from fedcore.service.serve import serve
from fedcore.service.speak import speak
from secagg import IdentityKey, OneShotParameters, ParameterError, context_digest
from secagg.service import Deadlines, Decryptor, Registry
from secagg.service.tasks import end_tasks
from secagg.store import MemoryStore, Store
from secagg.transcript import verify_oneshot
from tests.attacks.training import test_consent
from tests.attacks.training.test_consent import consent_of, first_of
from tests.fedcore.service import test_join
from tests.fedcore.service.test_join import (
    PATIENT,
    TASKS,
    assert_model_is_that_of_the_clear_run,
    assert_sums_are_those_of_the_revealed_updates,
    ends,
)
from tests.fedcore.service.test_resuming import MEMBERS, SCHEMA, run_of
from tests.fedcore.sites import SCHEMA as SITE_SCHEMA
from tests.fedcore.sites import make_plan, make_sites
from tests.service.cohort import PINNED

KEYS = [IdentityKey.from_seed(bytes([i + 101]) * 32) for i in range(5)]
DECRYPTORS = Registry.of((f"decryptor-{i}", key.identity) for i, key in enumerate(KEYS))
SECURITY = Security(minimum_cohort=4, protocol=ONE_SHOT, post_quantum=False)
AGREED: dict[str, Any] = {
    "learner": {"kind": "logistic"},
    "plan": {"rounds": 3},
    "security": {"protocol": ONE_SHOT},
}


class Run(test_join.Run):
    """Sites that speak once; `vanishing` of them are new processes, with their stores, for every upload."""

    vanishing: tuple[str, ...] = ()
    signer: IdentityKey | None = None

    @property
    def agreed(self) -> agreement.Run:
        plan = replace(self.plan or make_plan(rounds=2, clients=len(self.sites)), attempts=1)
        return agreement.Run(
            schema=SITE_SCHEMA,
            learner=self.learner,
            strategy=self.strategy,
            plan=plan,
            words=repr(self.learner),
            members=self.registry.identities,
            security=SECURITY,
            decryptors=DECRYPTORS.identities,
        )

    def serve_options(self, **changes: Any) -> ServeOptions:
        return super().serve_options(**({"decryptors": DECRYPTORS, "signer": self.signer} | changes))

    async def come(self, name: str, address: str, store: Store) -> Model:
        """Be a site to the end of the run."""
        options = self.join_options(name, address, store=store)
        while True:
            once = name in self.vanishing
            final = await speak(replace(options, site=self.anew(name)), self.said[name].append, once=once)
            if final is not None:
                return final

    def anew(self, name: str) -> Site:
        """A site that has just been started."""
        return make_sites(len(self.sites))[name] if name in self.vanishing else self.sites[name]

    async def go(self) -> None:
        serving = asyncio.create_task(serve(self.serve_options()))
        path = self.folder / "history.jsonl"
        async with asyncio.timeout(60):
            while not (path.exists() and self.events("listening")):
                await asyncio.sleep(0.01)
                assert not serving.done()
            address = self.events("listening")[0]["address"]
            opening = [
                asyncio.create_task(
                    Decryptor(
                        address=address,
                        credentials=PINNED,
                        signer=key,
                        policy=self.agreed.oneshot_policy(),
                    ).serve()
                )
                for key in KEYS
            ]
            joining = [asyncio.create_task(self.come(name, address, MemoryStore())) for name in self.sites]
            self.model = await serving
            self.finals = dict(zip(self.sites, await asyncio.gather(*joining), strict=True))
            await end_tasks(*opening)


@pytest.mark.parametrize("vanishing", [(), ("site-0", "site-3")])
def test_sites_that_speak_once_train_the_same_model(tmp_path: Path, vanishing: tuple[str, ...]) -> None:
    run = Run(tmp_path, make_sites(5), PATIENT)
    run.vanishing = vanishing
    asyncio.run(run.go())
    assert_sums_are_those_of_the_revealed_updates(run)
    assert_model_is_that_of_the_clear_run(run)
    assert len(run.events("committee")) == 1
    for name in run.sites:
        assert [line for line in ends(run.said[name]) if line.endswith("uploaded")] == [
            f"{task}: uploaded" for task in TASKS
        ]
        assert any("no [privacy]" in line for line in run.said[name])
        assert run.finals[name].agreement == run.agreed.digest.hex()


def test_a_site_that_stays_away_costs_nothing(tmp_path: Path) -> None:
    """Four of five: the round does not wait for the fifth longer than its grace."""
    patience = Deadlines(advertise_s=30, phase_s=30, grace_s=0.3)
    run = Run(tmp_path, make_sites(5), patience)
    original = run.come

    async def come(name: str, address: str, store: Store) -> Any:
        return None if name == "site-2" else await original(name, address, store)

    run.come = come  # type: ignore[method-assign]
    asyncio.run(run.go())
    for event in run.events():
        assert event["survivors"] == ["site-0", "site-1", "site-3", "site-4"]
    assert_model_is_that_of_the_clear_run(run)


# --- what is agreed on


def test_what_the_protocol_cannot_keep_is_refused() -> None:
    members, decryptors = MEMBERS, DECRYPTORS.identities

    def made(**changes: Any) -> agreement.Run:
        return agreement.Run.of(Agreement.parse(AGREED | changes), SCHEMA, members, decryptors)

    assert made().plan.attempts == 1
    for changes, named in (
        ({"plan": {"rounds": 3, "attempts": 2}}, "plan.attempts"),
        ({"plan": {"rounds": 3, "keep": 0.5}}, "plan.keep"),
        ({"consent": {"regroup": True}}, "consent.regroup"),
        ({"consent": {"strict_cohorts": True}}, "consent.strict_cohorts"),
        ({"strategy": {"name": "FedMedian", "groups": 2}}, "strategy"),
        ({"strategy": {"name": "Scaffold"}}, "strategy"),
        ({"security": {"protocol": ONE_SHOT, "minimum_decryptors": 6}}, "security.minimum_decryptors"),
        ({"security": {"protocol": "carrier pigeon"}}, "security.protocol"),
    ):
        with pytest.raises(SettingError, match=named.replace(".", r"\.")):
            made(**changes)
    with pytest.raises(SettingError, match="decryptors: must be none"):
        agreement.Run.of(Agreement.parse({"learner": {"kind": "logistic"}}), SCHEMA, members, decryptors)
    with pytest.raises(SettingError, match="minimum_decryptors"):
        run_of(AGREED)  # nobody opens a sum


def test_an_agreement_names_the_decryptors_and_one_of_the_pairwise_protocol_says_nothing_of_them() -> None:
    agreed = Agreement.parse(AGREED)
    one = agreement.Run.of(agreed, SCHEMA, MEMBERS, DECRYPTORS.identities)
    other = agreement.Run.of(agreed, SCHEMA, MEMBERS, frozenset(sorted(DECRYPTORS.identities)[1:]))
    assert one.digest != other.digest
    assert sorted(one.stands_on()["decryptors"]) == sorted(key.identity.hex() for key in KEYS)
    pairwise = run_of({"learner": {"kind": "logistic"}})
    assert set(pairwise.to_json()["security"]) == {
        "corrupt",
        "dropout",
        "minimum_cohort",
        "minimum_survivors",
    }
    assert "decryptors" not in pairwise.stands_on()


def test_a_sites_policy_follows_from_the_agreement() -> None:
    tables = AGREED | {"security": {"protocol": ONE_SHOT, "corrupt": 0.2, "minimum_decryptors": 5}}
    run = agreement.Run.of(Agreement.parse(tables), SCHEMA, MEMBERS, DECRYPTORS.identities)
    policy = run.oneshot_policy()
    assert policy.known == MEMBERS
    assert policy.decryptors == DECRYPTORS.identities
    assert policy.minimum_corrupt == 0.2
    assert policy.minimum_colluding == run.colluders == 2
    assert (policy.minimum_candidates, policy.minimum_committee) == (5, 5)
    assert policy.minimum_survivors == policy.minimum_per_context == run.minimum_survivors
    assert policy.require_post_quantum


def test_a_site_answers_no_round_that_is_made_for_fewer_colluders() -> None:
    plan = make_plan(rounds=4, clients=6, attempts=1)
    changes = {"security": SECURITY, "decryptors": DECRYPTORS.identities}
    run = test_consent.run_of(plan, changes=changes)
    task = first_of(run)
    consent = consent_of(run)

    def parameters(colluding: int) -> OneShotParameters:
        return OneShotParameters(
            round_id=bytes([colluding]) * 16,
            committee_digest=bytes(32),
            vector_length=task.encoding.length,
            ring_bits=task.encoding.codec.ring_bits,
            contexts=(context_digest(task.encode()),),
            maximum_uploads=8,
            colluding=colluding,
        )

    assert run.colluders == 1
    with pytest.raises(TaskError, match=r"parameters\.colluding: must be at least 1, is 0"):
        consent._read(task.encode(), parameters(0))
    assert consent._read(task.encode(), parameters(1)).step == task.step


def test_a_server_needs_the_decryptors_that_were_agreed_on(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(5), PATIENT)
    fewer = Registry.of((f"decryptor-{i}", key.identity) for i, key in enumerate(KEYS[1:]))
    for decryptors in (None, fewer):
        with pytest.raises(ParameterError, match="decryptors: must be those that were agreed on"):
            replace(run.serve_options(), decryptors=decryptors)


@pytest.mark.parametrize("name", ["receipts", "hold"])
def test_what_only_the_pairwise_protocol_has_is_refused_and_not_left_out(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(5), PATIENT)
    asked = {"receipts": tmp_path, "hold": Hold.parse("1:masked_input_collection")}
    options = run.join_options("site-0", "127.0.0.1:1", **{name: asked[name]})
    with pytest.raises(ParameterError, match=f"{name}: is of the pairwise protocol"):
        asyncio.run(speak(options, lambda _text: None, once=True))


def test_a_server_records_a_transcript_of_each_round(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(5), PATIENT)
    run.signer = KEYS[0]
    asyncio.run(run.go())
    rounds = [event for event in run.events("round") if event["completed"]]
    sealed = run.events("transcript")
    assert len(rounds) == len(sealed) > 1
    for event in sealed:
        with (tmp_path / "transcripts" / event["file"]).open("rb") as file:
            report = verify_oneshot(file, server=KEYS[0].identity, decryptors=DECRYPTORS.identities)
        assert report.ok, report.findings
