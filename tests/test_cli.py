"""The command lines `secagg` and `fedcore`: what they make, and one line with status 2 for bad input."""

from __future__ import annotations

import codecs
import gc
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import secagg.cli
from fedcore.cli import service
from fedcore.codec.codec import Codec
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.privacy import guard as guard_module
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.agreement import Agreement
from fedcore.rounds.model import Model
from fedcore.rounds.plan import TrainingPlan
from fedcore.service.join import JoinOptions
from fedcore.settings import defaults
from fedcore.statistics.standardizer import Standardizer
from secagg import kernels
from secagg.service import Registry, ServerCredentials, read_identity
from tests.fedcore.sites import make_sites

ROWS = "age,dose,answer\n30,1.5,no\n40,-2,yes\n"


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    def refused(self, program: str, message: str) -> None:
        """Check for one line that says what is wrong, and nothing else."""
        assert self.status == 2, self
        assert self.out == ""
        assert self.err.endswith("\n")
        (line,) = self.err.splitlines()
        assert line.startswith(f"{program}: ")
        assert message in line


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a program's main() as its script does; output is taken from the descriptors."""
    import fedcore.cli.main  # brings scikit-learn

    def run(program: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        main = {"secagg": secagg.cli.main, "fedcore": fedcore.cli.main.main}[program]
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        if arguments[:1] == ("serve",):
            del caught
            gc.collect()  # what the server left open shows in this test
        return Outcome(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


@pytest.fixture
def party(tmp_path: Path, call: Call) -> Path:
    """A folder with all that a site and a server are started with."""
    for name in ("site-1", "site-2", "site-3", "site-4"):
        made = call(
            "secagg", "keygen", tmp_path / f"{name}.key", "--name", name, "--registry", tmp_path / "r.toml"
        )
        assert made.status == 0, made
    assert call("secagg", "keygen", tmp_path, "--server").status == 0
    (tmp_path / "schema.csv").write_text("column,low,high\nage,0,100\ndose,-5,5\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keygen_writes_a_private_key_and_prints_the_entry_of_the_registry(tmp_path: Path, call: Call) -> None:
    done = call("secagg", "keygen", tmp_path / "site-1.key")
    key = read_identity(tmp_path / "site-1.key")
    assert (done.status, done.err) == (0, "")
    assert done.out == Registry.of([("site-1", key.identity)]).dump().strip() + "\n"
    assert mode(tmp_path / "site-1.key") == 0o600


def test_keygen_adds_each_party_to_the_registry(tmp_path: Path, call: Call) -> None:
    registry = tmp_path / "registry.toml"
    identities = {}
    for name in ("north", "south", "east"):
        assert call("secagg", "keygen", tmp_path / name, "--name", name, "--registry", registry).status == 0
        identities[name] = read_identity(tmp_path / name).identity
        loaded = Registry.load(registry)
        assert {n: i for i, n in loaded.names.items()} == identities
    assert len(set(identities.values())) == 3


def test_keygen_makes_a_server_certificate_that_loads_with_its_private_key(
    tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "new" / "server"
    done = call("secagg", "keygen", folder, "--server", "--host", "hub.example", "--host", "10.0.0.1")
    assert (done.status, done.err) == (0, "")
    loaded = ServerCredentials.load(folder / "server.crt", folder / "server.key")
    assert loaded.digest.hex() in done.out.replace("\n", "")
    assert mode(folder / "server.key") == 0o600


def test_keygen_replaces_no_key(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "site.key"
    assert call("secagg", "keygen", path).status == 0
    before = path.read_bytes()
    call("secagg", "keygen", path).refused("secagg", f"{path}: File exists")
    assert path.read_bytes() == before


def test_keygen_replaces_neither_the_certificate_nor_the_key_of_a_server(tmp_path: Path, call: Call) -> None:
    assert call("secagg", "keygen", tmp_path, "--server").status == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("server.crt", "server.key")}
    call("secagg", "keygen", tmp_path, "--server").refused("secagg", "server.crt: exists")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_keygen_does_not_replace_a_certificate_whose_key_is_elsewhere(tmp_path: Path, call: Call) -> None:
    (tmp_path / "server.crt").write_text("in use", encoding="utf-8")
    call("secagg", "keygen", tmp_path, "--server").refused("secagg", "server.crt")
    assert (tmp_path / "server.crt").read_text(encoding="utf-8") == "in use"
    assert not (tmp_path / "server.key").exists()


def test_keygen_refuses_a_name_that_is_taken_and_changes_nothing(tmp_path: Path, call: Call) -> None:
    registry = tmp_path / "registry.toml"
    assert call("secagg", "keygen", tmp_path / "a", "--name", "north", "--registry", registry).status == 0
    before = registry.read_bytes()
    again = call("secagg", "keygen", tmp_path / "b", "--name", "north", "--registry", registry)
    again.refused("secagg", "party north: is in")
    assert registry.read_bytes() == before
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["x y", "-x", "ä", "x" * 65])
def test_keygen_refuses_a_name_that_a_registry_cannot_hold(tmp_path: Path, call: Call, name: str) -> None:
    registry = tmp_path / "registry.toml"
    done = call("secagg", "keygen", tmp_path / "a.key", f"--name={name}", "--registry", registry)
    done.refused("secagg", "party.name: letters, digits")
    assert not registry.exists()
    assert not (tmp_path / "a.key").exists()  # the next attempt would find it in its way


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing/site.key"],
        ["a.key", "--name", "a", "--registry", "missing/registry.toml"],
        ["a.key", "--name", "a", "--registry", "broken.toml"],
        ["a.key", "--name", "a", "--registry", "."],
        ["broken.toml", "--server"],
        ["broken.toml/server", "--server"],
        ["server", "--server", "--host", "bücher.example"],
    ],
    ids=" ".join,
)
def test_keygen_says_in_one_line_what_it_cannot_write_or_read(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("party = 3", encoding="utf-8")
    call("secagg", "keygen", *arguments).refused("secagg", "")


def test_info_prints_the_kernel_variant_in_use_and_keeps_it(call: Call) -> None:
    used = kernels.variant()
    done = call("secagg", "info")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"kernel variant: {used}; this machine can run: ")
    assert used in done.out.split("can run: ")[1].replace("\n", " ").strip().split(", ")
    assert kernels.variant() == used


def serve(folder: Path, **changes: object) -> list[object]:
    """Arguments of `fedcore serve`, which would wait for clients if they were all right."""
    options: dict[str, object] = {
        "registry": folder / "r.toml",
        "certificate": folder / "server.crt",
        "key": folder / "server.key",
        "schema": folder / "schema.csv",
        "classes": "no,yes",
        "out": folder / "out",
        "start": 0.1,
        "deadline": 0.1,
    } | changes
    return ["serve", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


def join(folder: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "registry": folder / "r.toml",
        "certificate": folder / "server.crt",
        "key": folder / "site-1.key",
        "data": folder / "rows.csv",
        "schema": folder / "schema.csv",
        "label": "answer",
        "classes": "no,yes",
    } | changes
    named = (f"--{name.replace('_', '-')}={value}" for name, value in options.items())
    return ["join", "127.0.0.1:9", *named]


def decrypt(folder: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "server": "127.0.0.1:9",
        "registry": folder / "r.toml",
        "decryptors": folder / "decryptors.toml",
        "certificate": folder / "server.crt",
        "key": folder / "decryptor-0.key",
    } | changes
    named = (f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None)
    return ["decrypt", *named]


@pytest.fixture
def committee(bad: Path, call: Call) -> Path:
    for name in ("decryptor-0", "decryptor-1", "decryptor-2", "decryptor-3"):
        registry = bad / "decryptors.toml"
        made = call("secagg", "keygen", bad / f"{name}.key", "--name", name, "--registry", registry)
        assert made.status == 0, made
    return bad


FILES: dict[str, str] = {
    "empty.csv": "",
    "header.csv": "age,dose,answer\n",
    "nodose.csv": "age,answer\n1,no\n",
    "text.csv": "age,dose,answer\n1,2,no\nold,2,no\n",
    "nan.csv": "age,dose,answer\n1,nan,no\n",
    "far.csv": "age,dose,answer\n1,2,no\n101,2,no\n",
    "class.csv": "age,dose,answer\n1,2,perhaps\n",
    "quote.csv": 'age,dose,answer\n1,2,"no\n' + "1,2,no\n" * 30_000,
    "upside.csv": "column,low,high\nage,100,0\n",
    "broken.toml": "[[party]",
    "stranger.toml": '[[party]]\nname = "x"\nidentity = "00"\n',
    "text.key": "not hexadecimal\n",
}


@pytest.fixture
def bad(party: Path, call: Call) -> Path:
    for name, text in FILES.items():
        (party / name).write_text(text, encoding="utf-8")
        (party / name).chmod(0o600)
    (party / "binary.csv").write_bytes(b"\xff\xfe\0\1")
    (party / "open.key").write_bytes((party / "site-1.key").read_bytes())
    (party / "open.key").chmod(0o644)
    assert call("secagg", "keygen", party / "unknown.key").status == 0
    return party


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("registry", "missing.toml", "missing.toml: is not there"),
        ("registry", "broken.toml", "broken.toml: not a registry"),
        ("registry", "stranger.toml", "party x: identity: must be 32 bytes"),
        ("key", "missing.key", "missing.key: No such file"),
        ("key", "open.key", "open.key: mode must be 0600, is 0644"),
        ("key", "text.key", "text.key: must hold 64 hexadecimal digits"),
        ("key", "unknown.key", "unknown.key is not in"),
        ("certificate", "missing.crt", "missing.crt: not a certificate"),
        ("certificate", "rows.csv", "rows.csv: not a certificate"),
        ("schema", "missing.csv", "missing.csv: not a schema"),
        ("schema", "rows.csv", "rows.csv: not a schema"),
        ("schema", "upside.csv", "upside.csv: not a schema"),
        ("schema", "binary.csv", "binary.csv: not a schema"),
        ("data", "missing.csv", "missing.csv"),
        ("data", ".", "must end in one of .csv, .parquet, .npz"),
        ("data", "empty.csv", "empty.csv: is empty, the first line must name the columns"),
        ("data", "header.csv", "header.csv: has no rows"),
        ("data", "nodose.csv", "nodose.csv: column dose is missing"),
        ("data", "text.csv", "text.csv, line 3, row 2, column age: must be a number"),
        ("data", "nan.csv", "nan.csv, line 2, row 1, column dose: is missing, must be a number"),
        ("data", "far.csv", "far.csv, line 3, row 2, column age: must be in [0, 100]"),
        ("data", "class.csv", "class.csv, line 2, row 1, column answer: must be one of 'no', 'yes'"),
        ("data", "binary.csv", "binary.csv, line 1: is no utf-8 text"),
        ("data", "quote.csv", "quote.csv"),
        ("reveal", "rows.csv", "rows.csv"),
    ],
)
def test_join_says_in_one_line_which_file_is_bad(
    bad: Path, call: Call, option: str, value: str, message: str
) -> None:
    call("fedcore", *join(bad, **{option: bad / value})).refused("fedcore", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("label", "outcome", "rows.csv: column outcome is missing"),
        ("classes", "no", "schema: needs two classes or more"),
        ("classes", "no,no", "schema: needs two classes or more"),
        ("hold", "lunch", "hold: must be ROUND:PHASE"),
        ("minimum_cohort", 2, "minimum_cohort: must be at least 3, is 2"),
        ("corrupt", 1.5, "security.corrupt: must be in [0, 1), is 1.5"),
        ("corrupt", "nan", "security.corrupt: must be finite, is nan"),
    ],
)
def test_join_says_in_one_line_which_option_is_bad(
    party: Path, call: Call, option: str, value: object, message: str
) -> None:
    call("fedcore", *join(party, **{option: value})).refused("fedcore", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("registry", "broken.toml", "broken.toml: not a registry"),
        ("certificate", "rows.csv", "rows.csv: not a certificate"),
        ("key", "open.key", "open.key: mode must be 0600"),
        ("key", "missing.key", "missing.key: No such file"),
        ("key", "text.key", ""),
        ("schema", "upside.csv", "upside.csv: not a schema"),
        ("out", "rows.csv", "rows.csv"),
        ("out", "rows.csv/deeper", "rows.csv"),
    ],
)
def test_serve_says_in_one_line_which_file_is_bad(
    bad: Path, call: Call, option: str, value: str, message: str
) -> None:
    call("fedcore", *serve(bad, **{option: bad / value})).refused("fedcore", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("classes", "no", "schema: needs two classes or more"),
        ("listen", "nowhere.invalid:x", "--listen: must be host:port with a port in 0..65535"),
        ("weight_cap", 0, "plan.weight_cap: must be in 1..2^62, is 0"),
        ("weight_cap", 2**63, "plan.weight_cap: must be in 1..2^62"),
        ("corrupt", 1.0, "corrupt: must be in [0, 1), is 1.0"),
        ("dropout", -0.1, "dropout: must be in [0, 1), is -0.1"),
        ("minimum_cohort", 0, "security.minimum_cohort: must be at least 3, is 0"),
        ("corrupt", 0.9, "security.minimum_cohort: must be enough for 4 colluders"),
        ("clip", 0, "plan.clip: must be in 1e-100..1e100, is 0.0"),
        ("clip", "nan", "plan.clip: must be finite, is nan"),
        ("bits", 41, "bits: must be in 1..40, is 41"),
        ("training", "nowhere.toml", "nowhere.toml: not a training file"),
    ],
)
def test_serve_says_in_one_line_which_option_is_bad(
    party: Path, call: Call, option: str, value: object, message: str
) -> None:
    call("fedcore", *serve(party, **{option: value})).refused("fedcore", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("server", "127.0.0.1:0", "server: must be host:port with a port in 1..65535, is '127.0.0.1:0'"),
        ("place", "nowhere", "place: must be FEDERATION/RUN"),
        ("corrupt", 1.5, "minimum_corrupt"),
        ("corrupt", "nan", "minimum_corrupt"),
        ("epoch_hours", 0, "epoch_s: must be"),
        ("epoch_hours", "nan", "epoch_s: must be"),
        ("certificate", None, "--certificate: is needed, or --party"),
        ("decryptors", None, "is no decryptor of"),
    ],
)
def test_decrypt_says_in_one_line_which_option_is_bad(
    committee: Path, call: Call, option: str, value: object, message: str
) -> None:
    changes = {"store": committee / "decryptor.db"} | {option: value}
    call("secagg", *decrypt(committee, **changes)).refused("secagg", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("registry", "broken.toml", "broken.toml: not a registry"),
        ("decryptors", "missing.toml", "missing.toml: is not there"),
        ("key", "open.key", "open.key: mode must be 0600, is 0644"),
        ("key", "site-1.key", "site-1.key is no decryptor of"),
        ("certificate", "rows.csv", "rows.csv: not a certificate"),
        ("store", "rows.csv", "rows.csv"),
        ("store", "rows.csv/deeper", "rows.csv"),
        ("passphrase_file", "missing", "missing"),
    ],
)
def test_decrypt_says_in_one_line_which_file_is_bad(
    committee: Path, call: Call, option: str, value: str, message: str
) -> None:
    changes = {"store": committee / "decryptor.db"} | {option: committee / value}
    call("secagg", *decrypt(committee, **changes)).refused("secagg", message)


def edge(folder: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "server": "127.0.0.1:9",
        "registry": folder / "r.toml",
        "certificate": folder / "server.crt",
        "key": folder / "edge.key",
        "own-certificate": folder / "server.crt",
        "own-key": folder / "server.key",
    } | changes
    return ["edge", *(f"--{name}={value}" for name, value in options.items() if value is not None)]


@pytest.fixture
def near(bad: Path, call: Call) -> Path:
    assert call("secagg", "keygen", bad / "edge.key").status == 0
    return bad


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("server", "127.0.0.1:0", "--server: must be host:port with a port in 1..65535, is '127.0.0.1:0'"),
        ("listen", "nowhere", "--listen: must be host:port"),
        ("place", "nowhere", "place: must be FEDERATION/RUN"),
        ("collect", 0, "upload_s: must be positive"),
        ("collect", "nan", "upload_s: must be"),
        ("grace", -1, "upload_grace_s: must be"),
        ("certificate", None, "--certificate: is needed, or --party"),
    ],
)
def test_edge_says_in_one_line_which_option_is_bad(
    near: Path, call: Call, option: str, value: object, message: str
) -> None:
    call("secagg", *edge(near, **{option: value})).refused("secagg", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("registry", "broken.toml", "broken.toml: not a registry"),
        ("key", "site-1.key", "site-1.key is a client of"),
        ("key", "open.key", "open.key: mode must be 0600, is 0644"),
        ("certificate", "rows.csv", "rows.csv: not a certificate"),
        ("own-certificate", "rows.csv", "rows.csv: not a certificate"),
        ("own-key", "missing.key", "missing.key"),
        ("store", "rows.csv", "rows.csv"),
    ],
)
def test_edge_says_in_one_line_which_file_is_bad(
    near: Path, call: Call, option: str, value: str, message: str
) -> None:
    call("secagg", *edge(near, **{option: near / value})).refused("secagg", message)


@pytest.mark.process
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_edge_without_a_root_says_what_it_waits_for_until_it_is_stopped(
    near: Path, by: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from secagg.cli import main; main()", *map(str, edge(near))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        said = [one.stdout.readline() for _ in range(3)]
        one.send_signal(by)
        _, errors = one.communicate(timeout=60)
    assert said[0].startswith("WARNING: without --store, a restart has forgotten what was acknowledged")
    assert said[1].startswith("listening on 127.0.0.1:")
    assert said[2].startswith("waits for the root at 127.0.0.1:9")
    assert (one.returncode, errors) == (130, "")


@pytest.mark.process
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_decryptor_without_a_server_says_what_it_waits_for_until_it_is_stopped(
    committee: Path, by: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from secagg.cli import main; main()", *map(str, decrypt(committee))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        said = [one.stdout.readline() for _ in range(3)]
        one.send_signal(by)
        _, errors = one.communicate(timeout=60)
    assert said[0].startswith("WARNING: without --store, a restart has forgotten its epochs")
    assert said[1] == "decryptor decryptor-0 of default/default, 4 enrolled\n"
    assert said[2].startswith("waits for the server at 127.0.0.1:9")
    assert (one.returncode, errors) == (130, "")


@pytest.mark.process
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_server_to_which_nobody_comes_says_whom_it_waits_for_until_it_is_stopped(
    party: Path, by: signal.Signals
) -> None:
    command = [sys.executable, "-m", "fedcore", *map(str, serve(party))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(4)]
        server.send_signal(by)
        _, errors = server.communicate(timeout=60)
    assert said[0].startswith("listening on 127.0.0.1:")
    missing = "missing: site-1, site-2, site-3, site-4"
    assert said[2].startswith("WARNING: without --store")
    assert said[3] == f"waits for 4 more: 0 of 4 needed are here (none), {missing}\n"
    assert (server.returncode, errors) == (130, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "iris"], "dataset: must be one of breast_cancer, digits, "),
        (["--drop", "lunch"], "hold: must be ROUND:PHASE"),
        (["--drop", "13:unmasking"], "drop: round must be in 1..12, is 13"),
        (["--drop", "0:unmasking"], "drop: round must be in 1..12, is 0"),
        (["--clients", "100"], "rows: 100 clients of 8 or more need 800"),
        (["--data", "missing"], "missing/schema.csv: not a schema"),
        (["--data", "."], "has no file that ends in .csv, .parquet, .npz"),
        (["--out", "file"], "file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_demo_says_in_one_line_what_is_bad_before_it_starts_anything(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "schema.csv").write_text("column,low,high\nage,0,1\n", encoding="utf-8")
    done = call("fedcore", "demo", *arguments)
    done.out = ""  # the status line
    done.refused("fedcore", message)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("secagg", []),
        ("secagg", ["encrypt"]),
        ("secagg", ["keygen"]),
        ("secagg", ["keygen", "x", "--color"]),
        ("secagg", ["keygen", "x", "--name", "a"]),
        ("secagg", ["keygen", "x", "--registry", "r.toml"]),
        ("secagg", ["keygen", "x", "--server", "--name", "a", "--registry", "r.toml"]),
        ("fedcore", []),
        ("fedcore", ["learn"]),
        ("fedcore", ["serve"]),
        ("fedcore", ["join", "127.0.0.1:1"]),
        ("fedcore", ["demo", "--rounds", "0"]),
        ("fedcore", ["demo", "--clients", "3"]),
        ("fedcore", ["demo", "--clients", "many"]),
        ("fedcore", ["demo", "--seed", "-1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_command_line_that_is_no_command_exits_with_2_and_makes_nothing(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, program: str, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(program, *arguments)
    assert list(tmp_path.iterdir()) == []
    if arguments:
        done.refused(program, "")
    else:  # the help says what there is
        assert done.status == 2
        assert "Usage: " in done.out + done.err
        assert "Traceback" not in done.err


@pytest.mark.process
@pytest.mark.parametrize("module", ["secagg.cli", "fedcore", "fedcore.cli.main"])
def test_the_modules_run_as_programs_and_help(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: " in done.stdout
    assert done.stderr == ""


@pytest.mark.process
def test_as_a_process_bad_input_gives_one_line_on_stderr_and_status_2(tmp_path: Path) -> None:
    key = tmp_path / "site.key"
    key.touch()
    for program, arguments in (
        ("secagg.cli", ["keygen", str(key)]),
        ("fedcore", ["demo", "--dataset", "iris", "--out", str(tmp_path)]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", program, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(program.split(".")[0] + ": ")


def test_a_site_knows_its_own_registry_and_reveals_nothing_unless_told(
    party: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[JoinOptions] = []

    async def record(options: JoinOptions, _say: object) -> Model:
        if taken:
            options.site.trained = 1
        taken.append(options)
        return Model({}, Standardizer.none(), 3)

    monkeypatch.setattr("fedcore.service.join.join", record)
    sat_out = call("fedcore", *join(party))
    assert sat_out.status == 1
    assert "this site's rows are in no training sum of this run" in sat_out.out
    assert call("fedcore", *join(party, minimum_cohort=4, corrupt=0.25, reveal=party / "plain")).status == 0
    known = Registry.load(party / "r.toml").identities
    plan, learner = taken[0].run.plan, taken[0].run.learner
    assert plan == TrainingPlan(rounds=defaults(TrainingPlan)["rounds"], clients=4)
    assert learner == LogisticRegressionLearner(features=2, classes=2)
    policies = [options.run.policy() for options in taken]
    assert [policy.known for policy in policies] == [known, known]
    assert [policy.minimum_corrupt for policy in policies] == [0.1, 0.25]
    assert [policy.minimum_cohort for policy in policies] == [4, 4]
    assert all(policy.adversary == "active" for policy in policies)
    assert [options.reveal for options in taken] == [None, party / "plain"]


def test_a_folder_that_holds_a_run_is_not_written_to_again(party: Path, call: Call) -> None:
    (party / "out").mkdir()
    (party / "out" / "history.jsonl").write_text("{}\n", encoding="utf-8")
    call("fedcore", *serve(party)).refused("fedcore", "already holds a run")
    assert (party / "out" / "history.jsonl").read_text(encoding="utf-8") == "{}\n"


@pytest.mark.parametrize("rate", ["nan", "0", "-1"])
def test_a_learning_rate_that_is_none_is_refused(party: Path, call: Call, rate: str) -> None:
    call("fedcore", *join(party, learning_rate=rate)).refused("fedcore", "learning_rate: must be ")


@pytest.mark.parametrize("name", ["start", "deadline", "grace"])
def test_times_that_are_no_times_are_refused(party: Path, call: Call, name: str) -> None:
    for seconds in ("nan", "-1"):
        call("fedcore", *serve(party, **{name: seconds})).refused("fedcore", "must be positive and finite")


def test_plan_prints_both_adversaries_side_by_side_with_risks(call: Call) -> None:
    done = call("secagg", "plan", "--clients", 1000, "--length", 1000, "--value-bits", 8)
    assert done.status == 0, done
    for text in ("passive server", "active server", "degree", "128", "551", "-84.2", "seconds of a client"):
        assert text in done.out


def test_plan_as_json_is_for_programs(call: Call) -> None:
    done = call("secagg", "plan", "--clients", 100, "--length", 10, "--dropout", 0.5, "--json")
    passive, active = json.loads(done.out)
    assert (passive["degree"], passive["threshold"], passive["ring_bits"]) == (50, 11, 23)
    assert passive["client_s"] > 0
    assert active == {
        "infeasible": "100 clients cannot meet corrupt=0.1, dropout=0.5, adversary='active'; "
        "what helps: dropout=0.44"
    }


def test_plan_and_explain_know_the_suites(call: Call) -> None:
    def planned(suite: str) -> tuple[str, int]:
        done = call("secagg", "plan", "--clients", 1000, "--length", 1, "--suite", suite, "--json")
        active = json.loads(done.out)[1]
        assert active["degree"] == 128
        return active["suite"], sum(active["up_bytes"].values())

    assert planned("x25519") == ("x25519", 27_797)
    assert planned("x25519-mlkem768") == ("x25519-mlkem768", 245_211)
    assert "EVERY SINGLE VECTOR, of the" in call("secagg", "explain", "--clients", 12).out
    hybrid = call("secagg", "explain", "--clients", 12, "--suite", "x25519-mlkem768").out
    assert "ML-KEM-768" in hybrid
    call("secagg", "plan", "--clients", 12, "--length", 1, "--suite", "rsa").refused(
        "secagg", "--suite: must be one of x25519, x25519-mlkem768, is 'rsa'"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clients", 2, "--length", 1), "2 clients cannot meet"),
        (("--clients", 100, "--length", 1, "--value-bits", 60), "lower value_bits by 3"),
        (("--clients", 10, "--length", 1, "--corrupt", 1.5), "corrupt: must be in [0, 1)"),
        (("--clients", 0, "--length", 1), "--clients"),
    ],
    ids=str,
)
def test_plan_says_in_one_line_what_to_relax(call: Call, options: tuple[object, ...], message: str) -> None:
    call("secagg", "plan", *options).refused("secagg", message)


def test_explain_prints_who_learns_what_and_the_tests(call: Call) -> None:
    done = call("secagg", "explain", "--clients", 12, "--colluding", 2)
    assert done.status == 0, done
    for text in ("server and 2 colluding clients", "at least 2 of them", "network", "test_hiding.py"):
        assert text in done.out
    assert "POSSIBLY EVERYTHING" in call("secagg", "explain", "--clients", 12, "--passive").out
    call("secagg", "explain", "--clients", 12, "--colluding", 13).refused(
        "secagg", "colluding: must be in 0..12"
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing", (), "No such file"),
        ("here", ("--server", "00"), "--server: must be an identity"),
        ("here", ("--server", "xyz"), "--server: must be an identity"),
    ],
)
def test_verify_says_in_one_line_what_is_bad(
    tmp_path: Path, call: Call, name: str, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "here").write_bytes(b"")
    call("secagg", "verify", tmp_path / name, *options).refused("secagg", message)


def test_verify_of_what_is_no_transcript_fails_with_what_is_wrong(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "transcript"
    path.write_bytes(b"something else")
    done = call("secagg", "verify", path)
    assert done.status == 1
    assert "the first line is not that of a transcript" in done.out
    assert "NOT verified" in done.out


def test_a_site_with_privacy_takes_no_seed_and_needs_an_account(party: Path, call: Call) -> None:
    text = '[learner]\nkind = "softmax"\n[plan]\nnorm = 1.0\nbits = 10\nrounds = 2\n'
    text += "[privacy]\nepsilon = 40.0\ndelta = 1e-3\nsmallest = 4\n"
    (party / "training.toml").write_text(text, encoding="utf-8")
    done = call("fedcore", *join(party, training=party / "training.toml", seed=1))
    done.refused("fedcore", "--seed: noise that can be repeated hides nothing")
    done = call("fedcore", *join(party, training=party / "training.toml"))
    done.refused("fedcore", "--account: is missing, a site must not spend its budget anew")
    weak = party / "weak.toml"
    weak.write_text(text.replace("smallest = 4", ""), encoding="utf-8")
    call("fedcore", *join(party, training=weak)).refused("fedcore", "privacy.smallest: is missing")


def test_explain_prints_who_may_choose_what(party: Path, call: Call) -> None:
    (party / "run.toml").write_text("[plan]\nrounds = 3\n[consent]\nregroup = true\n", encoding="utf-8")
    options = [
        f"--{name}={party / file}" for name, file in (("registry", "r.toml"), ("schema", "schema.csv"))
    ]
    told = call("fedcore", "explain", party / "run.toml", *options, "--classes=no,yes", "--json")
    assert (told.status, told.err) == (0, "")
    found = {lever["name"]: lever for lever in json.loads(told.out)["levers"]}
    assert "5 steps" in found["order and retries"]["chosen"]
    assert "whole groups" in found["who is in a sum"]["chosen"]
    shown = call("fedcore", "explain", party / "run.toml", *options, "--classes=no,yes")
    assert shown.status == 0
    assert json.loads(told.out)["agreement"] in shown.out.replace("\n", "")


def test_what_a_training_file_says_is_not_said_by_an_option_beside_it(party: Path, call: Call) -> None:
    (party / "run.toml").write_text("[plan]\nrounds = 3\n", encoding="utf-8")
    for name, value in (("rounds", 3), ("corrupt", 0.2), ("minimum_cohort", 4), ("epochs", 1)):
        done = call("fedcore", *join(party, training=party / "run.toml", **{name: value}))
        done.refused("fedcore", f"--{name.replace('_', '-')}: is said by the training file")


def test_an_account_is_told_in_a_line_and_as_json(tmp_path: Path, call: Call) -> None:
    guard = PrivacyGuard(
        PrivacyPlan(epsilon=8.0, delta=1e-3, rounds=3, smallest=4), tmp_path / "site.account"
    )
    noise = guard.plan.noise(Codec(clip=1.0, bits=14, weight_cap=1, clients=4), 1.0, 10)
    for _ in range(2):
        guard.after(noise, 10, None)
    guard_module._write(tmp_path / "site.account", guard.accountant)
    agreed = "[plan]\nrounds = 3\nnorm = 1.0\n[privacy]\nepsilon = 8.0\ndelta = 1e-3\nsmallest = 4\n"
    (tmp_path / "a.toml").write_text(agreed, encoding="utf-8")
    said = call("fedcore", "account", tmp_path / "site.account", "--training", tmp_path / "a.toml").out
    spent = guard.accountant.epsilon
    assert said.splitlines() == [
        f"2 noisy sums: epsilon {spent:.4g} at delta 0.001",
        "counted with the fewest sites in a sum, and every attempt: a server may say less",
        f"of epsilon 8, {8 - spent:.4g} are left",
    ]
    found = json.loads(call("fedcore", "account", tmp_path / "site.account", "--json").out)
    assert found == {"epsilon": guard.accountant.epsilon, "delta": 1e-3, "sums": 2}
    (tmp_path / "b.toml").write_text(agreed.replace("1e-3", "1e-5"), encoding="utf-8")
    call("fedcore", "account", tmp_path / "site.account", "--training", tmp_path / "b.toml").refused(
        "fedcore", "b.toml: is for delta 1e-05, the account for 0.001"
    )
    call("fedcore", "account", tmp_path / "none").refused("fedcore", "none: not an account")


def test_files_with_a_byte_order_mark_are_read(party: Path, call: Call) -> None:
    for name in ("r.toml", "server.crt", "site-1.key", "schema.csv"):
        content = (party / name).read_bytes()
        (party / name).write_bytes(codecs.BOM_UTF8 + content)
    (party / "a.toml").write_bytes(codecs.BOM_UTF8 + b"[plan]\nrounds = 2\n")
    assert len(Registry.load(party / "r.toml").identities) == 4
    assert ServerCredentials.load(party / "server.crt", party / "server.key").digest
    assert read_identity(party / "site-1.key").identity in Registry.load(party / "r.toml").identities
    files = [f"--schema={party / 'schema.csv'}", f"--registry={party / 'r.toml'}"]
    shown = call("fedcore", "explain", party / "a.toml", *files, "--json")
    assert json.loads(shown.out)["warnings"] == []


def test_serve_and_join_refuse_before_they_make_anything(party: Path, call: Call) -> None:
    (party / "bad.toml").write_text("[plan]\nrounds = 0\nbits = 99\n", encoding="utf-8")
    before = sorted(path.name for path in party.iterdir())
    call(
        "fedcore", *serve(party, training=party / "bad.toml", store=party / "s.db", classes="no,yes")
    ).refused("fedcore", "bits")
    assert sorted(path.name for path in party.iterdir()) == before


def test_watching_needs_a_file_to_evaluate_on(party: Path, call: Call) -> None:
    more = {"held_out": 0.5}
    done = call("fedcore", *join(party, **more), "--watch")
    done.refused("fedcore", "--held-out: must be a file with --watch")


def test_what_serve_refuses_check_refuses(party: Path, call: Call) -> None:
    faults = {
        "evaluate_every": "[plan]\nrounds = 2\nnorm = 1.0\nbits = 12\nevaluate_every = 1\n"
        "[privacy]\nepsilon = 9.0\ndelta = 1e-3\nsmallest = 4\n[security]\nminimum_cohort = 4\n",
        "fine_tuning.only": '[fine_tuning]\nrounds = 1\nonly = ["nosuch*"]\n',
        "strategy.personal": '[strategy]\npersonal = ["nosuch*"]\n',
    }
    schema = f"--schema={party / 'schema.csv'}"
    for key, text in faults.items():
        (party / "a.toml").write_text(f'[learner]\nkind = "softmax"\n{text}', encoding="utf-8")
        files = (f"--training={party / 'a.toml'}", "--classes=no,yes")
        call("fedcore", "check", party / "rows.csv", schema, *files, "--label=answer").refused("fedcore", key)
        registry = f"--registry={party / 'r.toml'}"
        call("fedcore", "explain", party / "a.toml", schema, registry, "--classes=no,yes").refused(
            "fedcore", key
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "127.0.0.1:0"}, "server: must be host:port with a port in 1..65535"),
        ({"held_out": "DATA"}, "--held-out: is --data"),
    ],
)
def test_join_refuses_what_cannot_be_meant(
    party: Path, call: Call, changes: dict[str, str], message: str
) -> None:
    given = {name: str(party / "rows.csv") if value == "DATA" else value for name, value in changes.items()}
    arguments = join(party, **{name: value for name, value in given.items() if name != "address"})
    if "address" in given:
        arguments[1] = given["address"]
    call("fedcore", *arguments).refused("fedcore", message)


def test_an_account_without_room_for_one_sum_ends_a_site_at_once(party: Path, call: Call) -> None:
    text = "[plan]\nrounds = 2\nnorm = 1.0\nbits = 12\n[privacy]\nepsilon = {}\ndelta = 1e-3\nsmallest = 4\n"
    agreed = text + "[security]\nminimum_cohort = 4\ncorrupt = 0.0\n"
    (party / "a.toml").write_text(agreed.format(30.0), encoding="utf-8")
    plan = Agreement.load(party / "a.toml").make_plan(4)
    assert plan.privacy is not None
    guard = PrivacyGuard(plan.privacy, party / "site.account")
    noise = guard.plan.noise(Codec(clip=1.0, bits=12, weight_cap=1, clients=4), 1.0, 10)
    for _ in range(2):
        guard.after(noise, 10, None)
    guard_module._write(party / "site.account", guard.accountant)
    del guard
    gc.collect()  # lets go of the account
    (party / "a.toml").write_text(agreed.format(0.5), encoding="utf-8")
    done = call("fedcore", *join(party, training=party / "a.toml", account=party / "site.account"))
    assert done.status == 3
    assert "epsilon: is " in done.err
    assert ", limit 0.5" in done.err


def test_a_learner_that_never_says_anything_is_no_success() -> None:
    said: list[str] = []
    site = make_sites(4)["site-0"]
    for trained, silent, fine in ((0, 0, False), (3, 0, True), (3, 1, True), (3, 3, False)):
        site.trained, site.silent = trained, silent
        assert service._took_part(site, said.append) is fine
    assert said == [
        "this site's rows are in no training sum of this run: see above why it sat out",
        "in 1 of 3 training sums this site said nothing: see above why",
        "in 3 of 3 training sums this site said nothing: see above why",
    ]
