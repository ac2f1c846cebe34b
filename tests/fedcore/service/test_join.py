"""A training run over loopback, server and sites in one event loop, each with its own options."""

from __future__ import annotations

import asyncio
import gc
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.codec.codec import Codec, EncodedVector
from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.history import read_history
from fedcore.learner import flatten
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds import agreement, consent
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.agreement import ConsentRules, Security
from fedcore.rounds.federation import Federation
from fedcore.rounds.model import Model, load_model, save_model
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Mean
from fedcore.rounds.site import Site, whole
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.service.join import Hold, JoinOptions, _compute, _keep_receipt, _reveal, join
from fedcore.service.options import ServeOptions
from fedcore.service.serve import serve
from fedcore.strategies import FedAvg, Strategy
from secagg import IdentityKey, ParameterError, Phase, RoundParameters, context_digest
from secagg.audit import Round, dump_receipt
from secagg.kernels import ring_mask
from secagg.service import ConnectionLostError, Deadlines, KeyFileError, Registry
from secagg.store import MemoryStore, ParticipationLedger
from secagg.store.sql import AuditLog, Database
from tests.fedcore.sites import LEARNER, SCHEMA, FailingLearner, make_plan, make_sites
from tests.service.cohort import CREDENTIALS, PINNED

TASKS = ["mean 1", "deviation 1", "train 1", "train 2"]
PATIENT = Deadlines(advertise_s=30, phase_s=30)  # nobody is late: the run never waits for these


PRIVATE = PrivacyPlan(epsilon=9.0, delta=1e-3, rounds=1, smallest=4)


@dataclass
class Run:
    """A whole run and what everybody saw of it."""

    folder: Path
    sites: dict[str, Site]
    deadlines: Deadlines
    keys: dict[str, IdentityKey] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    finals: dict[str, Model] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    model: RunState | None = None
    learner: Any = LEARNER
    strategy: Strategy = field(default_factory=FedAvg)
    plan: TrainingPlan | None = None
    start_s: float = 30.0
    security: Security = field(default_factory=lambda: Security(minimum_cohort=4))
    rules: ConsentRules = field(default_factory=ConsentRules)

    def __post_init__(self) -> None:
        for i, name in enumerate(self.sites):
            self.keys[name] = IdentityKey.from_seed(bytes([i + 1]) * 32)
            self.said[name] = []

    @property
    def registry(self) -> Registry:
        return Registry.of((name, key.identity) for name, key in self.keys.items())

    @property
    def agreed(self) -> agreement.Run:
        return agreement.Run(
            schema=SCHEMA,
            learner=self.learner,
            strategy=self.strategy,
            plan=self.plan or make_plan(rounds=2, clients=len(self.sites)),
            words=repr(self.learner),
            members=self.registry.identities,
            security=self.security,
            consent=self.rules,
        )

    def consent(self, name: str) -> consent.Consent:
        store = MemoryStore()
        return consent.Consent(self.agreed, self.sites[name], store, ParticipationLedger(store))

    def serve_options(self, **changes: Any) -> ServeOptions:
        values: dict[str, Any] = {
            "address": "127.0.0.1:0",
            "credentials": CREDENTIALS,
            "registry": self.registry,
            "run": self.agreed,
            "out": self.folder,
            "start_s": self.start_s,
            "deadlines": self.deadlines,
        }
        return ServeOptions(**(values | changes))

    def join_options(self, name: str, address: str, **changes: Any) -> JoinOptions:
        options = JoinOptions(
            address=address,
            credentials=PINNED,
            signer=self.keys[name],
            site=self.sites[name],
            run=replace(self.agreed, schema=self.sites[name].schema or SCHEMA),
            reveal=self.folder / "private" / name,
            patience_s=10.0,
        )
        return replace(options, **changes)

    def events(self, kind: str = "round") -> list[dict[str, Any]]:
        return [e for e in read_history(self.folder / "history.jsonl") if e["event"] == kind]

    def revealed(self, name: str, round_id: str) -> Path:
        return self.folder / "private" / name / f"{round_id}.npy"

    async def go(self) -> None:
        serving = asyncio.create_task(serve(self.serve_options()))
        path = self.folder / "history.jsonl"
        async with asyncio.timeout(40):
            while not (path.exists() and self.events("listening")):
                await asyncio.sleep(0.01)
                assert not serving.done()
            address = self.events("listening")[0]["address"]
            joining = [
                asyncio.create_task(join(self.join_options(name, address), self.said[name].append))
                for name in self.sites
            ]
            self.model = await serving
            ends = zip(self.sites, await asyncio.gather(*joining, return_exceptions=True), strict=True)
        for name, end in ends:
            if isinstance(end, Model):
                self.finals[name] = end
            else:
                self.errors[name] = end


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four sites that take part in everything."""
    run = Run(tmp_path_factory.mktemp("steady"), make_sites(4), PATIENT)
    asyncio.run(run.go())
    assert not run.errors
    return run


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five sites, one of which has another schema."""
    sites = make_sites(5)
    other = Schema(SCHEMA.columns, ("healthy", "ill"))
    sites["site-2"] = replace(sites["site-2"], schema=other)
    folder = tmp_path_factory.mktemp("foreign")
    patience = Deadlines(advertise_s=2, phase_s=1.5, grace_s=0.4, advertise_grace_s=0.5)
    run = Run(folder, sites, patience, start_s=3.0)
    asyncio.run(run.go())
    assert list(run.errors) == ["site-2"]
    return run


def told(said: list[str]) -> list[str]:
    """What became of the rounds, without what is said ahead of them."""
    return [line for line in said if not line.startswith(("WARNING", "agreed", "is connected"))]


def ends(said: list[str]) -> list[str]:
    """What became of the rounds, without what was lost of this site's vector."""
    return [line.partition(" (")[0] for line in told(said)]


def in_the_clear(run: Run) -> RunState:
    """The same run as a plain sum over those who survived."""
    absent = {e["task"]: frozenset(run.sites) - set(e["survivors"]) for e in run.events() if e["completed"]}
    plan = run.agreed.plan
    return Federation(PlainSum(run.sites, absent), SCHEMA, LEARNER, plan).run()


def assert_sums_are_those_of_the_revealed_updates(run: Run) -> None:
    rounds = [event for event in run.events() if event["completed"]]
    assert [event["task"] for event in rounds] == TASKS
    for event in rounds:
        secure = np.load(run.folder / "sums" / f"{event['round_id']}.npy")
        updates = [np.load(run.revealed(name, event["round_id"])).tolist() for name in event["survivors"]]
        mask = ring_mask(event["ring_bits"])
        assert secure.tolist() == [sum(column) & mask for column in zip(*updates, strict=True)]
        assert len(secure) == event["vector_length"]


def assert_model_is_that_of_the_clear_run(run: Run) -> None:
    clear = in_the_clear(run)
    assert run.model is not None
    assert flatten(run.model.parameters).tobytes() == flatten(clear.parameters).tobytes()
    assert run.model.standardizer.mean.tobytes() == clear.standardizer.mean.tobytes()
    assert run.model.standardizer.deviation.tobytes() == clear.standardizer.deviation.tobytes()
    assert run.model.weight == clear.weight
    assert np.abs(flatten(clear.parameters)).max() > 0


def test_the_history_tells_the_run_from_listening_to_the_end(steady: Run) -> None:
    events = list(read_history(steady.folder / "history.jsonl"))
    assert (events[0]["event"], events[-1]["event"]) == ("listening", "finished")
    assert [event["task"] for event in steady.events()] == TASKS
    rows = sum(len(site.table) for site in steady.sites.values())
    for event in steady.events():
        assert event["completed"]
        assert event["survivors"] == list(steady.sites)
        assert event["weight"] == rows
        assert min(event["bytes_up"], event["bytes_down"]) > 0
        phases = [e for e in steady.events("phase") if e["round_id"] == event["round_id"]]
        assert [phase["phase"] for phase in phases] == [phase.name.lower() for phase in Phase]
        assert all((phase["answered"], phase["dropped"]) == (4, []) for phase in phases)
        assert sum(phase["bytes_up"] for phase in phases) == event["bytes_up"]
    assert len({event["round_id"] for event in steady.events()}) == len(TASKS)
    assert len(steady.events("upload")) == 4 * len(TASKS)
    assert not steady.events("refused")
    assert not steady.events("failed")


def test_every_secure_sum_equals_that_of_the_revealed_updates(steady: Run, foreign: Run) -> None:
    for run in (steady, foreign):
        assert_sums_are_those_of_the_revealed_updates(run)


def test_the_model_equals_that_of_a_run_in_the_clear_bit_for_bit(steady: Run, foreign: Run) -> None:
    for run in (steady, foreign):
        assert_model_is_that_of_the_clear_run(run)


def test_the_server_sees_uploads_that_are_not_the_updates(steady: Run) -> None:
    for upload in steady.events("upload"):
        plain = np.load(steady.revealed(upload["client"], upload["round_id"]))
        assert upload["first"] != plain[: len(upload["first"])].tolist()


def test_updates_are_revealed_to_their_owner_only_and_with_a_warning(steady: Run) -> None:
    for name, said in steady.said.items():
        folder = steady.folder / "private" / name
        assert f"WARNING: this site writes its plain updates to {folder}" in said
        assert any("without --store" in line or "without a store" in line for line in said)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = list(folder.iterdir())
        assert len(files) == len(TASKS)
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_models_on_disk_are_those_after_each_round(steady: Run) -> None:
    assert sorted(path.name for path in (steady.folder / "models").iterdir()) == [
        "001.safetensors",
        "002.safetensors",
    ]
    assert steady.model is not None
    first, last = (load_model(steady.folder / "models" / f"00{i}.safetensors") for i in (1, 2))
    assert (last.number, last.schema) == (2, SCHEMA)
    assert flatten(last.parameters).tobytes() == flatten(steady.model.parameters).tobytes()
    assert last.standardizer.mean.tolist() == steady.model.standardizer.mean.tolist()
    assert flatten(first.parameters).tobytes() != flatten(last.parameters).tobytes()


def test_every_site_is_told_of_every_round_and_ends_with_the_final_model(steady: Run, tmp_path: Path) -> None:
    assert steady.model is not None
    for name, final in steady.finals.items():
        assert ends(steady.said[name]) == [f"{t}: done" for t in TASKS]
        assert flatten(final.parameters).tobytes() == flatten(steady.model.parameters).tobytes()
        assert final.standardizer.mean.tolist() == steady.model.standardizer.mean.tolist()
    save_model(tmp_path / "final.safetensors", final)
    kept = load_model(tmp_path / "final.safetensors")
    assert flatten(kept.parameters).tobytes() == flatten(final.parameters).tobytes()
    assert kept.standardizer.mean.tolist() == final.standardizer.mean.tolist()


def test_a_site_knows_in_how_many_training_sums_it_is(steady: Run) -> None:
    assert {site.trained for site in steady.sites.values()} == {2}


def test_a_site_without_noise_is_told_what_remains_to_a_lying_server(steady: Run, tmp_path: Path) -> None:
    for said in steady.said.values():
        (line,) = (line for line in said if "who is in a sum" in line)
        assert line.startswith("WARNING: no [privacy]: who is in a sum: a liar's gain: two steps may differ")
        assert line.endswith("(remedy: consent.strict_cohorts, [privacy])")
    plan = replace(make_plan(rounds=1, clients=5), norm=1.0, bits=14, privacy=PRIVATE)
    guarded = {name: replace(site, guard=PrivacyGuard(PRIVATE)) for name, site in make_sites(5).items()}
    run = Run(tmp_path, guarded, PATIENT, plan=plan)
    options = replace(run.join_options("site-0", "127.0.0.1:1", reveal=None), patience_s=0.1)
    said = list[str]()
    with pytest.raises(ConnectionLostError):
        asyncio.run(join(options, said.append))
    assert not any("liar" in line for line in said)


def test_a_site_with_another_schema_sits_out_and_the_others_go_on(foreign: Run) -> None:
    for event in foreign.events():
        assert event["completed"]
        assert event["survivors"] == ["site-0", "site-1", "site-3", "site-4"]
    assert any("another context" in line for line in foreign.said["site-2"])
    assert not any(": done" in line for line in foreign.said["site-2"])
    assert not list((foreign.folder / "private" / "site-2").iterdir())
    assert "has another agreement, " in str(foreign.errors["site-2"])  # and no model of its own
    for name in ("site-0", "site-1", "site-3", "site-4"):
        assert ends(foreign.said[name]) == [f"{task}: done" for task in TASKS]


def test_nobody_hears_that_a_learner_fails(tmp_path: Path) -> None:
    sites = make_sites(5)
    sites["site-2"] = replace(sites["site-2"], learner=FailingLearner({}))
    run = Run(tmp_path, sites, Deadlines(advertise_s=10, phase_s=10, grace_s=0.4))
    asyncio.run(run.go())
    assert [len(event["survivors"]) for event in run.events()] == [5, 5, 5, 5]
    words = "ValueError: Floating-point under-/overflow occurred at epoch #1."  # in its own log alone
    zeros = [line for line in run.said["site-2"] if "sends zeros" in line]
    assert zeros == [f"train {i}: sends zeros: the learner failed with {words}" for i in (1, 2)]
    assert "overflow" not in (run.folder / "history.jsonl").read_text(encoding="utf-8")
    assert "site-2" in run.finals


def parameters_for(task: Task, **changes: Any) -> RoundParameters:
    values: dict[str, Any] = {
        "round_id": bytes(16),
        "vector_length": task.encoding.length,
        "ring_bits": task.encoding.codec.ring_bits,
        "context": context_digest(task.encode()),
    }
    return RoundParameters(**(values | changes))


def test_a_round_whose_parameters_do_not_fit_its_task_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(4), PATIENT)
    options = run.join_options("site-0", "127.0.0.1:1", reveal=None)
    task = run.agreed.terms.task(Mean())
    length, bits = task.encoding.length, task.encoding.codec.ring_bits
    answer = _compute(options, run.consent("site-0"), task.encode(), parameters_for(task))
    assert isinstance(answer, EncodedVector)
    assert whole(answer, task).tolist() == run.sites["site-0"].contribute(task).tolist()
    for changes in ({"vector_length": length - 1}, {"vector_length": length + 1}, {"ring_bits": bits - 1}):
        with pytest.raises(
            TaskError, match=rf"parameters: vector length and ring bits must be \({length}, {bits}\)"
        ):
            _compute(options, run.consent("site-0"), task.encode(), parameters_for(task, **changes))


def test_a_ring_planned_for_others_than_are_enrolled_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(6), PATIENT)
    task = replace(run.agreed, plan=make_plan(rounds=2, clients=200)).terms.task(Mean())
    options = run.join_options("site-0", "127.0.0.1:1", reveal=None)
    with pytest.raises(TaskError, match="vector length and ring bits must be"):
        _compute(options, run.consent("site-0"), task.encode(), parameters_for(task))


@pytest.mark.parametrize("length", [1, 65_536, 65_539])
def test_an_update_is_revealed_whole_though_it_is_read_by_chunks(tmp_path: Path, length: int) -> None:
    codec = Codec(clip=1.0, bits=8, weight_cap=1, clients=3)
    parameters = RoundParameters(
        round_id=bytes(16), vector_length=length, ring_bits=codec.ring_bits, context=bytes(32)
    )
    values, rounding = np.linspace(-1, 1, length), bytes(32)
    whole = codec.encode(values, 1, rounding)
    for name, answer in (("array", whole), ("source", codec.source(values, 1, rounding))):
        (tmp_path / name).mkdir()
        _reveal(tmp_path / name, parameters, answer)
        found = np.load(tmp_path / name / f"{bytes(16).hex()}.npy")
        assert found.dtype == whole.dtype
        assert np.array_equal(found, whole)


def test_an_update_is_never_revealed_twice_under_one_round(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(4), PATIENT)
    task = run.agreed.terms.task(Mean())
    options = run.join_options("site-0", "127.0.0.1:1", reveal=tmp_path)
    agreed = run.consent("site-0")
    _compute(options, agreed, task.encode(), parameters_for(task))
    task = replace(task, attempt=2)
    with pytest.raises((TaskError, ValueError), match="exists"):
        _compute(options, agreed, task.encode(), parameters_for(task))


@pytest.mark.parametrize("phase", list(Phase))
def test_a_hold_is_read_with_its_round_and_phase(phase: Phase) -> None:
    assert Hold.parse(f"5:{phase.name.lower()}") == Hold(5, phase)
    assert Hold.parse(f"5:{phase.name}") == Hold(5, phase)


@pytest.mark.parametrize(
    "text", ["", "5", "5:", ":unmasking", "x:unmasking", "5:lunch", "5:unmasking:1", "1.5:unmasking"]
)
def test_a_hold_that_cannot_be_read_is_refused_with_the_phases_there_are(text: str) -> None:
    with pytest.raises(
        ParameterError, match="hold: must be ROUND:PHASE with one of advertise_keys, .*, unmasking, is"
    ):
        Hold.parse(text)


def test_a_reveal_folder_that_is_gone_is_a_typed_error(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(4), PATIENT)
    task = run.agreed.terms.task(Mean())
    options = run.join_options("site-0", "127.0.0.1:1", reveal=tmp_path / "missing")
    (tmp_path / "missing").rmdir()
    with pytest.raises(KeyFileError, match="missing"):
        _compute(options, run.consent("site-0"), task.encode(), parameters_for(task))


def test_a_server_that_cannot_listen_says_where(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(4), PATIENT)
    with pytest.raises(ParameterError, match="address: cannot listen on '192.0.2.1:1'"):
        asyncio.run(serve(run.serve_options(address="192.0.2.1:1")))
    gc.collect()  # a history that was left open shows here


def test_a_receipt_that_was_kept_is_never_replaced(tmp_path: Path) -> None:
    """Two of one round prove that the server lied; it must not be able to take the first away."""
    said: list[str] = []
    receipts = []
    for reason in ("one", "other"):
        with Database("sqlite://") as database:
            log = AuditLog(database, IdentityKey.from_seed(b"a" * 32), lambda: 1.0)
            entry = Round.aborted("default/default", bytes(16), reason=reason)
            receipts.append(dump_receipt(log.append(entry)))
    for receipt in (receipts[0], receipts[0], receipts[1], b"nonsense", receipts[0]):
        _keep_receipt(tmp_path / "receipts", receipt, said.append)
    kept = sorted((tmp_path / "receipts").iterdir(), key=lambda path: len(path.name))
    assert [path.read_bytes() for path in kept] == receipts
    assert kept[0].name == f"{bytes(16).hex()}.receipt"
    assert [text.partition(":")[0] for text in said] == [
        "the server gave another receipt of a round that it gave one of before",
        "the server's receipt is none",
    ]
