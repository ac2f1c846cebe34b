"""The main job: hospitals and a server, each an operating-system process, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedcore.data import load_set, read_folder, uneven, write_table
from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.demo.checks import DemoError, check_sums, check_transcripts, completed_rounds, revealed_file
from fedcore.errors import DataError
from fedcore.evaluation.baselines import Mode, Result, Trial, compare
from fedcore.history import read_history
from fedcore.learner import Learner
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.rounds.agreement import ONE_SHOT, PAIRWISE, Security
from fedcore.rounds.model import SUFFIX, load_model
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.service.join import Hold
from secagg import Identity, Phase
from secagg.kernels import dequantize
from secagg.service import Registry, ServerCredentials, write_identity

HELD_OUT_SHARE = 0.25
WEIGHT_CAP = 1000  # rows: a public bound on the size of a site
_FEWEST, _MINIMUM_ROWS = 4, 8  # sites, and rows of a site
DECRYPTORS = tuple(f"decryptor-{i}" for i in range(1, 8))  # T = 2, one may be lost
VANISHING = 2  # sites that are new processes for every upload
_LOST_AFTER = 3  # sums with all decryptors
EDGE, NEAR = "edge-1", 2  # an edge, and how many sites upload through it
_POLL_S = 0.05
_PATIENCE_S = 120.0  # for the whole run to make progress


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of `fedcore demo`.

    drop     which answer the killed site does not give any more; None: nobody is killed
    data     folder with a table per site and schema.toml or .csv; None: `dataset`, split over `clients`
    grace_s  seconds that the server waits for the others once enough have answered
    protocol, suite  as in `Security`; "one-shot": two sites vanish after each upload, one decryptor is killed
    kill_server      phases in which the server is killed, too, each in another round, and started again
    """

    dataset: str = "breast_cancer"
    clients: int = 8
    rounds: int = 12
    drop: Hold | None = None
    seed: int = 0
    data: Path | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    out: Path = Path("runs")
    grace_s: float = 2.0
    kill_server: tuple[Phase, ...] = ()
    protocol: str = PAIRWISE
    suite: str = "x25519"

    def __post_init__(self) -> None:
        Security(protocol=self.protocol, suite=self.suite)
        if self.protocol == ONE_SHOT and (self.drop is not None or self.kill_server):
            raise DataError("protocol: with one-shot nobody is dropped or killed in phases of the other one")


@dataclass(frozen=True, slots=True)
class Setting:
    """The sites' training rows, the held-out rows, and what everybody knows."""

    name: str
    tables: dict[str, Table]
    held_out: Table
    schema: Schema
    label: str

    def learner(self) -> Learner[Any]:
        """Return the model of this setting."""
        return LogisticRegressionLearner(features=len(self.schema.columns), classes=len(self.schema.classes))


@dataclass(slots=True)
class DemoResult:
    """Outcome of a demonstration."""

    folder: Path
    setting: Setting
    victim: str | None
    events: list[dict[str, Any]]
    comparison: dict[Mode, Result]
    checked_sums: int
    transcripts: int  # verified
    seen: tuple[str, list[int], list[int]]  # site, what the server saw, what it hides
    seconds: float
    vanishing: tuple[str, ...] = ()  # sites that are new processes for every upload
    lost: str = ""  # decryptor
    near: tuple[str, ...] = ()  # sites that upload through an edge

    @property
    def identical(self) -> bool:
        """Whether the secure and the clear run ended in the same parameters, bit for bit."""
        return self.comparison[Mode.SECURE].equals(self.comparison[Mode.QUANTIZED])


@dataclass(slots=True)
class _Processes:
    """Everything that was started, to be ended by its own id."""

    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)  # (process, line it printed)
    _drains: list[threading.Thread] = field(default_factory=list)

    def start(self, name: str, arguments: list[str], log: Path, program: str = "fedcore") -> None:
        """Start `fedcore ...`, or another program; its output goes to a log file and to `lines`."""
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.running[name] = process
        drain = threading.Thread(target=self._drain, args=(name, process, log), daemon=True)
        drain.start()
        self._drains.append(drain)

    def _drain(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        if process.stdout is None:
            return
        with process.stdout as lines, log.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(line)
                file.flush()
                self.lines.append((name, line.rstrip()))

    def kill(self, name: str) -> None:
        """SIGKILL: no goodbye."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def wait(self, names: Iterable[str]) -> None:
        """Wait until these have ended by themselves."""
        for name in names:
            self.running[name].wait(timeout=_PATIENCE_S)

    def end(self) -> None:
        """End what is still running."""
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for drain in self._drains:
            drain.join()


def prepare(options: DemoOptions) -> Setting:
    """Load or split the data. Raises DataError."""
    if options.data is None:
        dataset = load_set(options.dataset)
    else:
        described = options.data / "schema.toml"
        if not described.exists():
            described = options.data / "schema.csv"
        schema = Schema.load(described, options.classes)
        if schema.target is not None:
            raise DataError(f"{described}: the demonstration tells classes apart, the label is a number")
        dataset = read_folder(options.data, schema, schema.label_column(options.label), without=described)
        if len(dataset.parts) < _FEWEST:
            raise DataError(f"{options.data}: a file per site, at least {_FEWEST}, has {len(dataset.parts)}")
    training, held_out = dataset.split(HELD_OUT_SHARE, options.seed)
    if dataset.natural:
        tables = dataset.first(training, None if options.data is not None else options.clients)
    else:
        (whole,) = training.values()
        parts = uneven(whole.labels, options.clients, options.seed, minimum_rows=_MINIMUM_ROWS).tables(whole)
        tables = {f"hospital-{i}": part for i, part in enumerate(parts.values(), 1)}
    if empty := [name for name, table in tables.items() if not len(table)]:
        raise DataError(f"{empty[0]}: has too few rows")
    schema = dataset.schema.of_features(dataset.label)  # the rows are written as features
    return Setting(dataset.name, tables, join_tables(list(held_out.values())), schema, dataset.label)


def run_demo(options: DemoOptions, show: Callable[[dict[str, Any]], None]) -> DemoResult:
    """Run everything; `show` gets every event of the history as it happens.

    raises  DataError; DemoError when a process or a check fails
    """
    began = time.monotonic()
    setting = prepare(options)
    folder = _new_folder(options.out)
    victim = None
    if options.drop is not None:
        victim = sorted(setting.tables)[options.seed % len(setting.tables)]
        if not 1 <= options.drop.number <= options.rounds:
            raise DataError(f"drop: round must be in 1..{options.rounds}, is {options.drop.number}")
    server = _enrol(folder, setting)
    if options.protocol == ONE_SHOT:
        _enrol_decryptors(folder)
        _enrol_edge(folder, _near(setting))
    processes = _Processes()
    try:
        if options.protocol == ONE_SHOT:
            events = _drive_oneshot(options, setting, folder, processes, show)
        else:
            events = _drive(options, setting, folder, victim, processes, show)
    finally:
        processes.end()
    checked = check_sums(folder, events)
    transcripts = check_transcripts(folder, events, server)
    return DemoResult(
        folder,
        setting,
        victim,
        events,
        _compare(options, setting, folder, events),
        checked,
        transcripts,
        _seen(folder, events),
        time.monotonic() - began,
        *((_vanishing(setting), DECRYPTORS[0], _near(setting)) if options.protocol == ONE_SHOT else ()),
    )


def _vanishing(setting: Setting) -> tuple[str, ...]:
    return tuple(sorted(setting.tables)[:VANISHING])


def _near(setting: Setting) -> tuple[str, ...]:
    return tuple(sorted(setting.tables)[-NEAR:])


def _new_folder(out: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = out / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise DemoError(f"{out}: no free folder for {stamp}")


def _enrol(folder: Path, setting: Setting) -> Identity:
    """Give every party its key and its rows, and everybody the registry, the schema and the certificate.

    returns  the identity with which the server signs its transcripts
    """
    private = folder / "private"
    private.mkdir(mode=0o700)
    parties = []
    for name, table in setting.tables.items():
        site = private / name
        site.mkdir(mode=0o700)
        parties.append((name, write_identity(site / "identity.key").identity))
        write_table(table, site / "rows.csv", setting.schema, setting.label)
    (folder / "registry.toml").write_text(Registry.of(parties).dump(), encoding="utf-8")
    setting.schema.dump(folder / _schema_file(setting.schema))
    server = private / "server"
    server.mkdir(mode=0o700)
    ServerCredentials.generate().write(folder / "server.crt", server / "server.key")
    identity = write_identity(server / "identity.key").identity
    (folder / "server.identity").write_text(identity.hex() + "\n", encoding="ascii")
    return identity


def _enrol_decryptors(folder: Path) -> None:
    """Give every decryptor its key, and everybody their registry."""
    parties = []
    for name in DECRYPTORS:
        own = folder / "private" / name
        own.mkdir(mode=0o700)
        parties.append((name, write_identity(own / "identity.key").identity))
    (folder / "decryptors.toml").write_text(Registry.of(parties).dump(), encoding="utf-8")


def _enrol_edge(folder: Path, near: Iterable[str]) -> None:
    """Give the edge its key and its certificate, and tell it and the server of each other."""
    own = folder / "private" / EDGE
    own.mkdir(mode=0o700)
    identity = write_identity(own / "identity.key").identity
    (folder / "edges.toml").write_text(Registry.of([(EDGE, identity)]).dump(), encoding="utf-8")
    everybody = Registry.load(folder / "registry.toml")
    some = Registry.of((name, one) for one, name in everybody.names.items() if name in near)
    (folder / "near.toml").write_text(some.dump(), encoding="utf-8")
    ServerCredentials.generate().write(folder / "edge.crt", own / "edge.key")


def _schema_file(schema: Schema) -> str:
    return "schema.csv" if schema.layout is None else "schema.toml"


def _public(options: DemoOptions, folder: Path, setting: Setting) -> list[str]:
    schema = setting.schema
    return [
        *("--registry", str(folder / "registry.toml")),
        *("--schema", str(folder / _schema_file(schema))),
        *(("--classes", ",".join(schema.classes)) if schema.layout is None else ()),
        *("--rounds", str(options.rounds)),
        *("--weight-cap", str(WEIGHT_CAP)),
        *_protocol(options, folder),
    ]


def _protocol(options: DemoOptions, folder: Path) -> list[str]:
    if options.protocol != ONE_SHOT:
        return ["--suite", options.suite]
    return ["--protocol", ONE_SHOT, "--decryptors", str(folder / "decryptors.toml")]


def _serve_arguments(
    options: DemoOptions, setting: Setting, folder: Path, *, again: str | None = None
) -> list[str]:
    """Return the command of the server; again: the address of the one that was killed."""
    return [
        "serve",
        *_public(options, folder, setting),
        *("--certificate", str(folder / "server.crt")),
        *(("--edges", str(folder / "edges.toml")) if options.protocol == ONE_SHOT else ()),
        *("--key", str(folder / "private" / "server" / "server.key")),
        *("--signing-key", str(folder / "private" / "server" / "identity.key")),
        "--keep-inputs",
        *("--out", str(folder)),
        *("--deadline", "20", "--grace", str(options.grace_s)),
        *("--store", str(folder / "private" / "server" / "store")),
        *(() if again is None else ("--resume", "--listen", again)),
    ]


def _join_arguments(
    options: DemoOptions,
    setting: Setting,
    folder: Path,
    address: str,
    name: str,
    *,
    hold: bool = False,
    once: bool = False,
    near: bool = False,
) -> list[str]:
    """Return the command of a site. near: at the edge."""
    site = folder / "private" / name
    arguments = [
        *("join", address),
        *_public(options, folder, setting),
        *("--certificate", str(folder / ("edge.crt" if near else "server.crt"))),
        *("--key", str(site / "identity.key")),
        *("--data", str(site / "rows.csv")),
        *(("--label", setting.label) if setting.schema.layout is None else ()),
        *("--seed", str(options.seed)),
        *("--reveal", str(site / "revealed")),
        *("--store", str(site / "store")),
    ]
    if once:
        arguments.append("--once")
    if hold and options.drop is not None:
        arguments += ["--hold", f"{options.drop.number}:{options.drop.phase.name.lower()}"]
    return arguments


def _drive(
    options: DemoOptions,
    setting: Setting,
    folder: Path,
    victim: str | None,
    processes: _Processes,
    show: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Start the processes, kill one when it holds, bring it back, follow the history to its end."""
    logs = folder / "logs"
    logs.mkdir()
    processes.start("server", _serve_arguments(options, setting, folder), logs / "server.log")
    events: list[dict[str, Any]] = []
    read, away, killer = 0, False, _Killer(list(options.kill_server))

    def happened(event: dict[str, Any]) -> None:
        events.append(event)
        show(event)

    for event in _follow(folder / "history.jsonl", processes):
        if event is not None:
            happened(event)
            if (phase := killer.due(event)) is not None:
                processes.kill("server")
                happened({"event": "killed", "client": "server", "line": f"in {phase.name.lower()}"})
                arguments = _serve_arguments(options, setting, folder, again=_address(events))
                processes.start("server", arguments, logs / "server.log")
            if victim is not None and away and event["event"] in {"completed", "failed"}:
                away = False  # only now: a site that is back in time goes on with its round
                arguments = _join_arguments(options, setting, folder, _address(events), victim, hold=False)
                processes.start(victim, arguments, logs / f"{victim}.log")
            if event["event"] == "listening" and len(processes.running) == 1:
                address = event["address"]
                for name in setting.tables:
                    arguments = _join_arguments(options, setting, folder, address, name, hold=name == victim)
                    processes.start(name, arguments, logs / f"{name}.log")
        for name, line in processes.lines[read:]:
            read += 1
            if name == victim and line.startswith("holding before"):
                processes.kill(name)
                happened({"event": "killed", "client": name, "line": line})
                away = True
    return events


def _drive_oneshot(
    options: DemoOptions,
    setting: Setting,
    folder: Path,
    processes: _Processes,
    show: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Start the processes; some sites vanish after each upload, a decryptor is killed for good.

    Some sites upload through an edge.
    """
    (folder / "logs").mkdir()
    run = _SpeakingOnce(options, setting, folder, processes, show)
    processes.start("server", _serve_arguments(options, setting, folder), folder / "logs" / "server.log")
    for event in _follow(folder / "history.jsonl", processes):
        if event is not None:
            run.happened(event)
        run.look()
    return run.events


@dataclass(slots=True)
class _SpeakingOnce:
    """What follows from what happens in a run of the one-upload protocol."""

    options: DemoOptions
    setting: Setting
    folder: Path
    processes: _Processes
    show: Callable[[dict[str, Any]], None]
    events: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0  # lines of the processes

    def happened(self, event: dict[str, Any]) -> None:
        """Take an event of the server."""
        self.events.append(event)
        self.show(event)
        if event["event"] == "listening":
            self._begin(event["address"])
        if event["event"] == "completed":
            self._go_on()

    def look(self) -> None:
        """Let the sites near the edge join once it listens."""
        for name, line in self.processes.lines[self.read :]:
            self.read += 1
            if name == EDGE and line.startswith(said := "listening on "):
                self._join(_near(self.setting), line.removeprefix(said).partition(",")[0])

    def _begin(self, address: str) -> None:
        near = _near(self.setting)
        for name in (*DECRYPTORS, EDGE):
            arguments = (_edge_arguments if name == EDGE else _decrypt_arguments)(self.folder, address, name)
            self.processes.start(name, arguments, self._log(name), "secagg.cli")
        self._join([name for name in self.setting.tables if name not in near], address)

    def _go_on(self) -> None:
        vanishing = _vanishing(self.setting)
        if sum(one["event"] == "completed" for one in self.events) == _LOST_AFTER:
            self.processes.kill(DECRYPTORS[0])
            self.happened({"event": "killed", "client": DECRYPTORS[0], "line": "for good"})
        self.processes.wait(vanishing)  # they have gone: here they come again, as new processes
        self._join(vanishing, _address(self.events))

    def _join(self, names: Iterable[str], address: str) -> None:
        for name in names:
            where = {"once": name in _vanishing(self.setting), "near": name in _near(self.setting)}
            arguments = _join_arguments(self.options, self.setting, self.folder, address, name, **where)
            self.processes.start(name, arguments, self._log(name))

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _edge_arguments(folder: Path, address: str, name: str) -> list[str]:
    own = folder / "private" / name
    return [
        "edge",
        *("--server", address),
        *("--certificate", str(folder / "server.crt")),
        *("--key", str(own / "identity.key"), "--store", str(own / "store")),
        *("--registry", str(folder / "near.toml")),
        *("--own-certificate", str(folder / "edge.crt"), "--own-key", str(own / "edge.key")),
    ]


def _decrypt_arguments(folder: Path, address: str, name: str) -> list[str]:
    own = folder / "private" / name
    return [
        "decrypt",
        *("--server", address),
        *("--certificate", str(folder / "server.crt")),
        *("--key", str(own / "identity.key"), "--store", str(own / "store")),
        *("--registry", str(folder / "registry.toml")),
        *("--decryptors", str(folder / "decryptors.toml")),
        *("--minimum-decryptors", "4"),
    ]


@dataclass(slots=True)
class _Killer:
    """Tells when a server is in the phase that it is to be killed in next; a round is killed once."""

    phases: list[Phase]
    _spared: str = ""  # the round that was killed in last

    def due(self, event: dict[str, Any]) -> Phase | None:
        if not self.phases or event.get("round_id", self._spared) == self._spared:
            return None
        before = self.phases[0] - 1
        begun = (
            event["event"] == "round_opened"
            if before < 0
            else event.get("phase") == Phase(before).name.lower()
        )
        if not begun:
            return None
        self._spared = event["round_id"]
        return self.phases.pop(0)


def _address(events: list[dict[str, Any]]) -> str:
    return str(next(event["address"] for event in events if event["event"] == "listening"))


def _follow(path: Path, processes: _Processes) -> Iterator[dict[str, Any] | None]:
    """Yield the history's events as they come, and None now and then, until the server is done."""
    count, last = 0, time.monotonic()
    while True:
        over = processes.running["server"].poll() is not None
        news = list(read_history(path))[count:] if path.exists() else []
        for event in news:
            count += 1
            last = time.monotonic()
            yield event
        yield None
        if over:
            if processes.running["server"].returncode != 0:
                raise DemoError(f"the server failed; see {path.parent / 'logs' / 'server.log'}")
            return
        if time.monotonic() - last > _PATIENCE_S:
            raise DemoError(f"nothing happened for {_PATIENCE_S:g} s; see {path.parent / 'logs'}")
        time.sleep(_POLL_S)


def _seen(folder: Path, events: list[dict[str, Any]]) -> tuple[str, list[int], list[int]]:
    """Return one upload of a training round, as the server saw it and as it was before masking."""
    ring_bits = {e["round_id"]: e["ring_bits"] for e in completed_rounds(events) if e["kind"] == "train"}
    upload = next(e for e in events if e["event"] == "upload" and e["round_id"] in ring_bits)
    plain = np.load(revealed_file(folder, upload["client"], upload["round_id"]))
    first = list(upload["first"])
    hidden = dequantize(plain[: len(first)], step=1.0, ring_bits=ring_bits[upload["round_id"]])
    return upload["client"], first, [int(value) for value in hidden]


def _compare(
    options: DemoOptions, setting: Setting, folder: Path, events: list[dict[str, Any]]
) -> dict[Mode, Result]:
    """Train the same again alone, in the clear without those who were not there, and pooled."""
    trial = Trial(
        rows=setting.tables,
        held_out=(setting.held_out,),
        schema=setting.schema,
        learner=setting.learner(),
        plan=TrainingPlan(rounds=options.rounds, clients=len(setting.tables), weight_cap=WEIGHT_CAP),
        absent={
            event["task"]: frozenset(setting.tables) - set(event["survivors"])
            for event in completed_rounds(events)
        },
        seed=options.seed,
    )
    final = load_model(folder / "models" / f"{options.rounds:03d}{SUFFIX}")
    secure = Result(
        mode=Mode.SECURE,
        metrics=trial.evaluate(final.parameters, final.standardizer),
        model=RunState.of(options.rounds, final.parameters, final.standardizer),
    )
    return compare(trial, (Mode.LOCAL, Mode.QUANTIZED, Mode.POOLED)) | {Mode.SECURE: secure}


def accuracy_by_round(result: DemoResult) -> list[float]:
    """Accuracy on the held-out rows after every training round."""
    learner = result.setting.learner()
    out = []
    for path in sorted((result.folder / "models").glob(f"*{SUFFIX}")):
        model = load_model(path)
        held_out = model.standardizer.apply(result.setting.held_out)
        out.append(learner.evaluate(model.parameters, held_out)["accuracy"])
    return out
