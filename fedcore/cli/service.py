"""The commands of a service run: `fedcore serve`, `fedcore join`, `fedcore explain`."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcore.cli.progress import Progress, told
from fedcore.errors import DataError
from fedcore.experiments.usual import CLIP, EPOCHS, LEARNING_RATE, PLAN
from secagg import ParameterError
from secagg.cli_party import check_addresses, credentials_of, printer, sealed

if TYPE_CHECKING:
    from fedcore.data.reading import Reading
    from fedcore.data.schema import Schema
    from fedcore.data.table import Table as Rows
    from fedcore.data.watch import Watched
    from fedcore.privacy.guard import PrivacyGuard
    from fedcore.rounds.agreement import Run
    from fedcore.rounds.model import Model
    from fedcore.rounds.site import Site
    from secagg import Identity
    from secagg.service import Registry
    from secagg.store import Store

_MOST_HELD_OUT = 0.9  # share of the rows

RegistryOption = Annotated[Path, typer.Option("--registry", help="Registry file (TOML): who is enrolled.")]
CertificateOption = Annotated[Path, typer.Option("--certificate", help="The server's certificate (PEM).")]
SchemaOption = Annotated[Path, typer.Option("--schema", help="Schema (TOML), or CSV of column, low, high.")]
ClassesOption = Annotated[
    str | None,
    typer.Option("--classes", help="Labels, separated by commas, where the schema is a CSV file; 0,1."),
]
LabelOption = Annotated[
    str | None, typer.Option("--label", help="Column of the label, where the schema is a CSV file; label.")
]
# What all parties must agree on: in a training file, or by the same options.
RoundsOption = Annotated[int | None, typer.Option(min=1, help=f"Rounds of training; {PLAN['rounds']}.")]
ClipOption = Annotated[
    float | None, typer.Option(help=f"Largest change of a parameter in a round; {CLIP:g}.")
]
BitsOption = Annotated[int | None, typer.Option(help=f"Bits of a quantized value; {PLAN['bits']}.")]
WeightCapOption = Annotated[
    int | None, typer.Option(help=f"Most rows that count for a site; {PLAN['weight_cap']}.")
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help=f"Passes over the rows in a round; {EPOCHS}.")]
LearningRateOption = Annotated[float | None, typer.Option(help=f"Of local training; {LEARNING_RATE:g}.")]
CorruptOption = Annotated[float | None, typer.Option(help="Share of those enrolled that may collude; 0.1.")]
DropoutOption = Annotated[float | None, typer.Option(help="Share of those enrolled that may drop out; 0.1.")]
MinimumCohortOption = Annotated[
    int | None, typer.Option(help="Fewest clients of a round; 3/4 of those enrolled, at least 4.")
]
StrictOption = Annotated[
    bool | None,
    typer.Option(
        "--strict-cohorts", help="Sites sign sums of the same members only, however the model changes."
    ),
]
RegroupOption = Annotated[
    bool | None,
    typer.Option(
        "--regroup", help="A spoiled sum is dealt into groups; who drops out takes its group along."
    ),
]
TrainingOption = Annotated[
    Path | None,
    typer.Option(
        help="Training file (TOML) with what is agreed on, instead of the options before; the same for the "
        "server and every site."
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(help="Name of the run; one that starts over with the same stores needs a new one."),
]
RowsOption = Annotated[
    str | None,
    typer.Option(help="Names the state of the rows: under a new name sites sign for other members again."),
]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")]
ProtocolOption = Annotated[
    str | None,
    typer.Option(help="pairwise, or one-shot: sites speak once a round, decryptors open the sums."),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(help="x25519-mlkem768: what is recorded of a run stays closed to quantum computers."),
]
DecryptorsOption = Annotated[
    Path | None,
    typer.Option(help="Registry file of the decryptors, for --protocol one-shot (`secagg decrypt`)."),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(help="File (SQLite, mode 0600) of what was signed and accepted; kept from run to run."),
]


# Where the training file says what these options say.
_AGREED = {
    "plan": ("rounds", "clip", "bits", "weight_cap"),
    "learner": ("epochs", "learning_rate"),
    "security": ("corrupt", "dropout", "minimum_cohort", "protocol", "suite"),
    "consent": ("strict_cohorts", "regroup"),
}


def _decryptors(path: Path | None) -> Registry | None:
    """Read the registry of decryptors; None: there is none."""
    from secagg.service import Registry

    return None if path is None else Registry.load(path, role="decryptor")


def _identities(registry: Registry | None) -> frozenset[Identity]:
    return frozenset() if registry is None else registry.identities


def _agreed(
    schema: Schema,
    enrolled: Registry,
    options: Mapping[str, Any],
    decryptors: frozenset[Identity] = frozenset(),
) -> Run:
    """Return what all parties agree on, by `training`, a file, or by the same options; None: not given.

    A file may leave the names of the run and of the rows to the options.
    """
    from fedcore.rounds.agreement import Agreement, Run

    given = {
        table: {key: options[key] for key in keys if options.get(key) is not None}
        for table, keys in _AGREED.items()
    }
    if (training := options.get("training")) is not None:  # Typer before 0.20: a text
        for key in (key for values in given.values() for key in values):
            raise ParameterError(f"--{key.replace('_', '-')}: is said by the training file, --training")
        agreed = Agreement.load(Path(training))
    else:
        agreed = Agreement.parse(given | {"learner": {"kind": "logistic"} | given["learner"]})
    said = {key: options[key] for key in ("name", "rows") if options.get(key) is not None}
    for key in said:
        if getattr(agreed.consent, key):
            raise ParameterError(f"--{key}: is said by the training file, consent.{key}")
    agreed = replace(agreed, consent=replace(agreed.consent, **said))
    return Run.of(agreed, schema, enrolled.identities, decryptors)


def _print_json(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)  # noqa: T201 - the result


def classes_of(text: str | None) -> tuple[str, ...] | None:
    """Read --classes: names separated by commas; None: not given."""
    return None if text is None else tuple(name.strip() for name in text.split(","))


def serve(
    context: typer.Context,
    *,
    registry: RegistryOption,
    certificate: CertificateOption,
    key: Annotated[Path, typer.Option(help="The server's private key (PEM, mode 0600).")],
    schema: SchemaOption,
    out: Annotated[Path, typer.Option(help="Folder for history.jsonl, sums and models.")],
    authority: Annotated[
        Path | None,
        typer.Option(help="Certificate of the operator's authority: who has none of its own is kept out."),
    ] = None,
    classes: ClassesOption = None,
    listen: Annotated[str, typer.Option(help="Address, host:port; port 0: any.")] = "127.0.0.1:0",
    rounds: RoundsOption = None,
    clip: ClipOption = None,
    bits: BitsOption = None,
    weight_cap: WeightCapOption = None,
    epochs: EpochsOption = None,
    learning_rate: LearningRateOption = None,
    corrupt: CorruptOption = None,
    dropout: DropoutOption = None,
    minimum_cohort: MinimumCohortOption = None,
    protocol: ProtocolOption = None,
    suite: SuiteOption = None,
    decryptors: DecryptorsOption = None,
    edges: Annotated[
        Path | None, typer.Option(help="Registry file of edges, for --protocol one-shot (`secagg edge`).")
    ] = None,
    strict_cohorts: StrictOption = None,
    regroup: RegroupOption = None,
    training: TrainingOption = None,
    name: NameOption = None,
    rows: RowsOption = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="File (SQLite) or postgresql://USER:PASSWORD@HOST/NAME that keeps rounds, and who was "
            "summed with whom."
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(help="Folder where uploads wait; default: beside the file, or in the database."),
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(help="The server's identity (mode 0600): sign a transcript of each round with it."),
    ] = None,
    keep_inputs: Annotated[
        bool,
        typer.Option(
            "--keep-inputs", help="Keep masked vectors in transcripts: large, but sums can be recomputed."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its last checkpoint.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Models and sums that stay in --out, the newest; all.")
    ] = None,
    start: Annotated[
        float, typer.Option(help="Seconds that the first round waits for the rest, once enough are there.")
    ] = 60.0,
    deadline: Annotated[float, typer.Option(help="Seconds that a phase lasts at most.")] = 30.0,
    grace: Annotated[
        float, typer.Option(help="Seconds to wait for the rest once enough have answered, within --deadline.")
    ] = 10.0,
    as_json: JsonLinesOption = False,
) -> None:
    """Serve one training run to the parties of a registry."""
    from fedcore.data.schema import Schema
    from fedcore.service.options import ServeOptions
    from fedcore.service.serve import serve as run_server
    from secagg.service import (
        Deadlines,
        Registry,
        ServerCredentials,
        accept_file,
        check_issued,
        host_and_port,
        outdated,
        read_identity,
    )
    from secagg.store.sql import Database, spool_of

    enrolled = Registry.load(registry)
    columns = Schema.load(schema, classes_of(classes))
    if keep_inputs and signing_key is None:
        raise ParameterError("--keep-inputs: needs --signing-key")
    signer = None if signing_key is None else read_identity(signing_key)
    host_and_port(listen, "--listen")
    credentials = ServerCredentials.load(certificate, key)
    if cause := outdated(credentials, time.time()):
        raise ParameterError(f"--certificate: {cause}")
    issuer = None if authority is None else ServerCredentials.load(authority).certificate
    if issuer is not None:
        check_issued(credentials.certificate, issuer, time.time(), "--certificate")
    opening = _decryptors(decryptors)
    run = _agreed(columns, enrolled, context.params, _identities(opening))
    options = ServeOptions(
        decryptors=opening,
        edges=None if edges is None else Registry.load(edges),
        address=listen,
        credentials=credentials,
        registry=enrolled,
        registry_file=registry,
        run=run,
        out=out,
        authority=issuer,
        start_s=start,
        deadlines=Deadlines(advertise_s=deadline, phase_s=deadline, grace_s=grace, advertise_grace_s=grace),
        show=_print_json if as_json else Progress(Console()).show,
        signer=signer,
        keep_inputs=keep_inputs,
        keep=keep,
        resume=resume,
    )
    out.mkdir(parents=True, exist_ok=True)  # only now: what is refused leaves nothing behind
    with nullcontext() if store is None else Database(store) as database:
        if database is not None:
            for change in accept_file(registry, database):
                Console(stderr=True).print(f"{registry}: {change}", highlight=False, markup=False)
            options = replace(options, database=database, spool=spool_of(database, spool))
        asyncio.run(run_server(options))


def join(
    context: typer.Context,
    server: Annotated[
        list[str], typer.Argument(help="Address, host:port; several, of servers of one database.")
    ],
    *,
    party: Annotated[
        Path | None,
        typer.Option(help="Folder that `secagg enroll` made: instead of --registry, --certificate, --key."),
    ] = None,
    registry: Annotated[Path | None, typer.Option(help="Registry file (TOML): who is enrolled.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="The server's certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="This party's key file (mode 0600).")] = None,
    data: Annotated[Path, typer.Option(help="This party's rows (.csv, .parquet, .npz).")],
    schema: SchemaOption,
    label: LabelOption = None,
    classes: ClassesOption = None,
    rounds: RoundsOption = None,
    clip: ClipOption = None,
    bits: BitsOption = None,
    weight_cap: WeightCapOption = None,
    epochs: EpochsOption = None,
    learning_rate: LearningRateOption = None,
    corrupt: CorruptOption = None,
    dropout: DropoutOption = None,
    minimum_cohort: MinimumCohortOption = None,
    protocol: ProtocolOption = None,
    suite: SuiteOption = None,
    decryptors: DecryptorsOption = None,
    strict_cohorts: StrictOption = None,
    regroup: RegroupOption = None,
    training: TrainingOption = None,
    name: NameOption = None,
    rows: RowsOption = None,
    store: StoreOption = None,
    held_out: Annotated[
        str, typer.Option(help="Rows to evaluate with: a share of the rows, whole persons, or a file.")
    ] = "0",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="New rows of --data are used from the next question on."),
    ] = False,
    account: Annotated[
        Path | None,
        typer.Option(help="File of the privacy that this party has spent; kept from run to run."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Write the final model here (safetensors).")] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File (mode 0600) with a passphrase that seals --store; default: the key does."),
    ] = None,
    seal: Annotated[
        bool, typer.Option("--seal", help="Seal a --store of an earlier version, which is in the clear.")
    ] = False,
    patience: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to try to reach the server before giving up; for ever."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeatable training and rounding, for drills.")] = None,
    receipts: Annotated[
        Path | None, typer.Option(help="Keep the server's receipts here: proof that a round is in its log.")
    ] = None,
    reveal: Annotated[
        Path | None, typer.Option(help="UNSAFE, for drills: write plain updates to this folder.")
    ] = None,
    hold: Annotated[
        str | None, typer.Option(help="For drills: ROUND:PHASE before whose answer to stop.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End after one upload, of --protocol one-shot: as a phone does.")
    ] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Take part in a training run with the rows of one party."""
    from fedcore.data.check import look
    from fedcore.data.schema import Schema
    from fedcore.data.watch import Watched
    from fedcore.rounds.site import Site
    from fedcore.service.join import Hold, JoinOptions
    from fedcore.service.join import join as run_client
    from fedcore.service.speak import speak
    from secagg.service import Registry, accept_file, follow_file, read_identity
    from secagg.store import SqliteStore

    check_addresses(server)
    credentials = credentials_of(party, certificate)
    registry, key = _own_file(party, registry, "registry"), _own_file(party, key, "key")
    if watch and _share(held_out):
        raise ParameterError("--held-out: must be a file with --watch, a share would be drawn anew")
    if party is not None:
        follow_file(party / _OF_PARTY["registry"], registry)
    enrolled = Registry.load(registry)
    signer = read_identity(key)
    if signer.identity not in enrolled.identities:
        raise ParameterError(f"key: the identity in {key} is not in {registry}")
    if model is not None and not model.parent.is_dir():
        raise ParameterError(f"model: {model.parent} is no folder")
    columns = Schema.load(schema, classes_of(classes))
    run = _agreed(columns, enrolled, context.params, _identities(_decryptors(decryptors)))
    _check_once(run, once=once)
    guard = _guard(run, seed, account)
    watched = Watched(data, columns, columns.label_column(label))
    reading, table, kept = _own_rows(watched, held_out)
    site = Site(
        enrolled.name_of(signer.identity), table, columns, run.learner, seed, held_out=kept, guard=guard
    )
    say = printer(as_json=as_json)
    durable = None if store is None else sealed(SqliteStore(store), key, passphrase_file, adopt=seal)
    for change in [] if durable is None else accept_file(registry, durable):
        say(f"{registry}: {change}")
    _check_room(guard, run, durable)
    options = JoinOptions(
        address=server,
        credentials=credentials,
        signer=signer,
        site=site,
        run=run,
        store=durable,
        receipts=receipts,
        reveal=reveal,
        hold=None if hold is None else Hold.parse(hold),
        patience_s=math.inf if patience is None else patience,
    )
    if watch:
        options = replace(options, renew=lambda: _renewed(watched, say))
    found = look(reading, columns, run.plan.weight_cap)
    for line in (f"{data}: {reading.rows} rows, {len(reading.table)} can be used", *reading.rules()):
        say(line)
    for note in found.warnings:
        say(f"note: {note}")
    final = asyncio.run(speak(options, say, once=once) if run.one_shot else run_client(options, say))
    _end(final, site, run, model, say)


_OF_PARTY = {"registry": "registry.toml", "key": "party.key"}  # as `secagg enroll` calls them


def _own_file(party: Path | None, given: Path | None, option: str) -> Path:
    if given is not None:
        return given
    if party is None:
        raise ParameterError(f"--{option}: is needed, or --party with the folder that `secagg enroll` made")
    return party / _OF_PARTY[option]


def _took_part(site: Site, say: Callable[[str], None]) -> bool:
    """Say where a site's rows are in no training sum, or said nothing; return whether they did."""
    if not site.trained:
        say("this site's rows are in no training sum of this run: see above why it sat out")
    elif site.silent:
        say(f"in {site.silent} of {site.trained} training sums this site said nothing: see above why")
    return site.silent < site.trained


def _renewed(watched: Watched, say: Callable[[str], None]) -> Rows | None:
    """Return new rows, if there are any that can be used, and say so."""
    try:
        reading = watched.news()
        rows = None if reading is None else reading.complete()
        if rows is not None:
            watched.schema.check_table(rows, str(watched.path))
    except DataError as error:
        if str(error) != watched.fault:  # told once
            watched.fault = str(error)
            say(f"{watched.path} has changed and cannot be used, the rows before stay: {error}")
        return None
    if reading is not None:
        watched.fault = ""
    if rows is not None:
        say(f"{watched.path} has changed: {len(rows)} rows from here on")
    return rows


def _guard(run: Run, seed: int | None, account: Path | None) -> PrivacyGuard | None:
    """Return this party's own account of its privacy, where the run adds noise. Raises ParameterError."""
    from fedcore.privacy.guard import PrivacyGuard

    if run.plan.privacy is None:
        if account is not None:
            raise ParameterError("--account: needs a training file with [privacy], --training")
        return None
    if seed is not None:
        raise ParameterError("--seed: noise that can be repeated hides nothing, [privacy] excludes it")
    if account is None:
        raise ParameterError("--account: is missing, a site must not spend its budget anew with [privacy]")
    return PrivacyGuard(run.plan.privacy, account)


def _check_room(guard: PrivacyGuard | None, run: Run, store: Store | None) -> None:
    """Refuse an account without room for one sum before anybody waits. Raises BudgetExceededError.

    A site that was in the run may come back for its model.
    """
    first = None if guard is None else run.terms.first_noisy()
    known = store is not None and store.get(run.store_name) is not None
    if guard is not None and first is not None and first.noise is not None and not known:
        guard.before(first.noise, first.sent)


def _share(held_out: str) -> float | None:
    """Read --held-out: a share; None: it names a file."""
    try:
        return float(held_out)
    except ValueError:
        return None


def _own_rows(watched: Watched, held_out: str) -> tuple[Reading, Rows, Rows | None]:
    """Read this party's rows: what the file gave, rows to train on, and rows that are held out."""
    from fedcore.data.dataset import hold_out
    from fedcore.data.files import inspect

    reading = watched.read()
    whole = reading.complete()
    share = _share(held_out)
    if share is None and Path(held_out).resolve() == watched.path.resolve():
        raise ParameterError("--held-out: is --data: a model is not evaluated on what it was trained on")
    if share is None:
        return reading, whole, inspect(Path(held_out), watched.schema, watched.label).complete()
    if not 0 <= share <= _MOST_HELD_OUT:
        raise ParameterError(f"--held-out: must be in 0..{_MOST_HELD_OUT}, or a file, is {held_out}")
    if not share:
        return reading, whole, None
    table, kept = hold_out(whole, share, 0)
    if not len(table) or not len(kept):
        raise ParameterError(f"--held-out: {held_out} of {len(whole)} rows leave none on one side")
    return reading, table, kept


def _check_once(run: Run, *, once: bool) -> None:
    if once and not run.one_shot:
        raise ParameterError("--once: is for --protocol one-shot, other sites are asked five times a round")


def _end(final: Model | None, site: Site, run: Run, path: Path | None, say: Callable[[str], None]) -> None:
    """Keep the model of a run that is over; None: this site ends before it."""
    if final is None:
        return
    _finish(final, site, run, path, say)
    if run.plan.rounds and not _took_part(site, say):
        raise typer.Exit(1)


def _finish(final: Model, site: Site, run: Run, path: Path | None, say: Callable[[str], None]) -> None:
    """Say how good the model is on held-out rows, and keep it, with the parameters that stay here."""
    from fedcore.evaluation.personal import beside_alone, personal_model, trained_on
    from fedcore.rounds.model import save_model
    from fedcore.rounds.state import RunState

    now = RunState.of(final.number or 0, final.parameters, final.standardizer)
    own, rules = personal_model(now, site), run.fine_tuning
    if path is not None:
        save_model(path, replace(final, parameters=own))
    if rules.rounds:
        if site.held_out is not None:
            before = site.learner.evaluate(own, now.standardizer.apply(site.held_out))
            say(f"on this site's {len(site.held_out)} held-out rows, before fine-tuning: {told(before)}")
        own = trained_on(now, site, rules)
        say(f"trained on at this site, {rules.rounds} rounds, as was agreed ([fine_tuning])")
        if path is not None:
            save_model(path, replace(final, parameters=own))
    if site.held_out is not None:
        try:
            ours, alone = beside_alone(now, own, site, run.plan)
        except Exception as error:  # noqa: BLE001 - a learner is foreign code, and the model is kept
            say(f"the model could not be evaluated here: {type(error).__name__}: {error}")
        else:
            say(f"on this site's {len(site.held_out)} held-out rows: {told(ours)}")
            if alone is not None:
                say(f"a model trained on this site's rows alone: {told(alone)}")
    kept = "give --model FILE to keep its model" if path is None else f"its model is in {path}"
    say(f"the run is over after {final.number} of {run.plan.rounds} rounds: {kept}")


def explain(
    training: Annotated[Path, typer.Argument(help="Training file (TOML) that the parties agree on.")],
    *,
    schema: SchemaOption,
    registry: RegistryOption,
    decryptors: DecryptorsOption = None,
    classes: ClassesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print who may choose what in a run, and what a lying server still gains by it."""
    from dataclasses import asdict

    from fedcore.data.schema import Schema
    from fedcore.rounds.levers import drowned, levers
    from secagg.service import Registry

    columns, opening = Schema.load(schema, classes_of(classes)), _identities(_decryptors(decryptors))
    run = _agreed(columns, Registry.load(registry), {"training": training}, opening)
    found, warning = levers(run), drowned(run)
    console = Console()
    if as_json:
        said: dict[str, Any] = {"agreement": run.digest.hex(), "levers": [asdict(lever) for lever in found]}
        said["warnings"] = [warning] if warning else []
        console.print_json(json.dumps(said))
        return
    title = f"agreement {run.digest.hex()}"
    table = Table("what", "who chooses it", "what a liar gains", "remedy", title=title)
    for lever in found:
        words = (lever.name, lever.chosen, lever.remains or "nothing", lever.remedy)
        table.add_row(*(Text(word, overflow="fold") for word in words))  # [privacy] is no markup
    console.print(table, highlight=False)
    if warning:
        console.print(f"WARNING: {warning}", style="yellow", highlight=False, markup=False)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(serve)
    app.command()(join)
    app.command()(explain)
